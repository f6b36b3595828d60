"""seg-infer over volumes: masks on the same grid, tables in mm, broken cases beside good ones, runs that go on."""

import csv
import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from helpers import ROOT, RULED, TINY, infer, read, rows, square, write
from phantom import LESION, ORDERS, SPACING, Order, centre, phantom, save, stored
from segport.cli import main
from segport.ledger import Ledger

PLAIN: Order = ((0, 1, 2), (1, 1, 1))
VOXEL = float(np.prod(SPACING))
TUMOUR = 6 * 6 * 2


def mask_of(path: Path) -> NDArray[Any]:
    return np.asarray(nib.load(path).dataobj)


def patients(out: Path) -> list[dict[str, str]]:
    with (out / "patients.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def case(tmp_path: Path) -> Path:
    return save(tmp_path / "in/p1_flair.nii.gz", *stored(PLAIN))


@pytest.mark.parametrize("oblique", [False, True], ids=["straight", "oblique"])
def test_a_lesion_stays_where_it_is_in_the_head_whatever_the_storage_order(tmp_path: Path, oblique: bool) -> None:
    """All 48 orders in one run. What a network marks must lie, in mm, where it was; never left for right."""
    expected = centre(phantom() == 220, stored(PLAIN, oblique=oblique)[1])
    for i, order in enumerate(ORDERS):
        save(tmp_path / f"in/p{i}_flair.nii.gz", *stored(order, oblique=oblique))
    assert infer(tmp_path / "in") == 0
    for i, order in enumerate(ORDERS):
        voxels, affine = stored(order, oblique=oblique)
        image = nib.load(tmp_path / f"in-masks/p{i}_mask.nii.gz")
        assert image.shape == voxels.shape
        assert np.allclose(image.affine, affine, atol=1e-5)
        mask = np.asarray(image.dataobj)
        assert set(np.unique(mask)) == {0, 1}
        assert np.abs(centre(mask, image.affine) - expected).max() < min(SPACING) / 2
        assert np.abs(mask.sum() - TUMOUR) <= 24  # edges are drawn on a resized slice
    slices = [row["slice"] for row in rows(tmp_path / "in-masks") if int(row["tumour_pixels"])]
    assert set(slices) == {"7", "8"}  # from the feet, in every order
    assert len(slices) == 2 * len(ORDERS)


def test_tables_say_volume_components_and_what_stood_in_for_what(case: Path) -> None:
    assert infer(case.parent, "--score") == 0
    out = case.parent.parent / "in-masks"
    (patient,) = patients(out)
    mask = mask_of(out / "p1_mask.nii.gz")
    assert patient["patient"] == "p1"
    assert float(patient["tumour_volume_mm3"]) == pytest.approx(mask.sum() * VOXEL, abs=0.01)
    assert (patient["components_3d"], patient["notes"]) == ("1", "FLAIR in the place of pre and post")
    assert float(patient["largest_component_mm3"]) == pytest.approx(mask.sum() * VOXEL, abs=0.01)
    lengths = [float(patient[f"{name}_mm"]) for name in ("pixel_height", "pixel_width", "slice_distance")]
    assert lengths == [1.25, 1.0, 4.0]
    table = rows(out)
    assert [row["slice"] for row in table] == [str(i) for i in range(1, 11)]
    assert {(row["path"], row["patient"], row["status"]) for row in table} == {("p1", "p1", "written")}
    assert sum(int(row["tumour_pixels"]) for row in table) == mask.sum()


def test_a_true_mask_is_scored_in_any_order_of_its_own_flair(tmp_path: Path) -> None:
    voxels, affine = stored(((2, 0, 1), (-1, 1, -1)))
    save(tmp_path / "in/p1_flair.nii.gz", voxels, affine)
    save(tmp_path / "in/p1_seg.nii.gz", (voxels == 220).astype(np.int16) * 4, affine)
    save(tmp_path / "in/p2_flair.nii.gz", voxels, affine)
    save(tmp_path / "in/p2_seg.nii.gz", np.zeros((3, 3, 3), np.uint8), affine)
    assert infer(tmp_path / "in", "--score") == 1
    first, second = patients(tmp_path / "in-masks")
    assert float(first["dice_1_if_both_empty"]) > 0.9
    assert second["dice_1_if_both_empty"] == ""
    assert "not scored: its mask p2_seg.nii.gz is (3, 3, 3)" in rows(tmp_path / "in-masks")[-1]["message"]


def test_three_sequences_reach_their_channels_and_probabilities_lie_on_the_grid(tmp_path: Path) -> None:
    flair, affine = stored(PLAIN)
    other = np.full_like(flair, 250)  # the tiny model looks at FLAIR alone: all would be tumour
    for name, voxels in (("t1", other), ("flair", flair), ("t1ce", other)):
        save(tmp_path / f"in/p1_{name}.nii.gz", voxels, affine)
    assert infer(tmp_path / "in", "--probabilities", "--overlay") == 0
    out = tmp_path / "in-masks"
    assert 0 < mask_of(out / "p1_mask.nii.gz").sum() <= TUMOUR + 24
    probability = mask_of(out / "p1_probability.nii.gz")
    assert ((probability >= 0.5) == mask_of(out / "p1_mask.nii.gz")).all()
    assert probability[LESION].mean() > 0.9
    assert patients(out)[0]["notes"] == ""
    assert (out / "p1_volume_sheet.png").exists()


def test_small_components_can_be_left_out_and_other_settings_make_a_mask_stale(tmp_path: Path) -> None:
    voxels, affine = stored(PLAIN)
    voxels[20:24, 8:12, 2] = 240  # 16 voxels: 80 mm3
    save(tmp_path / "in/p1.nii", voxels, affine)
    assert infer(tmp_path / "in") == 0
    out = tmp_path / "in-masks"
    assert patients(out)[0]["components_3d"] == "2"
    assert infer(tmp_path / "in", "--min-volume", 150) == 0
    assert patients(out)[0]["components_3d"] == "1"
    assert mask_of(out / "p1_mask.nii.gz")[..., 2].sum() == 0
    assert rows(out)[2]["tumour_pixels"] == "0"


def test_the_models_rule_leaves_out_what_is_small_beside_the_largest(tmp_path: Path, capsys) -> None:
    voxels, affine = stored(PLAIN)
    voxels[20:22, 8:10, 2] = 240  # 4 voxels, an eighteenth
    save(tmp_path / "in/p1.nii", voxels, affine)
    assert infer(tmp_path / "in", "--model", RULED) == 0
    out = tmp_path / "in-masks"
    assert patients(out)[0]["components_3d"] == "1"
    assert (rows(out)[2]["tumour_pixels"], rows(out)[2]["left_out_pixels"]) == ("0", "4")
    assert "small components were left out of 1 slice:" in capsys.readouterr().out
    assert infer(tmp_path / "in", "--model", RULED, "--all-components") == 0
    assert patients(out)[0]["components_3d"] == "2"


def test_a_second_run_does_nothing_and_one_over_changed_files_does_what_changed(case: Path, capsys) -> None:
    save(case.parent / "p2_flair.nii.gz", *stored(PLAIN))
    out = case.parent.parent / "in-masks"
    assert infer(case.parent) == 0
    tables = [(out / name).read_bytes() for name in ("summary.csv", "patients.csv")]
    before = {p.name: p.stat().st_mtime_ns for p in out.glob("*.nii.gz")}
    assert infer(case.parent) == 0
    assert "2 of them up to date" in capsys.readouterr().out
    assert before == {p.name: p.stat().st_mtime_ns for p in out.glob("*.nii.gz")}
    assert tables == [(out / name).read_bytes() for name in ("summary.csv", "patients.csv")]
    os.utime(case)  # another time, the same bytes
    assert infer(case.parent) == 0
    assert "2 of them up to date" in capsys.readouterr().out
    save(case, *stored(PLAIN, lesion=180))
    assert infer(case.parent, "--dry-run") == 0
    assert "(stale: its files changed)" in capsys.readouterr().out
    assert infer(case.parent) == 0
    assert "1 of them up to date" in capsys.readouterr().out
    (out / "p2_mask.nii.gz").unlink()
    assert infer(case.parent) == 0
    assert (out / "p2_mask.nii.gz").exists()


def test_broken_volumes_are_named_and_the_others_and_slices_are_segmented(case: Path, capsys) -> None:
    inside = case.parent
    write(inside / "s_1.png", square())
    (inside / "cut.nii.gz").write_bytes(case.read_bytes()[:-20])
    save(inside / "lone_t1.nii.gz", *stored(PLAIN))
    (inside / "notes.txt").write_text("x")
    assert infer(inside) == 1
    out = inside.parent / "in-masks"
    said = capsys.readouterr()
    assert "2 masks in" in said.out
    assert "(2 failed, 1 ignored)" in said.out
    failed = {row["path"]: row["message"] for row in rows(out) if row["status"] == "failed"}
    assert set(failed) == {"cut", "lone"}
    assert "no FLAIR" in failed["lone"]
    assert "failed: cut.nii.gz: " in said.err
    assert (out / "s_1_mask.png").exists()
    assert (out / "p1_mask.nii.gz").exists()


def test_a_volume_that_becomes_unreadable_takes_its_old_mask_along(case: Path) -> None:
    assert infer(case.parent) == 0
    mask = case.parent.parent / "in-masks/p1_mask.nii.gz"
    assert mask.exists()
    case.write_bytes(case.read_bytes()[:-20])
    assert infer(case.parent) == 1
    assert not mask.exists()  # it would pass for the mask of what is there now


def test_a_mask_that_no_run_wrote_is_not_replaced(case: Path) -> None:
    out = case.parent.parent / "in-masks"
    own = save(out / "p1_mask.nii.gz", np.ones((2, 2, 2), np.uint8), np.eye(4))
    before = own.read_bytes()
    assert infer(case.parent) == 1
    assert own.read_bytes() == before
    assert "no run of seg-infer wrote it" in rows(out)[0]["message"]


def test_the_ledger_gives_back_what_it_was_told(case: Path) -> None:
    assert infer(case.parent) == 0
    with closing(Ledger(case.parent.parent / "in-masks", writable=False)) as ledger:
        entry = ledger.find("//volume/p1")
    assert entry is not None
    assert entry.found_volume is not None
    assert len(entry.found_volume.slices) == 10
    assert type(entry).from_json(json.loads(entry.to_json())) == entry


def test_options_for_volumes_need_a_volume(tmp_path: Path, capsys) -> None:
    write(tmp_path / "in/s_1.png", square())
    assert infer(tmp_path / "in", "--min-volume", 10) == 2
    assert "found no volume; these options need one" in capsys.readouterr().err
    assert infer(tmp_path / "in", "--min-volume", -1) == 2
    assert "--min-volume is -1" in capsys.readouterr().err


def test_without_the_extra_volumes_are_refused_with_the_pip_line_and_slices_go_on(case: Path) -> None:
    dicom = case.parent / "IM0"
    dicom.write_bytes(bytes(128) + b"DICM" + bytes(100))
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['nibabel', 'scipy', 'pydicom', 'highdicom']));"
        "from segport.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, str(case.parent), "--model", str(ROOT / "tests/data/tiny.onnx"), "--quiet"]
    alone = subprocess.run([*command, "--device", "cpu"], capture_output=True, text=True, check=False)
    assert alone.returncode == 2
    assert "1 NIfTI files need the extra medical" in alone.stderr
    assert "1 DICOM files need the extra medical" in alone.stderr
    assert "pip install 'segport[medical]'" in alone.stderr
    write(case.parent / "s_1.png", square())
    mixed = subprocess.run([*command, "--device", "cpu"], capture_output=True, text=True, check=False)
    assert mixed.returncode == 1
    assert "pip install 'segport[medical]'" in mixed.stderr
    assert "1 mask in" in mixed.stdout


