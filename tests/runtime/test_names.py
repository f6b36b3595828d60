"""Names and trees as people have them: whatever they are called, no slice's mask replaces another's."""

import os
import unicodedata
from pathlib import Path

import pytest

from helpers import infer, read, rows, square, write
from segport.folders import walk_folders
from segport.plan import plan_run
from segport.settings import RunSettings
from segport.sources import list_slices

SIDES = range(64, 96)  # a side for each slice: its mask is known by it


def mask_sides(out: Path) -> dict[str, int]:
    return {p.relative_to(out).as_posix(): read(p).shape[0] for p in out.rglob("*_mask.png")}


def write_all(root: Path, names: list[str]) -> None:
    for side, name in zip(SIDES, names, strict=False):
        write(root / name, square(side))


def test_the_same_names_in_different_folders(tmp_path: Path) -> None:
    write_all(tmp_path / "in", ["a/x_1.png", "b/x_1.png", "b/c/x_1.png", "x_1.png"])
    assert infer(tmp_path / "in") == 0
    assert mask_sides(tmp_path / "in-masks") == {
        "a/x_1_mask.png": 64, "b/x_1_mask.png": 65, "b/c/x_1_mask.png": 66, "x_1_mask.png": 67
    }  # fmt: skip


def test_names_that_differ_only_in_case_get_masks_that_differ_in_more(tmp_path: Path) -> None:
    write_all(tmp_path / "in", ["A_1.PNG", "a_1.png", "a_1.PNG", "a_1.tif", "b_1.png"])
    if len(list((tmp_path / "in").iterdir())) < 5:
        pytest.skip("this file system ignores case, so there are no such names")
    assert infer(tmp_path / "in") == 0
    found = mask_sides(tmp_path / "in-masks")
    assert len({name.casefold() for name in found}) == 5
    assert sorted(found.values()) == [64, 65, 66, 67, 68]
    assert found["a_1.tif_mask.png"] == 67
    assert {r["path"] for r in rows(tmp_path / "in-masks")} == {"A_1.PNG", "a_1.png", "a_1.PNG", "a_1.tif", "b_1.png"}


def test_folders_that_differ_only_in_case_get_folders_that_differ_in_more(tmp_path: Path) -> None:
    write_all(tmp_path / "in", ["P1/x_1.png", "p1/x_1.png", "p2/x_1.png"])
    assert infer(tmp_path / "in", "--overlay") == 0
    found = mask_sides(tmp_path / "in-masks")
    assert found == {"P1/x_1_mask.png": 64, "p1~2/x_1_mask.png": 65, "p2/x_1_mask.png": 66}


def test_both_normal_forms_of_a_name_get_masks_of_their_own(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "Schädel_1.png") for form in ("NFC", "NFD")]
    write_all(tmp_path / "in", names)
    if len(list((tmp_path / "in").iterdir())) < 2:
        pytest.skip("this file system takes both forms for one name")
    assert infer(tmp_path / "in") == 0
    found = mask_sides(tmp_path / "in-masks")
    assert len({unicodedata.normalize("NFC", name) for name in found}) == 2
    assert sorted(found.values()) == [64, 65]


@pytest.mark.parametrize(
    ("names", "stems"),
    [
        (["a.png", "b.tif"], ["a", "b"]),
        (["a.png", "a.tif", "b.tif"], ["a.png", "a.tif", "b"]),
        (["a.png", "a.png.tif", "a.tif"], ["a.png", "a.png.tif", "a.tif"]),
        (["A.png", "a.png"], ["A.png", "a.png~2"]),
        (["A.png", "a.png", "a.png~2.tif"], ["A.png", "a.png~2", "a.png~2.tif"]),
    ],
)
def test_stems_of_outputs(tmp_path: Path, names: list[str], stems: list[str]) -> None:
    for name in names:
        write(tmp_path / "in" / name, square())
    (folder,) = plan_run([tmp_path / "in"], None, RunSettings()).folders()
    found = {job.slice.relative.name: job.name for job in folder.jobs}
    assert len({s.casefold() for s in found.values()}) == len(names)
    assert [found[name] for name in names] == stems


def test_links_out_of_the_tree_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    write_all(tmp_path, ["elsewhere/p_1.png", "in/q_1.png"])
    (tmp_path / "in/out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/file_1.png").symlink_to(tmp_path / "elsewhere/p_1.png")
    (tmp_path / "in/round").symlink_to(tmp_path / "in")
    (tmp_path / "elsewhere/up").symlink_to(tmp_path)
    assert infer(tmp_path / "in") == 0
    assert mask_sides(tmp_path / "in-masks") == {"out/p_1_mask.png": 64, "file_1_mask.png": 64, "q_1_mask.png": 65}


