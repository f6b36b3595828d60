"""The one training that tests share: CI has no trained PyTorch weights, and masks of untrained ones prove nothing."""

import os
from pathlib import Path

import pytest

from helpers import SAMPLE_DATA

COPIES = 4  # of each sample patient under other names: longer epochs, fewer checkpoints to write


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run folder: DeepLabV3-ResNet50 at 64 pixels that has learnt the sample slices' tumours."""
    from segport_train.cli import main

    root = tmp_path_factory.mktemp("trained")
    split = ["patient,part"]
    for copy in range(COPIES):
        for patient in SAMPLE_DATA.glob("patient_*"):
            folder = root / "data" / f"{patient.name}_copy_{copy}"
            folder.mkdir(parents=True)
            split.append(f"{folder.name},{'val' if patient.name == 'patient_4' else 'train'}")
            for file in patient.iterdir():
                (folder / file.name).symlink_to(file)
    (root / "split.csv").write_text("\n".join(split) + "\n")
    # 144 steps reached Dice 0.77 on the fourth patient. Augmented: without, three patients do not generalise to it. A
    # rate that falls to zero: with a constant one, some seeds end in empty masks.
    options = "--size 64 --output-stride 16 --epochs 12 --batch-size 8 --optimizer adamw --lr 2e-3 --loss bce-dice"
    arguments = f"{root}/data --out {root}/run --split-file {root}/split.csv --tumour-only --device cpu {options}"
    assert main([*arguments.split(), "--evaluate-train-every", "12"]) == 0
    return root / "run"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail on a skip where CI provides what tests need: a proof that did not run is none."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("SEGPORT_NO_SKIP") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
