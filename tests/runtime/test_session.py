"""Decisions about the device, with fakes at the boundary to ONNX Runtime: no machine of ours has CUDA."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import TINY, infer, square, write
from segport import onnxruntime_engine
from segport.cli import main
from segport.errors import DeviceError, ModelError
from segport.onnxruntime_engine import CPU, CUDA, OrtRunner
from segport.segmenter import Segmenter
from segport.session import Session, open_session, usable_cores


class FakeRuntime:
    """Stands in for `InferenceSession`; `cuda` says how loading on CUDA ends."""

    def __init__(self, cuda: str) -> None:
        self.cuda, self.opened = cuda, []

    def load(self, path: Path, provider: str, threads: int):
        self.opened.append(provider)
        if provider == CUDA and self.cuda == "broken":
            raise ModelError("libcudnn.so.9: cannot open shared object file\nmore")
        provider = CPU if self.cuda == "falls back" else provider
        return type("Runner", (), {"get_providers": lambda _: [provider]})()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch):
    def install(cuda: str) -> FakeRuntime:
        runtime = FakeRuntime(cuda)
        monkeypatch.setattr(onnxruntime_engine, "_load", runtime.load)
        missing = "no NVIDIA device is present" if cuda == "absent" else ""
        monkeypatch.setattr(onnxruntime_engine, "_cuda_missing", lambda: missing)
        return runtime

    return install


def test_auto_takes_cuda_where_it_works(fake) -> None:
    runtime = fake("works")
    opened = open_session(TINY, device="auto")
    assert (opened.provider, opened.note) == (CUDA, "")
    assert runtime.opened == [CUDA]


@pytest.mark.parametrize(
    ("cuda", "reason"),
    [("absent", "no NVIDIA device"), ("broken", "libcudnn.so.9"), ("falls back", "came up on CPUExecutionProvider")],
)
def test_auto_goes_to_the_cpu_and_says_why(fake, cuda: str, reason: str) -> None:
    fake(cuda)
    opened = open_session(TINY, device="auto")
    assert opened.provider == CPU
    assert reason in opened.note


@pytest.mark.parametrize("cuda", ["absent", "broken", "falls back"])
def test_forced_cuda_fails_unless_fallback_is_allowed(fake, cuda: str) -> None:
    fake(cuda)
    with pytest.raises(DeviceError, match="--allow-fallback"):
        open_session(TINY, device="cuda")
    assert open_session(TINY, device="cuda", allow_fallback=True).provider == CPU


def test_cpu_never_tries_cuda(fake) -> None:
    runtime = fake("works")
    assert open_session(TINY, device="cpu").provider == CPU
    assert runtime.opened == [CPU]


def test_a_provider_that_is_not_compiled_in_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_engine.ort, "get_available_providers", lambda: [CPU])
    assert "has no CUDA provider" in onnxruntime_engine._cuda_missing()


def test_threads_are_what_was_asked_for() -> None:
    for asked, expected in ((1, 1), (None, usable_cores())):
        opened = open_session(TINY, device="cpu", threads=asked)
        assert isinstance(opened.runner, OrtRunner)
        assert opened.threads == opened.runner.graph.get_session_options().intra_op_num_threads == expected


def test_cuda_is_asked_for_alone_without_fallback_and_without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def create(path: str, options: Any, *, providers: list, enable_fallback: bool) -> Any:
        fallback = options.get_session_config_entry("session.disable_cpu_ep_fallback")
        seen.update(providers=providers, enable_fallback=enable_fallback, disable_cpu_ep_fallback=fallback)
        return type("Runner", (), {"get_providers": lambda _: [CUDA]})()

    monkeypatch.setattr(onnxruntime_engine.ort, "InferenceSession", create)
    monkeypatch.setattr(onnxruntime_engine.ort, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(onnxruntime_engine, "_cuda_missing", lambda: "")
    assert open_session(TINY, device="cuda").provider == CUDA
    assert seen == {
        "providers": [(CUDA, {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"})],
        "enable_fallback": False,
        "disable_cpu_ep_fallback": "1",
    }


def test_forced_cuda_ends_the_command_before_anything_is_written(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(onnxruntime_engine, "_cuda_missing", lambda: "no NVIDIA device is present")
    write(tmp_path / "in/p_1.png", square())
    assert main([str(tmp_path / "in"), "--model", str(TINY), "--device", "cuda"]) == 3
    assert "CUDA is not usable here (no NVIDIA device is present)" in capsys.readouterr().err
    assert not (tmp_path / "in-masks").exists()


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
