"""What ends a training says why and what helps, and leaves the last good checkpoint."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from segport.errors import OutputError
from segport_train import cache, checkpoint, loop, trainer
from segport_train.checkpoint import load_checkpoint
from segport_train.settings import TrainSettings
from segport_train.start import open_run
from thin import thin_networks, train, write_patients


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_patients(tmp_path / "data")


@pytest.fixture(autouse=True)
def plain_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no curves: they take longer than all else here."""
    monkeypatch.setattr(loop, "draw_curves", lambda path, rows: None)


def at_step(monkeypatch: pytest.MonkeyPatch, nth: int, act: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Let `act` change the main loss of the `nth` step, from 1; each step asks for two losses."""
    real, asked = trainer.segmentation_loss, [0]

    def loss(*args: Any) -> torch.Tensor:
        asked[0] += 1
        return act(real(*args)) if asked[0] == 2 * nth - 1 else real(*args)

    monkeypatch.setattr(trainer, "segmentation_loss", loss)


class Root(torch.autograd.Function):
    """A function whose value is fine and whose gradient is not."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0] * float("inf")


@pytest.mark.parametrize(
    "act",
    [lambda x: x * float("nan"), lambda x: x + float("inf"), Root.apply],
    ids=["nan", "inf", "slope"],
)
def test_what_is_not_finite_stops_the_run_before_the_weights_take_it_up(
    data: Path, tmp_path: Path, monkeypatch, capsys, act: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    at_step(monkeypatch, 3, act)
    assert train(data, tmp_path / "run", "--save-every", "0") == 3
    said = capsys.readouterr().err
    assert (
        "error: epoch 2: the loss or its gradient is not a finite number; remedy: another --out with a smaller" in said
    )
    assert f"--init {tmp_path / 'run/last.safetensors'} to begin with what is learnt" in said
    assert "--resume" not in said  # it would come to the same step
    kept = load_checkpoint(tmp_path / "run/last.safetensors")
    assert (kept.progress["epoch"], kept.progress["step"]) == (1, 0)
    assert all(torch.isfinite(t).all() for t in (kept.weights | kept.optimizer).values())
    assert train(data, tmp_path / "run", "--resume") == 0


def test_where_a_step_is_not_waited_for_nothing_damaged_is_saved(
    data: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    """As on CUDA, where a step's loss is looked at when it is saved."""
    at_step(monkeypatch, 2, lambda x: x * float("nan"))
    real = trainer.Trainer.check
    checks: list[int] = []

    def check(self: trainer.Trainer, epoch: int) -> None:
        if sys._getframe(1).f_code.co_name != "step":
            checks.append(epoch)
            real(self, epoch)

    monkeypatch.setattr(trainer.Trainer, "check", check)
    assert train(data, tmp_path / "run", "--save-every", "0") == 3
    assert "not a finite number" in capsys.readouterr().err
    assert checks == [1, 1]
    assert load_checkpoint(tmp_path / "run/last.safetensors").progress["step"] == 1


def test_the_first_steps_failure_says_that_there_is_no_checkpoint(
    data: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    at_step(monkeypatch, 1, lambda x: x * float("nan"))
    assert train(data, tmp_path / "run") == 3
    said = capsys.readouterr().err
    assert "a smaller --lr (here 0.001)\n" in said  # fp32 was used: no other precision, and no --init
    assert "--resume" not in said
    at_step(monkeypatch, 1, raise_host)
    assert train(data, tmp_path / "run") == 3
    assert "start again; there is no checkpoint yet" in capsys.readouterr().err
    assert train(data, tmp_path / "run") == 0


def allocate(_: torch.Tensor) -> torch.Tensor:
    return torch.empty(1 << 60, dtype=torch.uint8)


def raise_gpu(_: torch.Tensor) -> torch.Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore lines")


def raise_host(_: torch.Tensor) -> torch.Tensor:
    raise MemoryError


def raising(text: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what fails as CUDA and its libraries do, where torch's allocator does not come to fail first."""

    def fail(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(text)

    return fail


@pytest.mark.parametrize(
    ("act", "found"),
    [
        (allocate, "the machine's memory is full ("),
        (raise_host, "the machine's memory is full (out of memory)"),
        (raise_gpu, "the GPU's memory is full (CUDA out of memory. Tried to allocate 2.00 GiB.)"),
        (raising("CUDA error: out of memory\nCompile with"), "the GPU's memory is full (CUDA error: out of memory)"),
        (
            raising("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"),
            "the GPU's memory is full (CUDA error: CUBLAS",
        ),
        (raising("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "the GPU's memory is full (cuDNN error: CUDNN"),
    ],
)
def test_memory_that_is_full_has_a_remedy(
    data: Path, tmp_path: Path, monkeypatch, capsys, act: Callable[[torch.Tensor], torch.Tensor], found: str
) -> None:
    at_step(monkeypatch, 2, act)
    assert train(data, tmp_path / "run", "--save-every", "0") == 3
    said = capsys.readouterr().err
    assert found in said
    assert f"--resume goes on from {tmp_path / 'run/last.safetensors'}" in said
    assert "smaller --batch-size (now 4) or --size (now 32)" in said
    assert load_checkpoint(tmp_path / "run/last.safetensors").progress["step"] == 1


def test_an_error_of_the_code_itself_is_not_explained_away(data: Path, tmp_path: Path, monkeypatch) -> None:
    at_step(monkeypatch, 1, lambda x: x.view(7))
    with pytest.raises(RuntimeError, match="shape"):
        train(data, tmp_path / "run")


def test_a_full_disk_keeps_the_checkpoint_and_says_what_is_needed(
    data: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    real, full = Path.write_bytes, [False]

    def write_bytes(path: Path, content: bytes) -> int:
        if full[0] and len(content) > 1_000_000:
            real(path, content[:99])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: SimpleNamespace(free=4096))
    full[0] = True
    assert train(data, tmp_path / "run") == 3
    said = capsys.readouterr().err
    assert "best.safetensors: cannot be written (No space left on device): " in said
    assert "bytes needed, 4096 free; remedy: free space, then start again; there is no checkpoint yet" in said

    full[0] = False
    at_step(monkeypatch, 2, lambda x: full.__setitem__(0, True) or x)
    assert train(data, tmp_path / "run", "--save-every", "0") == 3
    said = capsys.readouterr().err
    needed = int(said.split("device): ")[1].split(" bytes")[0])
    assert needed == (tmp_path / "run/last.safetensors").stat().st_size
    last = tmp_path / "run/last.safetensors"
    assert f"bytes needed, 4096 free; remedy: free space, then --resume goes on from {last}" in said
    assert load_checkpoint(last).progress["step"] == 1
    assert not list((tmp_path / "run").glob(".*.tmp"))
    full[0] = False
    assert train(data, tmp_path / "run", "--resume") == 0


def test_a_disk_that_is_full_to_the_last_byte_says_what_helps(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def refuse(path: Path, rows: object) -> None:
        raise OutputError(f"{path}: cannot be written (No space left on device)") from OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(loop, "write_metrics", refuse)
    assert train(data, tmp_path / "run", "--save-every", "0") == 3
    said = capsys.readouterr().err
    last = tmp_path / "run/last.safetensors"
    assert f"No space left on device); remedy: free space, then --resume goes on from {last}" in said


def test_a_disk_that_is_full_at_the_start_names_both_ways_out(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache.os, "fsync", refuse)
    assert train(data, tmp_path / "run") == 3
    said = capsys.readouterr().err
    assert "cannot be written (No space left on device); --cache DIR may be on another disk; remedy: free space" in said
    assert "remedy: free space, then start again; there is no checkpoint yet" in said


def test_other_refusals_of_the_disk_are_passed_on(data: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "run/last.safetensors").mkdir(parents=True)
    (tmp_path / "run/last.safetensors/x").touch()
    assert train(data, tmp_path / "run", "--resume") == 3  # nor can it be read
    (tmp_path / "run/last.safetensors/x").unlink()
    (tmp_path / "run/last.safetensors").rmdir()
    (tmp_path / "run/best.safetensors/x").mkdir(parents=True)
    assert train(data, tmp_path / "run", "--epochs", "1") == 3
    assert "best.safetensors: cannot be written (Is a directory)" in capsys.readouterr().err


def test_two_runs_never_write_to_one_folder(data: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    with thin_networks(), open_run(TrainSettings(data, out, size=32, output_stride=16, batch_size=4)):
        assert train(data, out) == 3
        assert f"error: {out}: another run of seg-train is writing there; remedy: wait" in capsys.readouterr().err
        assert train(data, tmp_path / "other", "--epochs", "1") == 0
    assert train(data, out, "--epochs", "1") == 0


def test_no_tumour_to_train_on_is_said(tmp_path: Path, capsys) -> None:
    data = write_patients(tmp_path / "data", patients=3)
    split = "patient,part\np0,train\np1,val\np2,test\n"
    (tmp_path / "split.csv").write_text(split)
    for mask in (data / "p0").glob("*_mask.png"):
        mask.write_bytes((data / "p1/p1_2_mask.png").read_bytes())
    assert train(data, tmp_path / "run", "--split-file", tmp_path / "split.csv") == 2
    assert "leaves no slice with tumour to train on; remedy:" in capsys.readouterr().err


def test_frozen_batch_normalisation_keeps_the_statistics_it_started_from(data: Path, tmp_path: Path, capsys) -> None:
    assert train(data, tmp_path / "first", "--epochs", "1") == 0
    assert train(data, tmp_path / "bare", "--batch-norm", "frozen") == 2
    assert "it needs --init" in capsys.readouterr().err
    first = tmp_path / "first/last.safetensors"
    for kind, same in (("frozen", True), ("train", False)):
        assert train(data, tmp_path / kind, "--init", first, "--batch-norm", kind, "--epochs", "1") == 0
        before, after = (load_checkpoint(p).weights for p in (first, tmp_path / kind / "last.safetensors"))
        statistics = [name for name in before if "running" in name]
        assert all((before[name] == after[name]).all() for name in statistics) == same
        assert any((before[name] != after[name]).any() for name in before if name not in statistics)
    assert loop.Progress(**load_checkpoint(first).progress).epoch == 1