def test_a_slice_and_a_volume_of_one_name_live_side_by_side(tmp_path: Path, capsys) -> None:
    inside, out = tmp_path / "in", tmp_path / "in-masks"
    save(inside / "p.nii.gz", *stored(PLAIN))
    for number in ("", "_1", "_2"):
        write(inside / f"p{number}.png", square())
    for _ in range(2):
        assert infer(inside, "--overlay", "--score") == 0
        assert {p.name for p in out.glob("p*")} >= {"p_mask.png", "p_mask.nii.gz", "p_sheet.png", "p_volume_sheet.png"}
    assert "4 of them up to date" in capsys.readouterr().out
    assert infer(inside, "--overlay", "--overwrite") == 0
    assert [(p["patient"], p["tumour_volume_mm3"] != "") for p in patients(out)] == [("p", False), ("p", True)]


def test_a_mask_of_another_inputs_volume_is_not_replaced(tmp_path: Path) -> None:
    save(tmp_path / "a/data/x.nii.gz", *stored(PLAIN))
    save(tmp_path / "b/data/x.nii.gz", *stored(PLAIN, lesion=180))
    out = tmp_path / "out"
    assert infer(tmp_path / "a/data", "--out", out) == 0
    before = (out / "x_mask.nii.gz").read_bytes()
    assert infer(tmp_path / "b/data", "--out", out) == 1
    assert (out / "x_mask.nii.gz").read_bytes() == before
    assert "would replace that of x.nii.gz" in rows(out)[0]["message"]


