from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers import square, write
from segport.errors import UsageError
from segport_train.settings import TrainSettings
from segport_train.split import assign_parts
from segport_train.table import build_table, fingerprint


def make_patients(root: Path, patients: int = 8, slices: int = 3) -> Path:
    for p in range(patients):
        for n in range(1, slices + 1):
            write(root / f"p{p}/p{p}_{n}.png", square(32, low=4, high=20, value=100 + 10 * p + n))
            write(root / f"p{p}/p{p}_{n}_mask.png", square(32, low=4, high=20 if n > 1 else 4)[..., 1])
    return root


def settings(data: Path, **changes: Any) -> TrainSettings:
    return TrainSettings(data, changes.pop("out", data.parent / "run"), **changes)


def test_the_table_has_a_row_a_slice(tmp_path: Path) -> None:
    table, problems = build_table(settings(make_patients(tmp_path / "in", 2)))
    assert problems == []
    assert table.relative.tolist() == [f"p{p}/p{p}_{n}.png" for p in (0, 1) for n in (1, 2, 3)]
    assert table.tumour_pixels.tolist() == [0, 256, 256] * 2
    assert set(table.height) == {32}
    assert table.number.tolist() == [1, 2, 3, 1, 2, 3]


def test_every_unusable_file_is_named(tmp_path: Path) -> None:
    root = make_patients(tmp_path / "in", 2)
    (root / "p0/p0_1_mask.png").unlink()
    (root / "p0/p0_2.png").unlink()
    write(root / "p0/p0_3_mask.png", np.zeros((9, 9), np.uint8))
    (root / "p1/p1_1.png").write_bytes(b"broken")
    (root / "p1/p1_2_mask.png").write_bytes(b"broken")
    with pytest.raises(UsageError) as refusal:
        build_table(settings(root))
    text = str(refusal.value)
    for part in (
        "p0_1.png: has no mask",
        "p0_2_mask.png: is a mask without a slice",
        "p0_3.png: its mask p0_3_mask.png is (9, 9), the slice (32, 32)",
        "p1_1.png: cannot be decoded",
        "p1_2.png: its mask p1_2_mask.png cannot be decoded",
        "5 files cannot be trained on",
        "--problems leave-out",
    ):
        assert part in text
    table, problems = build_table(settings(root, problems="leave-out"))
    assert table.relative.tolist() == ["p1/p1_3.png"]
    assert len(problems) == 5


