"""What people read after a run: summary.csv, patients.csv, warnings, contact sheets, the last lines."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from helpers import TINY, infer, read, rows, square, write
from segport.cli import main
from segport.errors import OutputError
from segport.tables import GrowingTable

DICE, HD95 = "dice_1_if_both_empty", "hd95_px_0_if_both_empty_diagonal_if_one"


def patients(out: Path) -> list[dict[str, str]]:
    with (out / "patients.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_summary_says_where_the_tumour_is(tmp_path: Path) -> None:
    pixels = square(64, low=16, high=32)
    pixels[40:44, 50:54, 1] = 200
    write(tmp_path / "in/p_1.png", pixels)
    write(tmp_path / "in/p_2.png", square(value=0))
    assert infer(tmp_path / "in") == 0
    found, empty = rows(tmp_path / "in-masks")
    assert (found["tumour_pixels"], found["components"], found["largest_component"]) == ("272", "2", "256")
    assert [found[f"box_{side}"] for side in ("left", "top", "width", "height")] == ["16", "16", "38", "28"]
    assert float(found["centroid_x"]) == pytest.approx((256 * 23.5 + 16 * 51.5) / 272, abs=0.01)
    assert float(found["centroid_y"]) == pytest.approx((256 * 23.5 + 16 * 41.5) / 272, abs=0.01)
    assert (empty["tumour_pixels"], empty["components"], empty["box_left"], empty["centroid_x"]) == ("0", "0", "", "")


def test_patients_are_added_up_with_volume_where_the_spacing_is_known(tmp_path: Path) -> None:
    for n, value in ((1, 200), (2, 200), (3, 0)):
        write(tmp_path / f"in/anna/anna_{n}.png", square(value=value))
    write(tmp_path / "in/bert/bert_1.png", square(value=0))
    (tmp_path / "in/bert/bert_2.png").write_text("no picture")
    assert infer(tmp_path / "in") == 1
    assert patients(tmp_path / "in-masks") == [
        {"patient": "anna", "slices": "3", "failed": "0", "positive_slices": "2", "tumour_pixels": "2048"},
        {"patient": "bert", "slices": "2", "failed": "1", "positive_slices": "0", "tumour_pixels": "0"},
    ]
    assert infer(tmp_path / "in", "--spacing", 0.5, 2, 5) == 1
    anna = patients(tmp_path / "in-masks")[0]
    assert (anna["tumour_area_mm2"], anna["tumour_volume_ml"]) == ("2048.00", "10.2400")


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, -1, 1), (1, 1, "inf"), ("nan", 1, 1)])
def test_a_spacing_that_cannot_be_is_refused(tmp_path: Path, capsys, spacing: tuple) -> None:
    write(tmp_path / "in/p_1.png", square())
    assert infer(tmp_path / "in", "--spacing", *spacing) == 2
    assert "expected three positive lengths in mm" in capsys.readouterr().err


def test_scores_stand_in_both_tables_with_the_rule_for_empty_masks_in_the_header(tmp_path: Path, capsys) -> None:
    truth = square()[..., 1]
    moved = np.roll(truth, 3, axis=1)
    for n, (pixels, mask) in enumerate([(200, truth), (200, moved), (0, truth), (0, truth * 0)], 1):
        write(tmp_path / f"in/a/a_{n}.png", square(value=pixels))
        write(tmp_path / f"in/a/a_{n}_mask.png", mask)
    assert infer(tmp_path / "in", "--score") == 0
    table = rows(tmp_path / "in-masks")
    assert [r[HD95] for r in table] == ["0.000", "3.000", f"{math.hypot(64, 64):.3f}", "0.000"]
    assert [r[DICE] for r in table] == ["1.0000", "0.9062", "0.0000", "1.0000"]
    (anna,) = patients(tmp_path / "in-masks")
    mean = (0 + 3 + math.hypot(64, 64)) / 3
    assert float(anna["hd95_px_mean_over_slices_with_tumour"]) == pytest.approx(mean, abs=1e-3)
    assert f"HD95 {mean:.1f} pixels" in capsys.readouterr().out


def test_slices_unlike_the_training_data_are_warned_of_in_their_row_and_counted(
    tmp_path: Path, capsys, with_range: Path
) -> None:
    write(tmp_path / "in/p_1.png", np.full((64, 64, 3), 7, np.uint8))
    write(tmp_path / "in/p_2.png", np.random.default_rng(0).integers(0, 140, (64, 64, 3), np.uint8) * (square() > 0))
    assert main([str(tmp_path / "in"), "--model", str(with_range), "--device", "cpu", "--quiet"]) == 0
    first, second = rows(tmp_path / "in-masks")
    assert (first["warning"], first["status"]) == ("nearly constant", "written")
    assert second["warning"] == ""
    assert "unlike the training data: 1 slice: nearly constant (1)" in capsys.readouterr().out
    document = json.loads((tmp_path / "in-masks/run.json").read_text())
    assert document["unlike_training_data"] == {"slices": 1, "reasons": {"nearly constant": 1}}


@pytest.fixture
def with_range(tmp_path: Path) -> Path:
    """Return the tiny model with a training range in its contract."""
    data, old = TINY.read_bytes(), b'"training_range":{"channel_counts":[],"intensity":[],"sizes":[]}'
    levels = b"[0.0,5.0,130.0,240.0]"
    new = b'"training_range":{"channel_counts":[3],"intensity":[%b,%b,%b],"sizes":[[64,64]]}' % (levels, levels, levels)
    assert data.count(old) == 1
    path = tmp_path / "ranged.onnx"
    path.write_bytes(_longer(data, old, new))
    return path


def _longer(data: bytes, old: bytes, new: bytes) -> bytes:
    """Replace text inside the contract, and mend the two lengths that protobuf states before it."""
    from segport.contract import KEY

    key = data.index(KEY.encode())
    start = data.rindex(b"\x72", 0, key - 1)  # field 14, length-delimited
    _, begin = _varint(data, start + 1)
    value = key + len(KEY)
    length, text = _varint(data, value + 1)
    contract = data[text : text + length].replace(old, new)
    entry = data[begin:value] + b"\x12" + _encode(len(contract)) + contract
    return data[:start] + b"\x72" + _encode(len(entry)) + entry + data[text + length :]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, at, shift = value | (byte & 0x7F) << shift, at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _encode(value: int) -> bytes:
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def test_a_contact_sheet_for_each_patient_shows_slices_and_outlines(tmp_path: Path) -> None:
    for n in range(1, 6):
        write(tmp_path / f"in/anna/anna_{n}.png", square(128, low=32, high=96, value=200 * (n > 2)))
    write(tmp_path / "in/bert_1.png", square())
    write(tmp_path / "in/carl_1.png", square())
    assert infer(tmp_path / "in", "--overlay") == 0
    out = tmp_path / "in-masks"
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*_sheet.png")) == [
        "anna/anna_sheet.png", "bert_sheet.png", "carl_sheet.png"
    ]  # fmt: skip
    sheet = read(out / "anna/anna_sheet.png")[..., ::-1]
    assert sheet.shape == (2 * 128, 3 * 128, 3)
    red = (sheet == (255, 64, 64)).all(axis=2)
    assert [red[: 128, : 256].any(), red[:128, 256:].any(), red[128:, :256].any(), red[128:, 256:].any()] == [
        False, True, True, False
    ]  # fmt: skip


def test_a_sheet_in_the_way_that_is_not_ours_stays_and_is_said(tmp_path: Path, capsys) -> None:
    write(tmp_path / "in/bert_1.png", square())
    (tmp_path / "in-masks").mkdir()
    (tmp_path / "in-masks/bert_sheet.png").write_text("a list of my own")
    assert infer(tmp_path / "in", "--overlay") == 1
    assert "no contact sheet of bert" in capsys.readouterr().err
    assert (tmp_path / "in-masks/bert_sheet.png").read_text() == "a list of my own"
    assert infer(tmp_path / "in", "--overlay", "--overwrite") == 0
    assert read(tmp_path / "in-masks/bert_sheet.png").shape == (128, 128, 3)


def test_a_heat_map_shows_where_the_probability_is(tmp_path: Path) -> None:
    write(tmp_path / "in/a_1.png", square(256, low=64, high=192))
    assert infer(tmp_path / "in", "--overlay", "--probabilities") == 0
    heat = read(tmp_path / "in-masks/a_1_heat.png")[..., ::-1].astype(int)
    assert heat.shape == (512, 512, 3)
    assert heat[256, 256, 0] > heat[256, 256, 2] + 50  # certain: red
    assert not heat[20, 20].any()


def test_what_comes_from_names_cannot_command_a_terminal_or_a_spreadsheet(tmp_path: Path, capsys) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a\x1b[2Jb_1.png").write_text("no picture")
    (tmp_path / "in/ =cmd|x_2.png").write_text("no picture")
    assert infer(tmp_path / "in") == 1
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert "a\\x1b[2Jb_1.png" in shown.err
    assert {r["path"] for r in rows(tmp_path / "in-masks")} == {"a\\x1b[2Jb_1.png", "' =cmd|x_2.png"}


def test_a_table_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the table of slices cannot be written"):
        GrowingTable(tmp_path / "nothing/x.csv", ["a"])


def test_a_pixel_limit_that_is_no_number_is_said_before_opencv_loads(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", "1e9")
    assert main([str(tmp_path)]) == 2
    assert "OPENCV_IO_MAX_IMAGE_PIXELS=1e9: expected a whole number of pixels" in capsys.readouterr().err
