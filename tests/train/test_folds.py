"""Out-of-fold scores: three runs made by hand, put together, and every way in which they would flatter refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scored import row, scored
from segport.command import run_command
from segport.errors import UsageError
from segport.modelfile import file_sha256
from segport_train.calibration import Calibration
from segport_train.evaluation import Evaluation
from segport_train.folds import command, describe_folds, pool, read_run
from segport_train.results import write_results

TUMOUR = {"a": (4, 8), "b": (0, 5), "c": (2, 2), "d": (6, 3), "e": (1, 1)}  # pixels of mask and truth
FOLDS = (("a", "b"), ("c", "d"), ("e",))


def measured(patients: tuple[str, ...]) -> Evaluation:
    one = scored(*((p, row(TUMOUR[p][0]), row(TUMOUR[p][1])) for p in patients), site="north")
    calibration = Calibration.of_slice(np.zeros((1, 10), np.float32), row(3))
    return Evaluation(one.slices, calibration=calibration)


def make_run(
    root: Path,
    number: int | None,
    *,
    test: tuple[str, ...] | None = None,
    sha256: str = "",
    beside: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """Write what `folds` reads of a run: settings.json, split.csv, slices.csv and calibration.csv."""
    out = root / f"run{number}"
    kept = FOLDS[number - 1] if test is None and number else test or ()
    fold = [number, len(FOLDS)] if number else None
    plain = {"seed": 0, "epochs": 3, "init": "none", "data": "lgg", "workers": 1, "out": str(out), "fold": fold}
    counts = {"train": {"patients": len(TUMOUR) - len(kept)}, "test": {"patients": len(kept)}}
    write_results(out, {"test": measured(kept)})
    recorded = {"settings": plain | settings, "data": counts, "precision": "fp32"} | (beside or {})
    recorded |= {"start": {"init_sha256": sha256}} if sha256 else {}
    (out / "settings.json").write_text(json.dumps(recorded))
    lines = [f"{p},{'test' if p in kept else 'train'}" for p in TUMOUR]
    (out / "best.safetensors").touch()
    (out / "split.csv").write_text("\n".join(["patient,part", *lines]) + "\n")
    return out


def pooled(*folders: Path) -> Evaluation:
    return pool([read_run(folder) for folder in folders])


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [make_run(tmp_path, number) for number in (2, 1, 3)]


def test_every_patient_is_scored_once(runs: list[Path]) -> None:
    whole = pooled(*runs)
    assert sorted(whole.patients) == sorted(TUMOUR)
    expected = measured(tuple(TUMOUR))
    assert whole.scores == expected.scores
    assert whole.calibration is not None
    assert whole.calibration.pixels.sum() == 30
    assert whole.calibration.tumour.sum() == 9


def test_the_report_names_aggregations_baselines_folds_and_sites(runs: list[Path], capsys) -> None:
    assert run_command(command, [str(r) for r in runs], name="folds", interrupted="") == 0
    text = capsys.readouterr().out
    assert "## all folds: 5 patients, 5 slices, 5 of them with tumour" in text
    assert f"| Dice, pooled pixels | {2 * (4 + 0 + 2 + 3 + 1) / (12 + 5 + 4 + 9 + 2):.4f} |" in text
    assert "predicting nothing" in text
    assert text.index("| 1 of 3 | 2 | 2 |") < text.index("| 2 of 3 | 2 | 2 |") < text.index("| 3 of 3 | 1 | 1 |")
    assert "| north | all folds | 5 | 5 |" in text
    assert "Started from" not in text
    assert "- *Predicting nothing*: " in text
    assert "- *Loss* in the curves" not in text  # of which there are none here
    assert "- *Copying the nearest training slice*" not in text


def test_threads_and_folders_may_differ_and_what_decides_a_number_may_not(tmp_path: Path, runs: list[Path]) -> None:
    make_run(tmp_path, 2, workers=4, precision="auto")
    make_run(tmp_path, 3, precision="fp32")  # which is what auto became in the other
    assert len(pooled(*runs).patients) == 5
    for changes, message in (
        ({"epochs": 4}, "epochs: 4 there, 3 here"),
        ({"data": "other"}, "data: other there, lgg here"),
        ({"new": 1}, "new: 1 there, None here"),
    ):
        make_run(tmp_path, 2, **changes)
        with pytest.raises(UsageError, match=message):
            pooled(*runs)
    for beside, message in (
        ({"precision": "bf16"}, "precision: bf16 there, fp32 here"),
        ({"processes": 4}, "processes: 4 there, 1 here"),
        ({"order": "abc"}, "order: abc there, None here"),
    ):
        make_run(tmp_path, 2, beside=beside)
        with pytest.raises(UsageError, match=message):
            pooled(*runs)


def test_a_setting_that_an_older_run_lacks_is_what_that_run_did(tmp_path: Path, runs: list[Path]) -> None:
    make_run(tmp_path, 2, flair_only=0.1, optimizer="adam")
    assert len(pooled(*runs).patients) == 5
    make_run(tmp_path, 2, flair_only=0.3)
    with pytest.raises(UsageError, match=r"flair_only: 0\.3 there, 0\.1 here"):
        pooled(*runs)


def test_runs_before_the_folds_are_of_one_experiment_too(tmp_path: Path, runs: list[Path]) -> None:
    first = {n: make_run(tmp_path / "first", n) / "best.safetensors" for n in (1, 2, 3)}
    for number in (1, 2, 3):
        make_run(tmp_path, number, init=str(first[number]))
    assert len(pooled(*runs).patients) == 5
    make_run(tmp_path / "first", 3, epochs=1)
    with pytest.raises(UsageError, match=r"run3.*first.*run3.*epochs: 3 there, 1 here"):
        pooled(*runs)
    make_run(tmp_path / "first", 3)
    before = make_run(tmp_path / "before", 3) / "best.safetensors"
    make_run(tmp_path / "first", 3, init=str(before))
    with pytest.raises(UsageError, match=r"runs before it: 1 there, 2 here.*start: none there, a file here"):
        pooled(*runs)


def test_a_missing_fold_is_refused_and_one_given_twice(runs: list[Path]) -> None:
    with pytest.raises(UsageError, match=r"the folds \[1, 2\] of 3"):
        pooled(*runs[:2])
    with pytest.raises(UsageError, match=r"the folds \[1, 2, 2, 3\] of 3"):
        pooled(*runs, runs[0])


def test_a_patient_in_two_test_parts_is_refused(tmp_path: Path, runs: list[Path]) -> None:
    make_run(tmp_path, 3, test=("e", "a"))
    with pytest.raises(UsageError, match=r"the patient a is in the test part of .*run1 and of .*run3"):
        pooled(*runs)


def test_a_patient_whom_no_fold_tests_is_missed(tmp_path: Path, runs: list[Path]) -> None:
    make_run(tmp_path, 2, test=("c",))
    with pytest.raises(UsageError, match="hold 4 patients, the data 5"):
        pooled(*runs)


def test_weights_that_knew_a_test_patient_are_refused_however_long_ago(tmp_path: Path, runs: list[Path]) -> None:
    first = {n: make_run(tmp_path / "first", n) / "best.safetensors" for n in (1, 2, 3)}
    for number in (1, 2, 3):
        make_run(tmp_path, number, init=str(first[number]))
    assert len(pooled(*runs).patients) == 5
    make_run(tmp_path, 2, init=str(first[1]))
    with pytest.raises(UsageError, match="2 of its test patients had a part in, such as c"):
        pooled(*runs)
    make_run(tmp_path, 2, init=str(first[2]))
    before = make_run(tmp_path / "before", 3) / "best.safetensors"
    make_run(tmp_path / "first", 2, init=str(before))
    with pytest.raises(UsageError, match=r"started from .*before.*run3"):
        pooled(*runs)


def test_a_chain_of_starts_that_comes_back_to_itself_ends(tmp_path: Path, runs: list[Path]) -> None:
    for number in (1, 2, 3):
        make_run(tmp_path, number, init=str(tmp_path / f"run{number}/best.safetensors"))
    assert describe_folds([read_run(folder) for folder in runs]).count("made from unknown patients") == 3


def test_weights_of_unknown_patients_are_named(tmp_path: Path, runs: list[Path], monkeypatch) -> None:
    monkeypatch.chdir(runs[0])  # a split.csv lies there, which is of no weights named default
    for init in ("somewhere/weights.pth", "default"):
        for number in (1, 2, 3):
            make_run(tmp_path, number, init=init)
        text = describe_folds([read_run(folder) for folder in runs])
        assert text.count(f"Started from {init}, made from unknown patients") == 1
    make_run(tmp_path, 2, init="none")
    with pytest.raises(UsageError, match="start: default there, none here"):
        pooled(*runs[1:], runs[0])
    for number in (1, 2, 3):
        make_run(tmp_path, number, init="imagenet")
    assert "Started from" not in describe_folds([read_run(folder) for folder in runs])


def test_weights_that_were_written_over_since_are_named(tmp_path: Path, runs: list[Path]) -> None:
    first = {n: make_run(tmp_path / "first", n) / "best.safetensors" for n in (1, 2, 3)}
    for number in (1, 2, 3):
        make_run(tmp_path, number, init=str(first[number]), sha256=file_sha256(first[number]))
    assert "Started from" not in describe_folds([read_run(folder) for folder in runs])
    first[2].write_bytes(b"others")
    text = describe_folds([read_run(folder) for folder in runs])
    assert text.count("made from unknown patients") == 1
    assert f"Started from {first[2]}, made from unknown patients" in text


def test_a_folder_that_is_no_fold_is_refused(tmp_path: Path, capsys) -> None:
    with pytest.raises(UsageError, match="was not trained with --fold"):
        read_run(make_run(tmp_path, None, test=("a",)))
    assert run_command(command, [str(tmp_path)], name="folds", interrupted="") == 2
    assert "expected a run folder" in capsys.readouterr().err
