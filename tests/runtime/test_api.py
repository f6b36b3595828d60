"""The Python API, goldens, scores, overlays and outputs."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import segport
from helpers import TINY, read, square
from segport import golden
from segport.errors import ModelError, OutputError, SliceError, UsageError
from segport.outputs import atomic_path, write_bytes, write_csv, write_png
from segport.overlay import draw_outlines
from segport.scoring import Counts, bootstrap_interval, count_pixels, ratio_interval, score_patients
from segport.segmenter import Segmenter

pixel_counts = st.integers(0, 1000)


def test_slices_in_masks_out(tiny: Segmenter) -> None:
    slices = [square(), square(100, low=25, high=75), np.zeros((30, 50), np.uint8)]
    masks = tiny.predict(slices, batch_size=2)
    assert [m.shape for m in masks] == [(64, 64), (100, 100), (30, 50)]
    assert (masks[0] == np.where(square()[..., 1] > 127, 255, 0)).all()
    assert not masks[2].any()


def test_a_blank_slice_gives_an_empty_mask(tiny: Segmenter) -> None:
    assert not tiny.predict([np.zeros((64, 64, 3), np.uint8)])[0].any()


def test_flair_alone_decides_in_the_tiny_model(tiny: Segmenter) -> None:
    pixels = np.full((64, 64, 3), 255, np.uint8)
    pixels[..., 1] = 0
    assert not tiny.predict([pixels])[0].any()


def test_no_slices_give_no_masks(tiny: Segmenter) -> None:
    assert tiny.predict([]) == []


def test_the_threshold_can_be_moved(tiny: Segmenter) -> None:
    pixels = np.full((64, 64), 120, np.uint8)  # probability 0.32
    assert not tiny.predict([pixels])[0].any()
    assert tiny.predict([pixels], threshold=0.3)[0].all()
    assert tiny.probabilities([pixels])[0][5, 5] == pytest.approx(0.3208, abs=1e-3)


def test_16_bit_slices_need_a_window(tiny: Segmenter) -> None:
    deep = square().astype(np.uint16) * 257
    with pytest.raises(SliceError, match="window"):
        tiny.predict([deep])
    assert (tiny.predict([deep], window=((0, 65535),))[0] == tiny.predict([square()])[0]).all()


def test_the_package_offers_the_segmenter_and_nothing_unknown() -> None:
    assert segport.Segmenter is Segmenter
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = segport.Nothing


def test_the_embedded_model_is_what_no_model_means() -> None:
    segmenter = segport.Segmenter(device="cpu")
    assert segmenter.contract.export is not None
    assert segmenter.contract.export.precision == "int8"
    assert golden.self_test(segmenter).passed


def test_a_missing_embedded_model_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segport.segmenter.DEFAULT_MODEL", "nothing.onnx")
    with pytest.raises(ModelError, match="reinstall segport or pass --model"):
        Segmenter()


def test_eight_goldens_ship_with_masks() -> None:
    assert [p.shape for p in golden.golden_slices()] == [(256, 256, 3)] * 8
    assert sum(bool(m.any()) for m in golden.golden_masks()) >= 6


def test_the_self_test_recognises_altered_goldens(tiny: Segmenter) -> None:
    test = golden.self_test(tiny)
    assert test.passed
    assert test.flips == 0
    stored = tiny.contract.golden
    assert stored is not None
    expected = golden._decode(stored, 64, "tiny")
    worse = golden.compare_logits(-expected, expected, 0.5, 1e9, stored.flip_share)
    assert not worse.passed
    assert worse.flips > 0
    for pair in ((expected, expected * np.nan), (expected * np.nan, expected)):
        assert not golden.compare_logits(*pair, 0.5, stored.tolerance, stored.flip_share).passed
    nudged = golden.compare_logits(expected, expected + 12, 0.5, stored.tolerance, 1.0)
    assert nudged.worst_flip > stored.tolerance
    assert not nudged.passed


@pytest.mark.parametrize(
    ("change", "message"),
    [({"logits": "!"}, "damaged"), ({"logits": "AAAA"}, "damaged"), ({"logits": ""}, "hold 0 bytes")],
)
def test_damaged_goldens_are_refused(tiny: Segmenter, change: dict[str, str], message: str) -> None:
    assert tiny.contract.golden is not None
    with pytest.raises(ModelError, match=message):
        golden._decode(replace(tiny.contract.golden, **change), 64, "tiny")


def test_goldens_that_would_unpack_to_more_than_they_may_are_refused(tiny: Segmenter) -> None:
    import base64
    import zlib

    bomb = base64.b64encode(zlib.compress(bytes(50_000_000))).decode()
    assert tiny.contract.golden is not None
    with pytest.raises(ModelError, match="expected 65536"):
        golden._decode(replace(tiny.contract.golden, logits=bomb), 64, "tiny")


def test_a_model_without_goldens_or_with_unknown_ones_is_refused() -> None:
    segmenter = Segmenter(TINY, device="cpu")
    contract = segmenter.contract
    segmenter.contract = replace(contract, golden=None)
    with pytest.raises(ModelError, match="carries no golden logits"):
        golden.self_test(segmenter)
    with pytest.raises(ModelError, match="does not ship"):
        golden.golden_slices(["../../etc/passwd"])


@given(pixel_counts, pixel_counts, pixel_counts, pixel_counts)
def test_dice_and_iou_are_shares_and_agree(tp: int, fp: int, fn: int, tn: int) -> None:
    counts = Counts(tp, fp, fn, tn)
    assert 0 <= counts.iou <= counts.dice <= 1
    assert counts.dice == pytest.approx(2 * counts.iou / (1 + counts.iou))


def test_counts_come_from_pixels() -> None:
    mask = np.array([[255, 255, 0, 0]], np.uint8)
    truth = np.array([[1, 0, 1, 0]], np.uint8)
    counts = count_pixels(mask, truth)
    assert counts == Counts(1, 1, 1, 1)
    assert (counts.dice, counts.iou, counts.accuracy, counts.nothing_accuracy) == (0.5, 1 / 3, 0.5, 0.5)
    with pytest.raises(ValueError, match="differ in shape"):
        count_pixels(mask, truth[:, :2])


def test_two_empty_masks_agree() -> None:
    assert Counts(tn=9).dice == Counts(tn=9).iou == 1


def test_pooled_and_per_patient_scores_differ_as_they_should() -> None:
    scores = score_patients({"a": Counts(90, 0, 0, 10), "b": Counts(0, 0, 10, 90), "c": Counts(10, 0, 0, 90)}, 3)
    assert scores.dice_pooled == pytest.approx(200 / 210)
    assert scores.dice_mean_per_patient == pytest.approx(2 / 3)
    assert scores.dice_median_per_patient == 1
    assert scores.nothing_accuracy == pytest.approx(190 / 300)
    with pytest.raises(ValueError, match="no patient"):
        score_patients({}, 0)


def test_outlines_lie_on_the_masks_edge() -> None:
    display = np.zeros((256, 256, 3), np.uint8)
    mask = np.zeros((256, 256), np.uint8)
    mask[100:150, 100:150] = 255
    truth = np.zeros_like(mask)
    truth[10:20, 10:20] = 1
    drawn = draw_outlines(display, mask, truth)
    assert drawn.shape == (512, 512, 3)
    assert tuple(drawn[200, 250]) == (255, 64, 64)
    assert tuple(drawn[20, 30]) == (64, 255, 64)
    assert not drawn[250, 250].any()
    assert not display.any()


def test_a_write_that_fails_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    write_bytes(path, b"earlier")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write_bytes(tmp_path / "file" / "mask.png", b"x")


def test_pictures_are_written_in_rgb_order(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.full((4, 4, 3), (1, 2, 3), np.uint8))
    assert read(tmp_path / "a.png")[0, 0].tolist() == [3, 2, 1]
    with pytest.raises(OutputError, match="cannot encode"):
        write_png(tmp_path / "b.png", np.zeros((0, 0), np.uint8))


def test_tables_neutralise_formulas_and_keep_numbers(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", ["a", "b"], [["=cmd()", -1], ["@x", 2]])
    with (tmp_path / "t.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["a", "b"], ["'=cmd()", "-1"], ["'@x", "2"]]


def test_the_bootstrap_interval_holds_the_mean_and_narrows_with_patients() -> None:
    few, many = [0.2, 0.9, 0.7], [0.2, 0.9, 0.7] * 30
    for values in (few, many):
        low, high = bootstrap_interval(values)
        assert low < np.mean(values) < high
    assert np.ptp(bootstrap_interval(many)) < np.ptp(bootstrap_interval(few)) / 4
    assert bootstrap_interval([0.5]) == (0.5, 0.5)
    assert bootstrap_interval(few) == bootstrap_interval(few)
    with pytest.raises(ValueError, match="no values"):
        bootstrap_interval([])


def test_the_interval_of_the_median_is_another_than_of_the_mean() -> None:
    values = [0.8, 0.81, 0.82, 0.83, 0.1]
    assert bootstrap_interval(values, middle=np.median)[1] == 0.83
    assert bootstrap_interval(values)[1] < 0.83


def test_the_interval_of_a_ratio_weighs_patients_by_their_pixels() -> None:
    values = [0.2, 0.9, 0.4, 0.7]
    assert ratio_interval(values, [1] * 4) == pytest.approx(bootstrap_interval(values))
    low, high = ratio_interval([900, 1], [1000, 10]) or (0, 0)
    assert (low, high) == pytest.approx((0.1, 0.9))
    assert ratio_interval([1, 0], [2, 0]) == (0.5, 0.5)  # resamples without tumour say nothing
    assert ratio_interval([0, 0], [0, 0]) is None
    with pytest.raises(ValueError, match="no patients"):
        ratio_interval([], [])


def test_precision_and_recall_of_empty_masks_flatter_nobody() -> None:
    assert (Counts(3, 1, 2, 4).precision, Counts(3, 1, 2, 4).recall) == (0.75, 0.6)
    assert (Counts(0, 0, 5, 5).precision, Counts(0, 0, 5, 5).recall) == (0, 0)
    assert (Counts(0, 5, 0, 5).precision, Counts(0, 5, 0, 5).recall) == (0, 0)
    assert (Counts(0, 0, 0, 5).precision, Counts(0, 0, 0, 5).recall) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 50}, "--threshold is 50"),
        ({"threshold": 0}, "--threshold is 0"),
        ({"threshold": float("nan")}, "--threshold is nan"),
        ({"batch_size": -1}, "--batch-size is -1"),
    ],
)
def test_arguments_out_of_bounds_are_refused_as_by_the_command(tiny: Segmenter, arguments: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tiny.predict([square()], **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"device": "gpu"}, "--device is gpu"), ({"device": "cuda:0"}, "cuda:0"), ({"threads": 0}, "--threads")],
)
def test_a_device_that_does_not_exist_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Segmenter(TINY, **arguments)


def test_a_window_without_end_is_refused(tiny: Segmenter) -> None:
    with pytest.raises(SliceError, match="finite"):
        tiny.predict([square().astype(np.uint16)], window=((0, float("inf")),))