def test_nothing_to_train_on_is_said(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(UsageError, match="found no slice with a mask"):
        build_table(settings(tmp_path / "in"))
    write(tmp_path / "in/a_1.png", square())
    write(tmp_path / "in/a_1_mask.png", np.zeros((64, 64), np.uint8))
    with pytest.raises(UsageError, match="every mask is empty"):
        build_table(settings(tmp_path / "in"))


def test_tumour_only_keeps_slices_with_tumour(tmp_path: Path) -> None:
    table, _ = build_table(settings(make_patients(tmp_path / "in", 2), tumour_only=True))
    assert table.number.tolist() == [2, 3, 2, 3]


def test_the_default_split_keeps_patients_together_and_follows_the_seed(tmp_path: Path) -> None:
    chosen = settings(make_patients(tmp_path / "in", 16))
    table, _ = build_table(chosen)
    table["part"] = assign_parts(table, chosen)
    assert (table.groupby("patient").part.nunique() == 1).all()
    assert table.groupby("part").patient.nunique().to_dict() == {"train": 12, "val": 2, "test": 2}
    again = assign_parts(table, chosen)
    assert (again == table.part).all()
    other = assign_parts(table, settings(tmp_path / "in", seed=5))
    assert (other != table.part).any()


def test_four_patients_still_give_three_parts(tmp_path: Path) -> None:
    chosen = settings(make_patients(tmp_path / "in", 4))
    table, _ = build_table(chosen)
    assert assign_parts(table, chosen).groupby(table.patient).first().value_counts().to_dict() == {
        "train": 2,
        "val": 1,
        "test": 1,
    }


def test_the_same_slice_under_two_names_cannot_leak(tmp_path: Path) -> None:
    root = make_patients(tmp_path / "in", 3)
    (tmp_path / "in/copy_of_p0").mkdir()
    for file in (root / "p0").iterdir():
        (tmp_path / "in/copy_of_p0" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "s.csv").write_text("patient,part\np0,test\np1,train\np2,val\ncopy_of_p0,train\n")
    chosen = settings(root, split_file=tmp_path / "s.csv")
    table, _ = build_table(chosen)
    with pytest.raises(UsageError, match=r"lie in two parts, such as .*p0_"):
        assign_parts(table, chosen)


def test_a_slice_of_four_channels_is_named(tmp_path: Path) -> None:
    root = make_patients(tmp_path / "in", 2)
    write(root / "p0/p0_1.png", np.zeros((32, 32, 4), np.uint8))
    with pytest.raises(UsageError, match=r"p0_1\.png: the slice has 4 channels"):
        build_table(settings(root))


def test_the_run_folder_may_lie_in_the_data(tmp_path: Path) -> None:
    root = make_patients(tmp_path / "in", 2)
    write(root / "run/curves.png", np.zeros((9, 9, 3), np.uint8))
    table, problems = build_table(settings(root, out=root / "run"))
    assert len(table) == 6
    assert problems == []


def test_a_slice_split_may_divide_a_patient(tmp_path: Path) -> None:
    chosen = settings(make_patients(tmp_path / "in", 8), split="slice")
    table, _ = build_table(chosen)
    parts = assign_parts(table, chosen)
    assert parts.value_counts().to_dict() == {"train": 18, "val": 3, "test": 3}


def test_a_split_file_is_followed(tmp_path: Path) -> None:
    root = make_patients(tmp_path / "in", 3)
    (tmp_path / "s.csv").write_text("patient,part\np0,test\np1,train\np2,val\nunused,train\n")
    chosen = settings(root, split_file=tmp_path / "s.csv")
    table, _ = build_table(chosen)
    assert assign_parts(table, chosen).tolist() == ["test"] * 3 + ["train"] * 3 + ["val"] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "expected patient and part"),
        ("patient,part\np0,training\n", "names the parts"),
        ("patient,part\np0,train\np0,val\n", "names the patient p0 twice"),
        ("patient,part\np0,train\n", "names no part for 1 patients, such as p1"),
        ("patient,part\np0,val\np1,test\n", "leaves no slice with tumour to train on"),
        ("", "cannot be read"),
    ],
)
def test_a_split_file_that_cannot_be_followed_is_refused(tmp_path: Path, text: str, message: str) -> None:
    root = make_patients(tmp_path / "in", 2)
    (tmp_path / "s.csv").write_text(text)
    chosen = settings(root, split_file=tmp_path / "s.csv")
    table, _ = build_table(chosen)
    with pytest.raises(UsageError, match=message):
        assign_parts(table, chosen)


def test_the_fingerprint_depends_on_contents_not_on_names(tmp_path: Path) -> None:
    table, _ = build_table(settings(make_patients(tmp_path / "in", 2)))
    (tmp_path / "in/p0").rename(tmp_path / "in/zz")
    renamed, _ = build_table(settings(tmp_path / "in"))
    assert fingerprint(table, 0) == fingerprint(renamed, 0)
    assert fingerprint(table, 0) != fingerprint(table, 1)
    assert fingerprint(table, 0) != fingerprint(pd.DataFrame(table[1:]), 0)
    assert fingerprint(table, 0)["tumour_slices"] == 4


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"flair_only": 0.9}, "--flair-only"),
        ({"size": 100}, "--size"),
        ({"size": 40, "output_stride": 16}, "--size"),
        ({"seed": -1}, "--seed"),
        ({"output_stride": 4}, "--output-stride"),
        ({"epochs": 0}, "--epochs"),
        ({"batch_size": 1}, "--batch-size"),
        ({"lr": 0.0}, "--lr"),
        ({"weight_decay": -1.0}, "--weight-decay"),
        ({"validation": 1.0}, "--val"),
        ({"test": -0.1}, "--test"),
        ({"validation": 0.5, "test": 0.5}, "--val and --test"),
        ({"workers": -1}, "--workers"),
        ({"fold": (0, 3)}, "--fold"),
        ({"fold": (4, 3)}, "--fold"),
        ({"fold": (1, 1)}, "--fold"),
        ({"fold": (1, 3), "split": "slice"}, "--fold goes with --split patient alone"),
        ({"fold": (1, 3), "split_file": Path("s.csv")}, "--fold and --split-file"),
        ({"split": "site"}, "--split site and --holdout SITE"),
        ({"holdout": ("HT",)}, "--split site and --holdout SITE"),
        ({"site_pattern": "("}, "--site-pattern"),
        ({"site_pattern": "HT"}, "--site-pattern"),
        ({"evaluate_train_every": 0}, "--evaluate-train-every"),
    ],
)
def test_settings_that_cannot_work_name_their_flag(changes: dict, flag: str) -> None:
    with pytest.raises(UsageError, match=flag):
        TrainSettings(Path("in"), Path("out"), **changes)
