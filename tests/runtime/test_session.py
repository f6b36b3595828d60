"""Decisions about the device, with fakes at the boundary to ONNX Runtime: no machine of ours has CUDA."""

from pathlib import Path

import pytest

from helpers import TINY
from segport import session
from segport.errors import DeviceError, ModelError
from segport.segmenter import Segmenter
from segport.session import CPU, CUDA, open_session


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
        monkeypatch.setattr(session, "_load", runtime.load)
        monkeypatch.setattr(session, "_cuda_missing", lambda: "no NVIDIA device is present" if cuda == "absent" else "")
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
    monkeypatch.setattr(session.ort, "get_available_providers", lambda: [CPU])
    assert "has no CUDA provider" in session._cuda_missing()


def test_threads_are_what_was_asked_for() -> None:
    assert open_session(TINY, device="cpu", threads=1).threads == 1
    assert open_session(TINY, device="cpu").threads == session.usable_cores()


def test_a_graph_that_is_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(TINY.read_bytes().replace(b"Transpose", b"Transpoze"))
    with pytest.raises(ModelError, match="ONNX Runtime refuses the model"):
        Segmenter(path, device="cpu")


def test_a_graph_that_disagrees_with_its_contract_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(TINY.read_bytes().replace(b'"size":64', b'"size":32'))
    with pytest.raises(ModelError, match="graph and contract disagree"):
        Segmenter(path, device="cpu")
