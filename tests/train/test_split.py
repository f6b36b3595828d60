"""Folds and sites: who is kept apart, and that nobody is on both sides."""

import random
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import square, write
from segport.errors import UsageError
from segport_train.cli import main
from segport_train.settings import SITE_PATTERN, TrainSettings
from segport_train.split import assign_parts, describe_parts
from segport_train.table import build_table


def table_of(*patients: str, site_pattern: str = SITE_PATTERN) -> pd.DataFrame:
    rows = [
        (p, f"{p}/{p}_{n}.tif", 5 * (n == 1), f"{p}{n}", False, site_of(p, site_pattern))
        for p in patients
        for n in (1, 2)
    ]
    return pd.DataFrame(rows, columns=["patient", "relative", "tumour_pixels", "shown_sha256", "constant", "site"])


def site_of(patient: str, pattern: str) -> str:
    found = re.search(pattern, patient)
    return found[1] if found else ""


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
    table = table_of("a-1", "a-2", "b-1", site_pattern="^(.)-")
    parts = parts_of(table, split="site", holdout=("b",), site_pattern="^(.)-", validation=0)
    assert parts == {"a-1": "train", "a-2": "train", "b-1": "test"}


def test_a_table_of_sites_goes_before_the_pattern(tmp_path: Path) -> None:
    for name in ("TCGA_HT_1_x", "TCGA_HT_2_x", "own"):
        write(tmp_path / f"in/{name}/1.png", square(32, value=len(name) + ord(name[-3])))
        write(tmp_path / f"in/{name}/1_mask.png", square(32)[..., 1])
    (tmp_path / "sites.csv").write_text("patient,site\nTCGA_HT_1_x,Ulm\nown,Bonn\nTCGA_HT_2_x,Bonn\nunused,Trier\n")

    def sites(**changes: Path) -> list[str]:
        return build_table(TrainSettings(tmp_path / "in", tmp_path / "run", **changes))[0].site.tolist()

    assert sites() == ["", "HT", "HT"]
    assert sites(sites=tmp_path / "sites.csv") == ["Bonn", "Ulm", "Bonn"]
    (tmp_path / "sites.csv").write_text("patient,site\nTCGA_HT_1_x,Ulm\n")
    with pytest.raises(UsageError, match=r"--sites .*names no site for 2 patients, such as TCGA_HT_2_x"):
        sites(sites=tmp_path / "sites.csv")
    (tmp_path / "sites.csv").write_text("patient,place\nTCGA_HT_1_x,Ulm\n")
    with pytest.raises(UsageError, match=r"--sites .*has columns \['patient', 'place'\], expected patient and site"):
        sites(sites=tmp_path / "sites.csv")


def test_a_patient_whose_site_is_not_known_is_named() -> None:
    with pytest.raises(UsageError, match=r"does not match the patient own;.* or --sites CSV"):
        parts_of(table_of("TCGA_HT_1_x", "own"), split="site", holdout=("HT",))


@settings(deadline=None)
@given(
    patients=st.integers(1, 12),
    how=st.sampled_from(["patient", "site", "fold"]),
    seed=st.integers(0, 99),
    shares=st.tuples(st.sampled_from([0.0, 0.125, 0.3]), st.sampled_from([0.0, 0.125, 0.3])),
    order=st.randoms(use_true_random=False),
)
def test_no_patient_is_ever_in_two_parts(
    patients: int, how: str, seed: int, shares: tuple[float, float], order: random.Random
) -> None:
    names = [f"TCGA_{'AB'[n % 2]}_{n}_x" for n in range(patients)]
    table = table_of(*names)
    rows = list(table.index)
    order.shuffle(rows)
    shared = {"seed": seed, "validation": shares[0], "test": shares[1]}
    if how == "fold":
        folds = min(patients, 4)
        if folds < 2 or patients < 3:
            return
        kept = []
        for k in range(1, folds + 1):
            parts = parts_of(table, fold=(k, folds), **shared)  # says itself that no patient is in two
            assert parts == parts_of(table.loc[rows], fold=(k, folds), **shared)
            kept += [patient for patient, part in parts.items() if part == "test"]
        assert sorted(kept) == sorted(names)
    elif how == "site" and patients > 2:
        parts = parts_of(table, split="site", holdout=("B",), **shared)
        assert {p for p, part in parts.items() if part == "test"} == {n for n in names if "_B_" in n}
        assert parts == parts_of(table.loc[rows], split="site", holdout=("B",), **shared)
    elif patients == 2 and 0.3 in shares:
        return  # a third of two is one: with both shares nobody is left, which is refused
    else:
        parts = parts_of(table, **shared)
        assert parts == parts_of(table.loc[rows], **shared)
        assert list(parts.values()).count("train") >= 1
        for part, share in zip(("val", "test"), shares, strict=True):
            assert (part in parts.values()) == (share > 0 and patients > 2)