def test_a_link_that_leads_nowhere_fails_alone(tmp_path: Path) -> None:
    write_all(tmp_path, ["in/q_1.png"])
    (tmp_path / "in/p_1.png").symlink_to(tmp_path / "nothing.png")
    assert infer(tmp_path / "in") == 1
    assert [(r["path"], r["status"]) for r in rows(tmp_path / "in-masks")] == [
        ("p_1.png", "failed"),
        ("q_1.png", "written"),
    ]


def test_the_output_may_lie_in_the_input_and_is_not_read(tmp_path: Path) -> None:
    write_all(tmp_path, ["in/p_1.png"])
    for _ in range(2):
        assert infer(tmp_path / "in", "--out", tmp_path / "in/results", "--overlay") == 0
    assert mask_sides(tmp_path / "in/results") == {"p_1_mask.png": 64}
    assert len(rows(tmp_path / "in/results")) == 1


@pytest.mark.parametrize("out", ["in", ".", "in/../in"])
def test_the_input_may_not_lie_in_the_output(tmp_path: Path, capsys, out: str) -> None:
    write_all(tmp_path, ["in/p_1.png"])
    assert infer(tmp_path / "in", "--out", tmp_path / out) == 2
    assert "choose a folder beside it" in capsys.readouterr().err


def test_an_unwritable_parent_is_said_before_anything_is_computed(tmp_path: Path, capsys) -> None:
    write_all(tmp_path, ["in/p_1.png"])
    (tmp_path / "file").write_text("not a folder")
    assert infer(tmp_path / "in", "--out", tmp_path / "file/out") == 3
    assert "cannot be written (Not a directory); remedy: another --out" in capsys.readouterr().err


def test_hidden_files_are_left_alone(tmp_path: Path) -> None:
    write_all(tmp_path, ["in/p_1.png", "in/.p_2.png", "in/.git/p_3.png", "in/._p_1.png"])
    assert infer(tmp_path / "in") == 0
    assert mask_sides(tmp_path / "in-masks") == {"p_1_mask.png": 64}


def test_ten_thousand_files_in_one_folder_come_in_order(tmp_path: Path) -> None:
    for n in range(10_000):
        (tmp_path / f"p_{n}.png").touch()
    (folder,) = walk_folders(tmp_path)
    assert folder.names == [f"p_{n}.png" for n in range(10_000)]
    assert [s.number for s in list_slices(tmp_path).slices] == list(range(10_000))


def test_the_longest_names_are_segmented_or_named_as_failed(tmp_path: Path) -> None:
    """A mask's name is 5 characters longer than that of a .png, and 255 are the most."""
    names = ["x" * 246 + ".png", "y" * 247 + ".png"]
    write_all(tmp_path / "in", names)
    deep = tmp_path / "in" / Path(*["d" * 200] * 4)
    write(deep / "p_1.png", square())
    assert infer(tmp_path / "in") == 1
    status = {Path(r["path"]).name: r for r in rows(tmp_path / "in-masks")}
    assert status[names[0]]["status"] == "written"
    assert status["p_1.png"]["status"] == "written"
    assert "its output cannot be named" in status[names[1]]["message"]
    assert "rename the slice" in status[names[1]]["message"]
    assert infer(tmp_path / "in") == 1  # and the same again


def test_a_folder_where_a_mask_should_be_fails_that_slice_alone(tmp_path: Path) -> None:
    write_all(tmp_path, ["in/p_1.png", "in/q_1.png"])
    (tmp_path / "in-masks/p_1_mask.png/inside").mkdir(parents=True)
    assert infer(tmp_path / "in") == 1
    assert infer(tmp_path / "in", "--overwrite") == 1
    assert (tmp_path / "in-masks/p_1_mask.png/inside").is_dir()
    assert read(tmp_path / "in-masks/q_1_mask.png").shape == (65, 65)


def test_natural_order_within_folders_and_folders_before_what_is_in_them(tmp_path: Path) -> None:
    names = ["p10/s_2.png", "p10/s_10.png", "p9/s_1.png", "z_1.png", "p9/deep/s_1.png"]
    write_all(tmp_path, names)
    found = [s.relative.as_posix() for s in list_slices(tmp_path).slices]
    assert found == ["z_1.png", "p9/s_1.png", "p9/deep/s_1.png", "p10/s_2.png", "p10/s_10.png"]


def test_a_tree_is_listed_while_it_is_segmented(tmp_path: Path, monkeypatch) -> None:
    """The first folders are yielded before later ones are listed."""
    write_all(tmp_path, [f"p{n}/s_1.png" for n in range(20)])
    listed: list[str] = []
    real = os.scandir

    def noted(path):
        listed.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(os, "scandir", noted)
    walk = walk_folders(tmp_path)
    next(walk)
    next(walk)
    assert listed == [tmp_path.name, "p0"]
