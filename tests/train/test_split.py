"""Folds and sites: who is kept apart, and that nobody is on both sides."""

from pathlib import Path

import pandas as pd
import pytest

from segport.errors import UsageError
from segport_train.cli import main
from segport_train.settings import TrainSettings
from segport_train.split import assign_parts


def table_of(*patients: str) -> pd.DataFrame:
    rows = [(p, f"{p}/{p}_{n}.tif", 5 * (n == 1), f"{p}{n}") for p in patients for n in (1, 2)]
    return pd.DataFrame(rows, columns=["patient", "relative", "tumour_pixels", "sha256"])


def parts_of(table: pd.DataFrame, **changes) -> dict[str, str]:
    parts = assign_parts(table, TrainSettings(Path("in"), Path("out"), **changes))
    assert (parts.groupby(table.patient).nunique() == 1).all()
    return dict(parts.groupby(table.patient).first())


def test_over_all_folds_every_patient_is_kept_apart_once() -> None:
    table = table_of(*(f"p{n}" for n in range(11)))
    kept = [{p for p, part in parts_of(table, fold=(k, 4)).items() if part == "test"} for k in range(1, 5)]
    assert sorted(map(len, kept)) == [2, 3, 3, 3]
    assert sorted(p for fold in kept for p in fold) == sorted(f"p{n}" for n in range(11))
    assert kept[0] != {p for p, part in parts_of(table, fold=(1, 4), seed=1).items() if part == "test"}


def test_a_fold_may_have_no_validation_part() -> None:
    parts = parts_of(table_of("a", "b", "c", "d"), fold=(1, 2), validation=0)
    assert sorted(parts.values()) == ["test", "test", "train", "train"]


def test_sites_are_read_from_the_patients_names() -> None:
    table = table_of("TCGA_HT_1_x", "TCGA_HT_2_x", "TCGA_DU_1_x", "TCGA_CS_1_x", "TCGA_CS_2_x")
    parts = parts_of(table, split="site", holdout=("HT",), validation=0.2)
    assert [parts[f"TCGA_HT_{n}_x"] for n in (1, 2)] == ["test", "test"]
    assert sorted(parts.values()) == ["test", "test", "train", "train", "val"]
    assert parts_of(table, split="site", holdout=("DU", "CS"), validation=0)["TCGA_DU_1_x"] == "test"


def test_sites_by_a_pattern_of_ones_own() -> None:
    parts = parts_of(table_of("a-1", "a-2", "b-1"), split="site", holdout=("b",), site_pattern="^(.)-", validation=0)
    assert parts == {"a-1": "train", "a-2": "train", "b-1": "test"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fold": (1, 9)}, "--fold 1/9: there are 2 patients"),
        ({"split": "site", "holdout": ("XY",)}, "--holdout XY: no patient is of that site; found CS, HT"),
        ({"split": "site", "holdout": ("HT",), "site_pattern": "^x(.)"}, "does not match the patient TCGA_"),
        ({"split": "site", "holdout": ("HT", "CS")}, "leaves no slice with tumour to train on"),
    ],
)
def test_a_split_that_cannot_be_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parts_of(table_of("TCGA_HT_1_x", "TCGA_CS_1_x"), **changes)


def test_a_fold_is_written_as_a_fraction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--out", str(tmp_path / "run"), "--fold", "two"]) == 2
    assert "two: expected K/N, as in 1/5" in capsys.readouterr().err
    assert main([str(tmp_path), "--out", str(tmp_path / "run"), "--fold", "3/2"]) == 2
    assert "--fold is (3, 2), expected K/N with K from 1 to N" in capsys.readouterr().err