def test_seeds_decide_the_split() -> None:
    table = table_of(*(f"p{n}" for n in range(20)))
    assert len({tuple(parts_of(table, seed=seed).items()) for seed in range(10)}) == 10


@pytest.mark.parametrize(
    ("patients", "notes"),
    [
        (1, ["no val part: best.safetensors will be the last epoch's", "no test part"]),
        (2, ["no val part", "no test part"]),
        (3, ["the val part has 1 patient:", "the test part has 1 patient:"]),
        (4, ["the val part has 1 patient:", "the test part has 1 patient:"]),
        (16, ["the val part has 2 patients:", "the test part has 2 patients:"]),
        (40, []),
    ],
)
def test_parts_that_say_little_are_named(patients: int, notes: list[str]) -> None:
    table = table_of(*(f"p{n}" for n in range(patients)))
    table["part"] = assign_parts(table, TrainSettings(Path("in"), Path("out")))
    found = describe_parts(table)
    assert len(found) == len(notes)
    assert all(note in said for note, said in zip(notes, found, strict=True))


def test_the_same_pixels_in_two_parts_stop_whatever_their_masks() -> None:
    table = table_of("a", "b", "c", "d")
    table["part"] = parts = assign_parts(table, TrainSettings(Path("in"), Path("out")))
    test = table.index[parts == "test"][1]
    train = table.index[parts == "train"][1]
    assert table.tumour_pixels[test] == table.tumour_pixels[train] == 0
    table.loc[test, "shown_sha256"] = table.shown_sha256[train]
    with pytest.raises(UsageError, match=r"2 slices with the same pixels lie in two parts, such as") as refusal:
        assign_parts(table, TrainSettings(Path("in"), Path("out")))
    assert table.relative[test] in str(refusal.value)
    assert table.relative[train] in str(refusal.value)
    table.loc[[test, train], "constant"] = True  # a blank slice shows nothing of a patient
    assert (assign_parts(table, TrainSettings(Path("in"), Path("out"))) == parts).all()


def test_blank_slices_are_of_nobody_and_copies_are_found_in_files(tmp_path: Path) -> None:
    for n, patient in enumerate(("a", "b", "c")):
        write(tmp_path / f"in/{patient}/1.png", np.full((32, 32, 3), 7, np.uint8))
        write(tmp_path / f"in/{patient}/2.png", square(32, low=8, high=20, value=50 + n))
        write(tmp_path / f"in/{patient}/3.png", square(32, low=4, high=9, value=99 if n < 2 else 98))
        for number in (1, 2, 3):
            high = 20 if number == 2 else 9 + n
            write(tmp_path / f"in/{patient}/{number}_mask.png", square(32, low=8, high=high)[..., 1])
    table, _ = build_table(TrainSettings(tmp_path / "in", tmp_path / "run"))
    assert table.constant.tolist() == [True, False, False] * 3
    folds = [TrainSettings(tmp_path / "in", tmp_path / "run", fold=(k, 3), validation=0) for k in (1, 2, 3)]
    apart = 0
    for fold in folds:
        try:
            assign_parts(table, fold)
        except UsageError as error:
            apart += "2 slices with the same pixels lie in two parts, such as a/3.png and b/3.png" in str(error)
    assert apart == 2  # in the third, c is the test part
    (tmp_path / "in/a/3.png").unlink()
    (tmp_path / "in/a/3_mask.png").unlink()
    table, _ = build_table(TrainSettings(tmp_path / "in", tmp_path / "run"))
    assert set(assign_parts(table, TrainSettings(tmp_path / "in", tmp_path / "run"))) == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fold": (1, 9)}, "--fold 1/9: there are 2 patients"),
        ({"split": "site", "holdout": ("XY",)}, "--holdout XY: no patient is of that site; found CS, HT"),
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


def test_grey_and_rgb_that_the_network_sees_as_one_are_copies(tmp_path: Path) -> None:
    for n, patient in enumerate(("a", "b", "c")):
        grey = square(32, low=8, high=20, value=200 if n < 2 else 90)[..., 1]
        write(tmp_path / f"in/{patient}/1.png", grey if n else np.stack([grey] * 3, axis=-1))
        write(tmp_path / f"in/{patient}/1_mask.png", square(32, low=8, high=20)[..., 1])
    table, _ = build_table(TrainSettings(tmp_path / "in", tmp_path / "run"))
    assert table.channels.tolist() == [3, 1, 1]
    assert table.pixels_sha256.nunique() == 3
    assert table.shown_sha256.nunique() == 2
