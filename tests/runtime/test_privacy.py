"""Nothing leaves the machine, and nothing is left in the user's home, that nobody asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import TINY


def run(code: str, home: Path, **variables: str) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "ORT_"))}
    subprocess.run([sys.executable, "-c", code], env=kept | {"HOME": str(home)} | variables, check=True)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_model_is_loaded_without_a_trace_in_the_home_folder(tmp_path: Path, engine: str) -> None:
    run(f"from segport import Segmenter; Segmenter({str(TINY)!r}, device='cpu', engine={engine!r})", tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_who_wants_telemetry_keeps_it(tmp_path: Path) -> None:
    code = "import segport, os; assert os.environ['ORT_DISABLE_TELEMETRY'] == '0'"
    run(code, tmp_path, ORT_DISABLE_TELEMETRY="0")
