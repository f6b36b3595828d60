"""Augmentation, dataset, network, losses and evaluation."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from helpers import square, write
from segport.contract import Input, ModelContract
from segport.errors import DeviceError
from segport_train import hardware as hardware_module
from segport_train.augment import SEQUENCE_CHANCE, augment
from segport_train.batches import batches, divide, epoch_order
from segport_train.dataset import SliceDataset
from segport_train.evaluation import evaluate
from segport_train.hardware import Hardware, choose_hardware
from segport_train.losses import segmentation_loss
from segport_train.model import AtrousConv2d, SegmentationNetwork, weights_sha256
from segport_train.optimizer import learning_rate
from segport_train.settings import MOST_FLAIR_ONLY, TrainSettings
from segport_train.table import build_table

CONTRACT = ModelContract(Input(32))
CPU = Hardware(torch.device("cpu"), "fp32")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SliceDataset:
    root = tmp_path_factory.mktemp("data")
    for n in range(1, 13):
        low = 4 + n
        write(root / f"p{n % 3}/p{n % 3}_{n}.png", square(40, low=low, high=low + 16, value=200 if n > 4 else 0))
        write(root / f"p{n % 3}/p{n % 3}_{n}_mask.png", square(40, low=low, high=low + 16 if n > 4 else low)[..., 1])
    table, _ = build_table(TrainSettings(root, root / "run"))
    return SliceDataset(table, CONTRACT, seed=3, augmented=True)


def generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(list(key))


def test_augmentation_is_a_function_of_its_generator() -> None:
    pixels, mask = square(64), np.asarray(square(64)[..., 1] > 0, np.uint8)
    first, again, other = (augment(pixels, mask, generator(1, n), 0.3) for n in (1, 1, 2))
    assert (first[0] == again[0]).all()
    assert (first[1] == again[1]).all()
    assert (first[0] != other[0]).any()
    assert (pixels == square(64)).all()


@pytest.mark.parametrize("seed", range(12))
def test_the_mask_moves_with_the_pixels(seed: int) -> None:
    pixels, mask = square(64, value=255), np.asarray(square(64)[..., 1] > 0, np.uint8)
    moved, moved_mask = augment(pixels, mask, generator(seed), 0.3)
    bright = moved[..., 1] > 100
    assert set(np.unique(moved_mask)) <= {0, 1}
    overlap = 2 * (bright & (moved_mask > 0)).sum() / (bright.sum() + moved_mask.sum())
    assert overlap > 0.93


def test_sequences_are_replaced_by_flair_and_flair_never() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[8:24, 8:24] = (50, 150, 250)
    seen = set()
    for seed in range(200):
        moved, _ = augment(pixels, np.ones((32, 32), np.uint8), generator(seed), 0.3)
        centre = moved[14:18, 14:18].reshape(-1, 3).mean(axis=0)
        seen.add((bool(centre[0] > 80), bool(centre[2] < 200)))
        assert centre[1] > 80
    assert seen >= {(False, False), (True, False), (True, True), (False, True)}


def test_the_most_that_flair_alone_may_take_is_what_the_other_changes_leave() -> None:
    assert pytest.approx(1 - 2 * SEQUENCE_CHANCE) == MOST_FLAIR_ONLY


@pytest.mark.parametrize(("chance", "least", "most"), [(0.0, 0, 0), (0.3, 0.2, 0.4), (0.8, 0.7, 0.9)])
def test_flair_stands_for_all_sequences_as_often_as_was_asked(chance: float, least: float, most: float) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[8:24, 8:24] = (10, 120, 240)
    alone = 0
    for seed in range(200):
        moved, _ = augment(pixels, np.ones((32, 32), np.uint8), generator(seed), chance)
        centre = moved[14:18, 14:18].reshape(-1, 3).mean(axis=0)
        alone += bool(centre[0] > 50 and centre[2] < 190)
    assert least <= alone / 200 <= most


def test_items_depend_on_seed_epoch_and_slice_alone(data: SliceDataset) -> None:
    assert (data[1, 5][0] == data[1, 5][0]).all()
    assert (data[1, 5][0] != data[2, 5][0]).any()
    plain = SliceDataset(data.table, CONTRACT, seed=3, augmented=False)
    assert (plain[1, 5][0].numpy() == data.pixels[5]).all()


def test_workers_change_nothing(data: SliceDataset) -> None:
    parts = divide(epoch_order(data.table, 3, 2), 4)
    loaded = [torch.cat([pixels for pixels, _ in batches(data, 2, parts, workers)]) for workers in (0, 1, 2)]
    assert (loaded[0] == loaded[1]).all()
    assert (loaded[0] == loaded[2]).all()


def test_an_epoch_holds_all_tumour_slices_and_as_many_others(data: SliceDataset) -> None:
    orders = [epoch_order(data.table, 0, epoch).tolist() for epoch in (1, 1, 2)]
    tumour = set(np.flatnonzero(data.table.tumour_pixels > 0))
    assert len(orders[0]) == 12  # eight with tumour, only four without
    assert tumour <= set(orders[0])
    assert orders[0] == orders[1] != orders[2]


def test_a_short_tail_is_left_out_where_there_is_a_whole_batch() -> None:
    assert [len(part) for part in divide(np.arange(10), 4)] == [4, 4]
    assert [len(part) for part in divide(np.arange(3), 4)] == [3]


def test_truth_comes_back_at_its_own_size(data: SliceDataset) -> None:
    assert data.truth(0).shape == (40, 40)
    assert sum(int(data.truth(i).sum()) for i in range(len(data))) == data.table.tumour_pixels.sum()


@pytest.mark.parametrize(("rate", "side", "taps"), [(6, 8, 9), (8, 8, 1), (12, 8, 1), (4, 8, 9)])
def test_taps_that_read_only_padding_are_left_out_of_a_step_and_change_nothing(rate: int, side: int, taps: int) -> None:
    torch.manual_seed(0)
    quick = AtrousConv2d(5, 3, 3, padding=rate, dilation=rate, bias=False)
    features = torch.randn(2, 5, side, side, requires_grad=True)
    results = []
    for mode in (True, False):
        quick.train(mode).zero_grad()
        features.grad = None
        outputs = quick(features)
        outputs.square().sum().backward()
        results.append((outputs.detach(), features.grad, quick.weight.grad))
    for found, expected in zip(*results, strict=True):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert int((results[1][2] != 0).any(dim=(0, 1)).sum()) == taps
    assert results[0][0].shape == (2, 3, side, side)


@pytest.mark.parametrize("stride", [8, 16])
def test_the_network_takes_bytes_and_gives_a_logit_a_pixel(stride: int) -> None:
    network = SegmentationNetwork(CONTRACT, output_stride=stride, auxiliary=True)
    pixels = torch.zeros((2, 32, 32, 3), dtype=torch.uint8)
    logits, auxiliary = network(pixels)
    assert logits.shape == auxiliary.shape == (2, 1, 32, 32)
    with torch.inference_mode():
        assert network.eval()(pixels).shape == (2, 1, 32, 32)


def test_both_strides_have_the_same_weights() -> None:
    states = [SegmentationNetwork(CONTRACT, output_stride=s, auxiliary=True).state_dict() for s in (8, 16)]
    assert {n: t.shape for n, t in states[0].items()} == {n: t.shape for n, t in states[1].items()}


def test_normalisation_is_inside_the_network() -> None:
    contract = ModelContract(Input(32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0)))
    network = SegmentationNetwork(contract, output_stride=16, auxiliary=False).eval()
    seen: list[torch.Tensor] = []
    cast(Any, network.net.backbone).conv1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.inference_mode():
        network(torch.full((1, 32, 32, 3), 255, dtype=torch.uint8))
    assert seen[0][0, :, 0, 0].tolist() == pytest.approx([2, 1, 0.5])


def test_the_weights_hash_sees_values_names_and_types() -> None:
    state = {"a": torch.zeros(2), "b": torch.ones(2)}
    assert weights_sha256(state) == weights_sha256(dict(reversed(state.items())))
    for other in ({"a": torch.ones(2), "b": torch.zeros(2)}, state | {"b": torch.ones(2).double()}, {"a": state["a"]}):
        assert weights_sha256(other) != weights_sha256(state)


def test_losses_have_the_values_of_their_formulas() -> None:
    logits = torch.zeros((1, 1, 2, 2))
    masks = torch.tensor([[[1, 0], [0, 0]]], dtype=torch.uint8)
    bce = segmentation_loss(logits, masks, "bce")
    assert float(bce) == pytest.approx(np.log(2))
    both = segmentation_loss(logits, masks, "bce-dice")
    assert float(both - bce) == pytest.approx(1 - (2 * 0.5 + 1) / (2 + 1 + 1))


class FlairNetwork(nn.Module):
    """A logit from FLAIR alone, so that evaluation has a known answer."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels[..., 1].float().unsqueeze(1) - 100


