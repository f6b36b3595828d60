"""seg-infer as a user meets it: folders in, masks, tables and exit codes out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers import SAMPLE_DATA, TINY, infer, read, rows, square, write
from segport.cli import main


def test_a_folder_alone_gives_a_mirrored_tree_of_masks_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "in/anna/anna_1.tif", square(100, low=25, high=75))
    write(tmp_path / "in/bert/bert_1.png", square(64, value=100))
    assert infer(tmp_path / "in") == 0
    mask = read(tmp_path / "in-masks/anna/anna_1_mask.png")
    assert mask.shape == (100, 100)
    assert set(np.unique(mask)) == {0, 255}
    assert (mask[28:72, 28:72] == 255).all()
    assert not mask[:22].any()
    assert not read(tmp_path / "in-masks/bert/bert_1_mask.png").any()


def test_the_summary_has_a_row_a_slice_in_natural_order(tmp_path: Path) -> None:
    for n in (10, 2, 1):
        write(tmp_path / f"in/p/p_{n}.png", square())
    infer(tmp_path / "in")
    table = rows(tmp_path / "in-masks")
    assert [r["path"] for r in table] == ["p/p_1.png", "p/p_2.png", "p/p_10.png"]
    assert table[0]["patient"] == "p"
    assert table[0]["tumour_pixels"] == str(32 * 32)
    assert float(table[0]["tumour_share"]) == 0.25
    assert float(table[0]["mean_probability"]) > 0.99
    assert table[0]["status"] == "written"


def test_run_json_says_what_ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in/p_1.png", square())
    assert infer(tmp_path / "in", "--json", "--threshold", "0.25") == 0
    document = json.loads((tmp_path / "in-masks/run.json").read_text())
    assert json.loads(capsys.readouterr().out) == document
    assert document["provider"] == "CPUExecutionProvider"
    assert document["settings"]["threshold"] == 0.25
    assert document["finished"] is True
    assert document["counts"] == {
        "planned": 1,
        "written": 1,
        "up_to_date": 0,
        "failed": 0,
        "unscored": 0,
        "unreadable": 0,
        "ignored": 0,
    }
    assert len(document["model"]["sha256"]) == 64
    assert document["contract"]["input"]["size"] == 64


def test_bad_files_are_listed_with_reasons_and_the_others_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, good = tmp_path / "in", square()
    write(root / "a/same.tif", good)
    write(root / "b/same.tif", good)
    write(root / "with space_1.png", good)
    write(root / "Schädel_ß_1.png", good)
    write(root / "脳_1.png", good)
    write(root / "grey_1.png", good[..., 1])
    whole = write(root / "cut_1.tif", good).read_bytes()
    (root / "cut_1.tif").write_bytes(whole[: len(whole) // 2])
    (root / "empty_1.png").touch()
    (root / "notes.txt").write_text("hello")
    write(root / "deep_1.png", good.astype(np.uint16) * 257)
    assert infer(root, "--window", 0, 65535) == 1
    status = {r["path"]: r for r in rows(tmp_path / "in-masks")}
    failed = {path for path, r in status.items() if r["status"] == "failed"}
    assert failed == {"cut_1.tif", "empty_1.png"}
    assert "truncated" in status["cut_1.tif"]["message"]
    assert "0 bytes" in status["empty_1.png"]["message"]
    error = capsys.readouterr().err
    assert "cut_1.tif: cannot be decoded" in error
    expected = read(tmp_path / "in-masks/a/same_mask.png")
    assert expected.sum() == 255 * 32 * 32
    for name in ("b/same", "with space_1", "Schädel_ß_1", "脳_1", "grey_1", "deep_1"):
        assert (read(tmp_path / f"in-masks/{name}_mask.png") == expected).all(), name
    assert len(list((tmp_path / "in-masks").rglob("*_mask.png"))) == 7


def test_16_bit_without_a_window_follows_the_contracts_rule_over_the_patient(tmp_path: Path) -> None:
    """Levels 0..140: the bright square (top percentile of the patient) comes to 140 and over the threshold of 128."""
    for n, value in ((1, 40_000), (2, 10_000)):
        write(tmp_path / f"in/p_{n}.png", square(value=200).astype(np.uint16) // 200 * value)
    assert infer(tmp_path / "in") == 0
    assert read(tmp_path / "in-masks/p_1_mask.png").any()
    assert not read(tmp_path / "in-masks/p_2_mask.png").any()  # not stretched by its own extremes


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    for n in range(1, 12):
        write(tmp_path / f"in/p_{n}.png", square(64 + n))
    for out, batch in (("a", 3), ("b", 8)):
        assert infer(tmp_path / "in", "--out", tmp_path / out, "--batch-size", batch, "--overlay", "--score") == 0
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").glob("*.*") if p.suffix in (".png", ".csv")]
    assert len(files) == 11 * 2 + 1 + 2  # masks and overlays, a contact sheet, summary and patients
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_slices_that_would_share_a_mask_keep_their_ending(tmp_path: Path) -> None:
    write(tmp_path / "in/a.png", square())
    write(tmp_path / "in/A.tif", square(value=0))
    assert infer(tmp_path / "in") == 0
    assert read(tmp_path / "in-masks/a.png_mask.png").any()
    assert not read(tmp_path / "in-masks/A.tif_mask.png").any()


def test_scores_name_their_aggregation_and_the_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = square()[..., 1]
    write(tmp_path / "in/a/a_1.png", square())
    write(tmp_path / "in/a/a_1_mask.png", truth)
    write(tmp_path / "in/b/b_1.png", square(value=0))
    write(tmp_path / "in/b/b_1_mask.png", truth)
    assert infer(tmp_path / "in", "--score", "--overlay") == 0
    out = capsys.readouterr().out
    assert "Dice pooled 0.6667, mean per patient 0.5000" in out
    assert "accuracy 0.8750, where predicting nothing scores 0.7500 (2 patients, 2 slices)" in out
    assert [r["dice_1_if_both_empty"] for r in rows(tmp_path / "in-masks")] == ["1.0000", "0.0000"]


def test_a_truth_that_does_not_fit_is_said_and_the_mask_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in/a_1.png", square())
    write(tmp_path / "in/a_1_mask.png", np.zeros((9, 9), np.uint8))
    assert infer(tmp_path / "in", "--score") == 1
    assert "not scored: its mask a_1_mask.png is (9, 9), the slice (64, 64)" in capsys.readouterr().err
    assert (tmp_path / "in-masks/a_1_mask.png").exists()


def test_scoring_without_any_truth_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in/a_1.png", square())
    assert infer(tmp_path / "in", "--score") == 0
    assert "no slice has a true mask" in capsys.readouterr().out


def test_overlays_show_outlines_and_probabilities_fill_16_bits(tmp_path: Path) -> None:
    write(tmp_path / "in/a_1.png", square(256, low=64, high=192))
    assert infer(tmp_path / "in", "--overlay", "--probabilities") == 0
    overlay = read(tmp_path / "in-masks/a_1_overlay.png")
    assert overlay.shape == (512, 512, 3)
    assert (overlay[..., ::-1] == (255, 64, 64)).all(axis=2).sum() > 900
    probability = read(tmp_path / "in-masks/a_1_probability.png")
    assert probability.dtype == np.uint16
    assert probability[128, 128] > 65_000
    assert probability[5, 5] < 100


def test_several_inputs_go_under_their_own_names(tmp_path: Path) -> None:
    write(tmp_path / "a/p_1.png", square())
    write(tmp_path / "b/p_1.png", square())
    assert infer(tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out") == 0
    assert (tmp_path / "out/a/p_1_mask.png").exists()
    assert (tmp_path / "out/b/p_1_mask.png").exists()
    assert [r["path"] for r in rows(tmp_path / "out")] == ["a/p_1.png", "b/p_1.png"]


def test_a_single_file_is_a_folder_of_one(tmp_path: Path) -> None:
    write(tmp_path / "p_1.png", square())
    write(tmp_path / "p_2.png", square())
    assert infer(tmp_path / "p_1.png") == 0
    assert [p.name for p in (tmp_path / "p_1-masks").glob("*_mask.png")] == ["p_1_mask.png"]


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in/p_1.png", square())
    assert infer(tmp_path / "in", "--dry-run") == 0
    assert "p_1_mask.png" in capsys.readouterr().out
    assert not (tmp_path / "in-masks").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a folder of slices"),
        (["{}/nothing"], "no such file or folder"),
        (["{}/empty"], "found no slice"),
        (["{}/in", "{}/empty"], "several inputs need --out"),
        (["{}/in", "{}/x/in", "--out", "{}/out"], "two inputs are named in"),
        (["{}/in", "--out", "{}/in"], "is or contains the input"),
        (["{}/in", "--out", "{}"], "is or contains the input"),
        (["{}/in", "--batch-size", "0"], "--batch-size is 0"),
        (["{}/in", "--threads", "0"], "--threads is 0"),
        (["{}/in", "--threshold", "1.5"], "--threshold is 1.5"),
        (["{}/in", "--window", "5", "5"], "--window is 5 5, expected two finite intensities, LO smaller than HI"),
        (["{}/in", "--nonsense"], "No such option"),
    ],
)
def test_wrong_usage_exits_2_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    write(tmp_path / "in/p_1.png", square())
    write(tmp_path / "x/in/p_1.png", square())
    (tmp_path / "empty").mkdir()
    assert infer(*(a.format(tmp_path) for a in arguments)) == 2
    assert message in capsys.readouterr().err


def test_a_model_that_is_refused_exits_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in/p_1.png", square())
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x08")
    assert main([str(tmp_path / "in"), "--model", str(tmp_path / "bad.onnx")]) == 3
    assert "holds no segport contract" in capsys.readouterr().err
    assert not (tmp_path / "in-masks").exists()


def test_info_shows_the_contract_for_people_and_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--info", "--model", str(TINY)]) == 0
    assert "channel_order      RGB" in capsys.readouterr().out
    assert main(["--info", "--json", "--model", str(TINY)]) == 0
    assert json.loads(capsys.readouterr().out)["input"]["size"] == 64


def test_the_self_test_passes_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--self-test", "--model", str(TINY), "--device", "cpu"]) == 0
    assert "passed on CPUExecutionProvider" in capsys.readouterr().out
    other = tmp_path / "altered.onnx"
    data = bytearray(TINY.read_bytes())
    bias = np.array([-12.75], np.float32).tobytes()
    assert data.count(bias) == 1
    data[data.index(bias) : data.index(bias) + 4] = np.array([-9.0], np.float32).tobytes()
    other.write_bytes(data)
    assert main(["--self-test", "--json", "--model", str(other), "--device", "cpu"]) == 1
    assert json.loads(capsys.readouterr().out)["passed"] is False


def test_formulas_in_names_are_neutralised(tmp_path: Path) -> None:
    write(tmp_path / "in/=1+1_3.png", square())
    infer(tmp_path / "in")
    assert rows(tmp_path / "in-masks")[0]["path"] == "'=1+1_3.png"


@pytest.mark.parametrize("threads", [1, 2])
def test_batch_size_and_threads_change_no_mask_of_the_embedded_model(tmp_path: Path, threads: int) -> None:
    shutil.copytree(SAMPLE_DATA / "patient_2", tmp_path / "in")
    for batch in (1, 3, 8, 32):
        out = tmp_path / f"out-{batch}"
        assert main(f"{tmp_path}/in --out {out} --device cpu --batch-size {batch} --threads {threads}".split()) == 0
    masks = sorted((tmp_path / "out-1").glob("*_mask.png"))
    assert len(masks) == 12
    assert sum(read(m).any() for m in masks) >= 3
    for mask in masks:
        for batch in (3, 8, 32):
            assert (read(mask) == read(tmp_path / f"out-{batch}" / mask.name)).all()