def test_another_role_of_the_same_files_makes_a_mask_stale(tmp_path: Path, capsys) -> None:
    for name in ("a", "b"):
        save(tmp_path / f"in/p_{name}.nii.gz", *stored(PLAIN))
    assert infer(tmp_path / "in", "--channel", "flair=*_a.nii.gz", "--channel", "pre=*_b.nii.gz") == 0
    assert infer(tmp_path / "in", "--channel", "flair=*_a.nii.gz", "--channel", "post=*_b.nii.gz", "--dry-run") == 0
    assert "its files changed" in capsys.readouterr().out


def test_a_volume_that_cannot_be_read_any_more_leaves_no_findings(case: Path) -> None:
    assert infer(case.parent) == 0
    case.unlink()
    case.symlink_to(case.with_name("none"))
    assert infer(case.parent) == 1
    (patient,) = patients(case.parent.parent / "in-masks")
    assert (patient["slices"], patient["failed"], patient["tumour_volume_mm3"]) == ("1", "1", "")
    (row,) = rows(case.parent.parent / "in-masks")
    assert (row["status"], row["tumour_pixels"]) == ("failed", "")


@pytest.mark.parametrize(
    ("shape", "message"), [((9000, 2, 2), "axial slices"), ((2, 2, 5000), "has 5,000 axial slices; expected at most")]
)
def test_volumes_out_of_all_proportion_are_refused_and_others_go_on(
    tmp_path: Path, shape: tuple[int, int, int], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", "64000000")
    save(tmp_path / "in/bad.nii.gz", np.zeros(shape, np.uint8), np.eye(4))
    save(tmp_path / "in/good.nii.gz", *stored(PLAIN))
    assert infer(tmp_path / "in") == 1
    messages = {row["path"]: row["message"] for row in rows(tmp_path / "in-masks")}
    assert message in messages["bad"]
    assert messages["good"] == ""


def test_a_sheared_voxel_has_its_own_volume(tmp_path: Path) -> None:
    voxels, affine = stored(PLAIN)
    affine[0, 2] = 2.0  # slices are shifted against each other
    save(tmp_path / "in/p.nii.gz", voxels, affine)
    assert infer(tmp_path / "in") == 0
    (patient,) = patients(tmp_path / "in-masks")
    assert float(patient["tumour_volume_mm3"]) == pytest.approx(int(patient["tumour_pixels"]) * VOXEL, abs=0.01)


def test_options_for_what_is_not_there_are_refused(case: Path, capsys) -> None:
    assert infer(case.parent, "--series", "flair=4") == 2
    assert "flair=4: chooses among DICOM files, and there are none" in capsys.readouterr().err
    (case.parent.parent / "truth").mkdir()
    assert infer(case.parent, "--score", "--masks", case.parent.parent / "truth") == 2
    assert "--masks is for slices" in capsys.readouterr().err


def test_a_single_file_gets_a_folder_without_its_ending(case: Path) -> None:
    assert infer(case) == 0
    assert (case.parent / "p1_flair-masks/p1_mask.nii.gz").exists()


def test_a_stopped_run_counts_no_fewer_than_no_ignored_files(case: Path) -> None:
    from segport.plan import plan_run
    from segport.run import run
    from segport.segmenter import Segmenter
    from segport.settings import RunSettings

    settings = RunSettings(device="cpu")
    plan = plan_run([case.parent], None, settings)
    result = run(plan, settings, Segmenter(TINY, device="cpu"), stop=lambda: True)
    assert (result.exit_code, result.ignored) == (130, 0)


def test_the_report_shows_volumes_as_the_network_saw_them(tmp_path: Path) -> None:
    voxels, affine = stored(((1, 2, 0), (1, -1, 1)))
    save(tmp_path / "in/p_flair.nii.gz", voxels, affine)
    save(tmp_path / "in/p_mask.nii.gz", (voxels == 220).astype(np.uint8), affine)
    write(tmp_path / "in/p/p_1.png", square())
    (tmp_path / "in/cut.nii.gz").write_bytes(b"x")
    assert infer(tmp_path / "in", "--report", "--score", "--probabilities") == 1
    report = tmp_path / "in-masks/report"
    page = (report / "index.html").read_text()
    assert "p (volume)" in page
    assert "cut" in page
    (shown,) = report.glob("patients/*/7.png")
    assert len(list(shown.parent.glob("*heat*"))) > 1
    middle = read(shown)
    assert middle.shape[:2] == (24, 32)
    lesion = np.argwhere(np.atleast_3d(middle)[..., 0] == 220).mean(axis=0)
    assert lesion[0] < 12  # in front: at the top
    assert lesion[1] > 16  # on the patient's left: at the right
    before = page
    assert main(["--report-only", str(tmp_path / "in-masks"), "--quiet"]) == 0
    assert (report / "index.html").read_text() == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_of_a_volumes_name_is_refused_and_not_waited_for(case: Path) -> None:
    for name in ("pipe.nii", "pipe.nii.gz"):
        os.mkfifo(case.parent / name)
    assert infer(case.parent) == 1
    messages = [row["message"] for row in rows(case.parent.parent / "in-masks") if row["status"] == "failed"]
    assert len(messages) == 2
    assert all("no regular file" in message for message in messages)
    assert (case.parent.parent / "in-masks/p1_mask.nii.gz").exists()


DEADLY = """
import os, sys
from segport import cli
from segport.volumes import loader

real = loader.read_volume
loader.read_volume = lambda case, *more: os._exit(9) if "p2" in case.source else real(case, *more)
cli.main(sys.argv[1:])
"""


def test_a_volume_that_ends_the_process_twice_is_left_out_and_the_others_are_done(tmp_path: Path, capsys) -> None:
    for name in ("p1", "p2", "p3"):
        save(tmp_path / f"in/{name}_flair.nii.gz", *stored(PLAIN))
    command = [sys.executable, "-c", DEADLY, str(tmp_path / "in"), "--model", str(TINY), "--device", "cpu", "--quiet"]
    for _ in range(2):
        assert subprocess.run(command, check=False, capture_output=True).returncode == 9
        assert not (tmp_path / "in-masks/p3_mask.nii.gz").exists()
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert infer(tmp_path / "in") == 1
    assert (
        "p2_flair.nii.gz: killed the process twice while it was read; remedy: a machine with" in capsys.readouterr().err
    )
    assert [(tmp_path / f"in-masks/p{n}_mask.nii.gz").exists() for n in (1, 2, 3)] == [True, False, True]
    assert infer(tmp_path / "in", "--overwrite") == 0
    assert infer(tmp_path / "in") == 0
    assert (tmp_path / "in-masks/p2_mask.nii.gz").exists()
