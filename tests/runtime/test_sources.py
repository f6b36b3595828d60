from pathlib import Path

import numpy as np
import pytest

from helpers import infer, square, write
from segport.errors import UsageError
from segport.sources import SliceTree, list_slices

GREY = np.zeros((8, 8), np.uint8)


def names(root: Path, **options) -> list[str]:
    return [s.relative.as_posix() for s in list_slices(root, **options).slices]


def test_a_patients_slices_come_in_the_order_of_their_numbers_with_their_masks(tmp_path: Path) -> None:
    for n in (10, 9, 1):
        write(tmp_path / f"anna/anna_{n}.tif", GREY)
        write(tmp_path / f"anna/anna_{n}_mask.tif", GREY)
    listing = list_slices(tmp_path)
    assert [s.number for s in listing.slices] == [1, 9, 10]
    assert {s.patient for s in listing.slices} == {"anna"}
    assert [s.mask and s.mask.name for s in listing.slices] == [f"anna_{n}_mask.tif" for n in (1, 9, 10)]


def test_images_with_masks_beside_pair_up(tmp_path: Path) -> None:
    write(tmp_path / "images/p7_3.png", GREY)
    write(tmp_path / "masks/p7_3.png", GREY)
    (one,) = list_slices(tmp_path).slices
    assert (one.patient, one.number) == ("p7", 3)
    assert one.mask == tmp_path / "masks/p7_3.png"


def test_flat_files_name_their_patient_before_the_last_number(tmp_path: Path) -> None:
    for name in ("TCGA_X_1.tif", "TCGA_X_2.tif", "other.png"):
        write(tmp_path / name, GREY)
    assert [s.patient for s in list_slices(tmp_path).slices] == ["other", "TCGA_X", "TCGA_X"]


def test_files_that_are_bare_numbers_belong_to_their_folder(tmp_path: Path) -> None:
    write(tmp_path / "scan/1.png", GREY)
    assert list_slices(tmp_path / "scan").slices[0].patient == "scan"


def test_a_pattern_names_the_patient(tmp_path: Path) -> None:
    write(tmp_path / "week3/anna-t1-5.png", GREY)
    (one,) = list_slices(tmp_path, patient_pattern=r"/(\w+)-").slices
    assert one.patient == "anna"
    (one,) = list_slices(tmp_path, patient_pattern=r"(week\d)/(?P<patient>\w+)-").slices
    assert one.patient == "anna"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "not a regular expression"),
        ("anna", "needs a group"),
        ("(bert)", "names no patient in"),
        ("(bert)?", "names no patient in"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused(tmp_path: Path, pattern: str, message: str) -> None:
    write(tmp_path / "anna_1.png", GREY)
    with pytest.raises(UsageError, match=message):
        list_slices(tmp_path, patient_pattern=pattern)


def test_masks_in_a_folder_of_their_own_are_found_with_or_without_ending(tmp_path: Path) -> None:
    write(tmp_path / "in/a/a_1.tif", GREY)
    write(tmp_path / "in/a/a_2.tif", GREY)
    write(tmp_path / "truth/a/a_1.png", GREY)
    write(tmp_path / "truth/a/a_2_mask.png", GREY)
    write(tmp_path / "truth/a/a_3.png", GREY)
    listing = list_slices(tmp_path / "in", masks=tmp_path / "truth")
    assert [s.mask and s.mask.name for s in listing.slices] == ["a_1.png", "a_2_mask.png"]
    assert [m.name for m in listing.lone_masks] == ["a_3.png"]


def test_other_files_are_counted_and_hidden_ones_not_looked_at(tmp_path: Path) -> None:
    write(tmp_path / "a.PNG", GREY)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.png").write_text("x")
    (tmp_path / ".git").mkdir()
    write(tmp_path / ".git/b.png", GREY)
    listing = list_slices(tmp_path)
    assert len(listing.slices) == 1
    assert listing.ignored == 1


def test_a_single_file_is_a_folder_of_one_and_finds_its_mask(tmp_path: Path) -> None:
    write(tmp_path / "p/p_1.png", GREY)
    write(tmp_path / "p/p_2.png", GREY)
    write(tmp_path / "p/p_1_mask.png", GREY)
    listing = list_slices(tmp_path / "p/p_1.png")
    assert [(s.patient, s.mask and s.mask.name) for s in listing.slices] == [("p", "p_1_mask.png")]
    assert listing.lone_masks == []


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write(tmp_path / "real/a_1.png", GREY)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/linked").symlink_to(tmp_path / "real")
    (tmp_path / "in/circle").symlink_to(tmp_path / "in")
    for a, b in (("x", "y"), ("y", "x")):
        (tmp_path / "in" / a).mkdir(exist_ok=True)
        (tmp_path / "in" / a / b).symlink_to(tmp_path / "in" / b)
    assert names(tmp_path / "in") == ["linked/a_1.png"]
    write(tmp_path / "in/x/b_1.png", GREY)
    assert names(tmp_path / "in") == ["linked/a_1.png", "x/b_1.png", "y/x/b_1.png"]


def test_the_output_folder_is_not_entered(tmp_path: Path) -> None:
    write(tmp_path / "a_1.png", GREY)
    write(tmp_path / "out/a_1_overlay.png", GREY)
    assert names(tmp_path, exclude=tmp_path / "out") == ["a_1.png"]


def test_folders_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        list_slices(tmp_path / "nothing")
    with pytest.raises(UsageError, match="--masks"):
        list_slices(tmp_path, masks=tmp_path / "nothing")


def test_a_folder_of_slices_as_masks_gives_no_slice_itself_as_truth(tmp_path: Path) -> None:
    for name in ("images/a_1.png", "images/a_2.png", "masks/a_1.png"):
        write(tmp_path / name, square()[..., 1])
    whole = list_slices(tmp_path / "images", masks=tmp_path)
    assert [s.mask for s in whole.slices] == [tmp_path / "masks/a_1.png", None]
    for name in ("flat/a_1.png", "flat/a_1_mask.png", "flat/a_2.png"):
        write(tmp_path / name, square()[..., 1])
    flat = SliceTree(tmp_path / "flat", masks=tmp_path / "flat")
    assert [s.mask for f in flat.folders() for s in flat.slices(f)] == [tmp_path / "flat/a_1_mask.png", None]


def test_outputs_of_an_earlier_run_are_not_entered(tmp_path: Path) -> None:
    write(tmp_path / "in/p1/a_1.png", square())
    assert infer(tmp_path / "in/p1", "--report") == 0
    assert (tmp_path / "in/p1-masks/report/index.html").exists()
    assert [s.relative.as_posix() for s in list_slices(tmp_path / "in").slices] == ["p1/a_1.png"]
    assert len(list_slices(tmp_path / "in/p1-masks").lone_masks) == 1  # by its own name it is listed


def test_a_pattern_that_fits_not_every_name_is_refused_before_the_first_slice(tmp_path: Path, capsys) -> None:
    for name in ("in/a_1.png", "in/zz.png"):
        write(tmp_path / name, square())
    assert infer(tmp_path / "in", "--patient-pattern", r"^(.+)_\d") == 2
    assert "names no patient in zz.png; remedy" in capsys.readouterr().err
    assert not (tmp_path / "in-masks").exists()
