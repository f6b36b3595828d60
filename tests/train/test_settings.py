"""What cannot be chosen is refused when the settings are made, also by callers of the Python API."""

from pathlib import Path

import pytest

from segport.errors import UsageError
from segport_train.settings import TrainSettings


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("architecture", "unet", "deeplabv3 or deeplabv3plus"),
        ("output_stride", 0, "8 or 16"),
        ("split", "patients", "patient or site or slice"),
        ("optimizer", "sgd", "adam or adamw or muon"),
        ("loss", "dice", "bce or bce-dice"),
        ("problems", "ignore", "stop or leave-out"),
        ("batch_norm", "off", "train or frozen"),
        ("device", "gpu", "auto or cpu or cuda"),
        ("precision", "fp8", "auto or fp32 or bf16 or fp16"),
    ],
)
def test_a_choice_that_there_is_not_is_refused(name: str, value: object, expected: str) -> None:
    flag = name.replace("_", "-")
    with pytest.raises(UsageError, match=rf"^--{flag} is {value}, expected {expected}$"):
        TrainSettings(Path("data"), Path("run"), **{"init": "default", name: value})  # type: ignore[arg-type]