def test_evaluation_scores_every_slice_at_its_own_size(data: SliceDataset) -> None:
    result = evaluate(cast(SegmentationNetwork, FlairNetwork()), data, CPU, "bce", 5)
    assert result.scores.slices == 12
    assert result.scores.patients == 3
    assert result.scores.dice_pooled > 0.95
    assert result.scores.nothing_accuracy == pytest.approx(1 - 8 * 256 / (12 * 1600))
    assert sum(c.pixels for c in result.patients.values()) == 12 * 1600


def test_learning_rates_warm_up_and_fall_to_zero() -> None:
    adamw = TrainSettings(Path("a"), Path("b"), optimizer="adamw")
    rates = [learning_rate(s, 2000, adamw) for s in (0, 99, 100, 1050, 1999)]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[1] == rates[2] == 1e-3
    assert rates[3] == pytest.approx(5e-4)
    assert rates[4] < 1e-8
    adam = TrainSettings(Path("a"), Path("b"))
    assert {learning_rate(s, 10, adam) for s in range(10)} == {1e-4}


def test_hardware_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="no usable CUDA device"):
        choose_hardware("cuda", "auto")
    with pytest.raises(DeviceError, match="needs CUDA"):
        choose_hardware("cpu", "fp16")
    for fast, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(hardware_module.torch.cpu, "_is_avx512_bf16_supported", lambda fast=fast: fast)
        assert choose_hardware("auto", "auto") == Hardware(torch.device("cpu"), expected)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    chosen = choose_hardware("auto", "auto")
    assert (chosen.device.type, chosen.precision, chosen.scales_gradients) == ("cuda", "fp16", True)
