"""A loaded graph: its threads, its batches, and what it says of itself; the device is chosen in test_device.py."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import TINY, infer, square, write
from segport.cli import main
from segport.onnxruntime_engine import CPU, OrtRunner
from segport.segmenter import Segmenter
from segport.session import Session, open_session, usable_cores
from segport.settings import ENGINES, Device, Engine


def test_threads_are_what_was_asked_for() -> None:
    for asked, expected in ((1, 1), (None, usable_cores())):
        opened = open_session(TINY, device="cpu", threads=asked)
        assert isinstance(opened.runner, OrtRunner)
        assert opened.threads == opened.runner.graph.get_session_options().intra_op_num_threads == expected


@pytest.mark.parametrize(
    ("fixed", "threads", "note", "line"),
    [
        (None, 2, "", "CPUExecutionProvider, 2 threads"),
        (None, 1, "CUDA is not usable: why", "CPUExecutionProvider, 1 thread (CUDA is not usable: why)"),
        (8, 4, "", "CPUExecutionProvider, 4 threads, batches of 8"),
    ],
)
def test_a_session_says_in_one_line_what_runs_and_why(fixed: int | None, threads: int, note: str, line: str) -> None:
    assert Session(FixedBatch(fixed), CPU, threads, note).describe() == line


@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_session_knows_which_device_was_asked_for(engine: Engine, device: Device) -> None:
    opened = open_session(TINY, engine=engine, device=device)
    assert (opened.asked, opened.facts) == (device, {})


def test_what_the_operating_system_refuses_is_one_line(tmp_path: Path, monkeypatch, capsys) -> None:
    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", "somewhere")

    monkeypatch.setattr("segport.plan.plan_run", denied)
    assert main([str(tmp_path)]) == 3
    assert capsys.readouterr().err.strip() == "error: [Errno 13] Permission denied: 'somewhere'"


class FixedBatch:
    """A graph of exactly `batch` slices a call; a slice's logits are its first grey level."""

    def __init__(self, batch: int | None) -> None:
        self.batch, self.called = batch, list[int]()

    def run(self, batch):
        self.called.append(len(batch))
        return np.broadcast_to(batch[:, :1, :1, 0].astype(np.float32)[:, None], (len(batch), 1, 8, 8))


@pytest.mark.parametrize(("fixed", "called"), [(None, [5]), (4, [4, 4]), (5, [5]), (1, [1] * 5), (16, [16])])
def test_a_fixed_batch_is_filled_up_and_what_was_filled_in_is_dropped(fixed: int | None, called: list[int]) -> None:
    runner = FixedBatch(fixed)
    slices = np.stack([np.full((8, 8, 3), k, np.uint8) for k in range(5)])
    found = Session(runner, CPU, 1).run(slices)
    assert runner.called == called
    assert found[:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert Session(runner, CPU, 1).run(slices[:0]).shape == (0, 8, 8)


def test_a_run_takes_the_batch_that_the_model_was_made_for(tmp_path: Path, monkeypatch) -> None:
    """Not --batch-size: half-filled calls would compute for nothing."""
    for n in range(1, 12):
        write(tmp_path / f"in/p_{n}.png", square())
    runner = FixedBatch(3)
    runner.run = lambda batch: runner.called.append(len(batch)) or np.zeros((len(batch), 1, 64, 64), np.float32)
    real_open = Segmenter.__init__

    def opened(self, *arguments, **options) -> None:
        real_open(self, *arguments, **options)
        self.session = Session(runner, CPU, 1)

    monkeypatch.setattr(Segmenter, "__init__", opened)
    assert infer(tmp_path / "in", "--batch-size", 8) == 0
    assert runner.called == [3] * 4
    assert json.loads((tmp_path / "in-masks/run.json").read_text())["batch_size"] == 3
