"""Muon: what a step is for filters and for the rest, and that a training with it resumes bit by bit."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn

from segport_train.hardware import Hardware
from segport_train.muon import RMS_OF_ADAMW, Muon, orthogonalise, orthogonalise_filters
from segport_train.optimizer import learning_rate, make_optimizer
from segport_train.settings import TrainSettings
from thin import arguments, hooked, results, train, write_patients

FP32 = Hardware(torch.device("cpu"), "fp32")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 1, 1))


def loss_of(network: nn.Module) -> torch.Tensor:
    pixels = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    return (network(pixels) - pixels[:, :1, 1:-1, 1:-1]).square().mean()


@pytest.mark.parametrize("shape", [(40, 300), (300, 40), (64, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_direction_comes_to_about_one(shape: tuple[int, int], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    values = torch.logspace(0, -1, min(shape))  # of the norm: 0.03 to 0.3
    before = u * values @ v
    after = orthogonalise(before[None], dtype)[0].float()
    assert after.shape == shape
    inner = u.T @ after @ v.T
    assert 0.4 < float(inner.diagonal().min()) <= float(inner.diagonal().max()) < 1.7
    noise = 1e-4 if dtype == torch.float32 else 0.25
    assert float((inner - inner.diagonal().diag()).abs().max()) < noise  # its directions are those of `before`


def test_no_gradient_is_no_step() -> None:
    assert not orthogonalise(torch.zeros(1, 4, 9), torch.float32).any()
    assert not orthogonalise_filters(torch.zeros(1, 4, 2, 3, 3), torch.float32).any()


def test_taps_without_gradient_stay_and_change_nothing() -> None:
    update = torch.randn(1, 6, 5, 3, 3, generator=torch.Generator().manual_seed(2))
    update[..., 0, :] = update[..., 1, ::2] = 0
    found = orthogonalise_filters(update, torch.float32)
    assert ((found != 0) == (update != 0)).all()
    dense = RMS_OF_ADAMW * 20**0.5 * orthogonalise(update.flatten(2), torch.float32)  # 5 channels of 4 taps
    assert torch.allclose(found.flatten(2), dense, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(6, 5, 3, 3), (12, 2, 3, 3)])  # the second: wide with all taps, tall with four
def test_several_filters_come_to_what_each_comes_to_alone(device: str, shape: tuple[int, ...]) -> None:
    updates = torch.randn(3, *shape, generator=torch.Generator().manual_seed(2))
    updates[1, ..., 0, :] = updates[1, ..., 1, ::2] = 0  # taps without gradient
    updates[2] = 0
    alone = torch.cat([orthogonalise_filters(update[None], torch.float32) for update in updates])
    found = orthogonalise_filters(updates.to(device), torch.float32).cpu()
    assert ((found != 0) == (updates != 0)).all()
    assert torch.allclose(found, alone, atol=1e-4)


def test_a_step_with_filters_of_one_shape_together_is_that_of_each() -> None:
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1)]
    one = nn.Sequential(*convolutions, nn.Conv2d(4, 1, 1))
    two = deepcopy(one)
    optimizers = [Muon(n, 0.02, 0.1, torch.float32, together=together) for n, together in ((one, False), (two, True))]
    for _ in range(3):
        for of, optimizer in zip((one, two), optimizers, strict=True):
            of(torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    for weight, other in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.allclose(weight, other, atol=1e-5)
    assert not torch.allclose(one[1].weight, one[2].weight, atol=1e-2)


def test_filters_without_gradient_stay(network: nn.Module) -> None:
    before = deepcopy(network.state_dict())
    optimizer = Muon(network, 0.02, 0.1, torch.float32, together=True)
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not optimizer.state


def test_an_update_is_as_large_as_that_of_adamw() -> None:
    update = torch.randn(1, 64, 32, 3, 3, generator=torch.Generator().manual_seed(3))
    for scale in (1e-6, 1, 1e6):
        assert float(orthogonalise_filters(scale * update, torch.float32).square().mean().sqrt()) == pytest.approx(
            RMS_OF_ADAMW, rel=0.2
        )


def test_filters_take_muons_step_and_all_others_adams(network: nn.Module) -> None:
    settings = TrainSettings(Path("a"), Path("b"), optimizer="muon", weight_decay=0.1)
    twin = deepcopy(network)
    muon, adam = make_optimizer(network, settings, FP32), torch.optim.Adam(twin.parameters(), lr=2e-3)
    for optimizer, of in ((muon, network), (adam, twin)):
        loss_of(of).backward()
        optimizer.step()
    filters = {"0.weight", "3.weight"}  # not the last, which has one row
    for (name, weight), other in zip(network.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(weight, other, atol=1e-7) == (name not in filters), name
        assert (weight.grad is None) == (name in filters)


def test_weight_decay_pulls_filters_alone(network: nn.Module) -> None:
    before = deepcopy(network.state_dict())
    muon = Muon(network, 0.5, 0.1, torch.float32)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    muon.step()
    for name, weight in network.named_parameters():
        expected = before[name] * (0.95 if name in {"0.weight", "3.weight"} else 1)
        assert torch.allclose(weight, expected, atol=1e-7), name


def test_it_learns(network: nn.Module) -> None:
    settings = TrainSettings(Path("a"), Path("b"), optimizer="muon", lr=0.02)
    muon, before = make_optimizer(network, settings, FP32), loss_of(network).item()
    for step in range(100):
        for group in muon.param_groups:
            group["lr"] = learning_rate(step, 100, settings)
        muon.zero_grad()
        loss_of(network).backward()
        muon.step()
    assert loss_of(network).item() < 0.3 * before


def test_a_step_whose_gradients_overflow_is_left_out(network: nn.Module) -> None:
    muon, scaler = Muon(network, 1e-2, 0.1, torch.float32), torch.amp.GradScaler("cpu")
    for factor, moves in ((float("inf"), False), (1.0, True)):
        before = deepcopy(network.state_dict())
        muon.zero_grad()
        scaler.scale(factor * loss_of(network)).backward()
        scaler.unscale_(muon)
        scaler.step(muon)
        scaler.update()
        moved = [not torch.equal(weight, before[name]) for name, weight in network.named_parameters()]
        assert any(moved) == all(moved) == moves


def test_a_closure_is_refused(network: nn.Module) -> None:
    with pytest.raises(TypeError, match="takes no closure"):
        Muon(network, 1e-2, 0.1, torch.float32).step(lambda: 0.0)


def test_an_interrupted_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    data, muon = write_patients(tmp_path / "data"), ("--optimizer", "muon")
    assert train(data, tmp_path / "whole", *muon) == 0
    with hooked("halt"):
        from segport_train.cli import main

        assert main(arguments(data, tmp_path / "run", *muon, "--save-every", "0")) != 0
    assert train(data, tmp_path / "run", *muon, "--resume") == 0
    assert results(tmp_path / "run") == results(tmp_path / "whole")
