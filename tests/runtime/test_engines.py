"""Both engines compute the same file: what they share, and what OpenVINO alone is asked for."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from helpers import SAMPLE_DATA, TINY, infer, read, square, write
from segport import openvino_engine
from segport.cli import main
from segport.errors import ModelError, UsageError
from segport.reading import read_slice
from segport.segmenter import Segmenter
from segport.session import open_session
from segport.settings import ENGINES, Engine
from segport.sources import list_slices

both = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture
def altered(tmp_path: Path) -> Callable[[bytes, bytes], Path]:
    """Return a copy of the tiny model with other bytes in one place."""

    def alter(old: bytes, new: bytes) -> Path:
        data = TINY.read_bytes()
        assert data.count(old) >= 1
        path = tmp_path / "altered.onnx"
        path.write_bytes(data.replace(old, new))
        return path

    return alter


def test_both_engines_give_the_same_masks() -> None:
    slices = [square(), square(100, low=25, high=75), np.zeros((30, 50), np.uint8), np.full((64, 64), 127, np.uint8)]
    masks = {engine: Segmenter(TINY, engine=engine, device="cpu").predict(slices, batch_size=3) for engine in ENGINES}
    for one, other in zip(*masks.values(), strict=True):
        assert (one == other).all()
    assert masks["openvino"][0].sum() == 255 * 32 * 32


def test_engines_round_int8_differently_at_a_few_pixels_of_the_outline() -> None:
    slices = [read_slice(s.path) for s in list_slices(SAMPLE_DATA / "patient_2").slices]
    masks = [np.stack(Segmenter(engine=engine, device="cpu").predict(slices)) for engine in ENGINES]
    assert masks[0].any()
    assert (masks[0] != masks[1]).mean() < 0.001  # 84 pixels of 3,145,728 over all of sample_data on one machine


@both
def test_batch_size_changes_no_logit(engine: Engine) -> None:
    segmenter = Segmenter(engine=engine, device="cpu")
    size = segmenter.contract.input.size
    pixels = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    one_by_one = np.concatenate([segmenter.logits(pixels[i : i + 1]) for i in range(3)])
    assert (segmenter.logits(pixels) == one_by_one).all()


@both
def test_the_self_test_passes_with_both_engines(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--self-test", "--json", "--engine", engine, "--device", "cpu"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is True
    assert report["provider"] == {"onnxruntime": "CPUExecutionProvider", "openvino": "OpenVINO CPU"}[engine]


def test_run_json_says_that_openvino_ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in/p_1.png", square())
    assert infer(tmp_path / "in", "--engine", "openvino", "--threads", 1) == 0
    document = json.loads((tmp_path / "in-masks/run.json").read_text())
    assert (document["provider"], document["provider_note"], document["threads"]) == ("OpenVINO CPU", "", 1)
    assert document["settings"]["engine"] == "openvino"
    assert "openvino" in document["versions"]
    assert "tiny.onnx on OpenVINO CPU" in capsys.readouterr().err
    assert read(tmp_path / "in-masks/p_1_mask.png").sum() == 255 * 32 * 32


def test_auto_with_openvino_is_the_cpu_without_a_note() -> None:
    opened = open_session(TINY, engine="openvino", device="auto")
    assert (opened.provider, opened.note) == ("OpenVINO CPU", "")


def test_openvino_does_not_run_on_cuda(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in/p_1.png", square())
    assert main([str(tmp_path / "in"), "--engine", "openvino", "--device", "cuda"]) == 2
    assert "--engine openvino runs on the CPU" in capsys.readouterr().err
    with pytest.raises(UsageError, match="not with --device cuda"):
        Segmenter(TINY, engine="openvino", device="cuda", allow_fallback=True)


def test_an_unknown_engine_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--self-test", "--engine", "tensorrt"]) == 2
    assert "'tensorrt' is not one of" in capsys.readouterr().err
    with pytest.raises(UsageError, match="expected one of onnxruntime, openvino"):
        Segmenter(TINY, engine="tensorrt")  # type: ignore[arg-type]


def test_a_missing_openvino_is_wrong_usage_and_names_the_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in/p_1.png", square())
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert infer(tmp_path / "in", "--engine", "openvino") == 2
    assert "pip install 'segport[openvino]'" in capsys.readouterr().err
    assert not (tmp_path / "in-masks").exists()


def test_openvino_is_asked_for_float32_one_stream_and_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    class Graph:
        def get_property(self, name: str) -> Any:
            return {"EXECUTION_DEVICES": ["CPU"], "INFERENCE_NUM_THREADS": 2}[name]

    class Core:
        def read_model(self, path: Path) -> Path:
            return path

        def compile_model(self, model: Path, device: str, options: dict[str, Any]) -> Graph:
            seen.update(model=model, device=device, **options)
            return Graph()

    fake = ModuleType("openvino")
    fake.Core = Core  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "openvino", fake)
    opened = open_session(TINY, engine="openvino", device="cpu", threads=7)
    assert opened.threads == 2  # what OpenVINO says, on a machine with two cores
    assert seen == {
        "model": TINY,
        "device": "CPU",
        "INFERENCE_NUM_THREADS": 7,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "f32",
        "CACHE_DIR": "",
    }


def test_importing_openvino_reports_nothing_and_leaves_nothing_at_home(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"  # an engine that was not asked for is not needed
        "from segport import Segmenter\n"
        f"Segmenter({str(TINY)!r}, engine='openvino')\n"
        "sys.exit(str([m for m in sys.modules if m.startswith('openvino_telemetry')] or ''))"
    )
    home = os.environ | {"HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=home, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
    assert list(tmp_path.iterdir()) == []


def test_a_program_keeps_the_usage_reports_it_has_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    its_own = ModuleType("openvino_telemetry")
    monkeypatch.setitem(sys.modules, "openvino_telemetry", its_own)
    open_session(TINY, engine="openvino", device="cpu")
    assert sys.modules["openvino_telemetry"] is its_own


def test_threads_that_share_a_segmenter_do_not_find_openvino_busy() -> None:
    segmenter = Segmenter(TINY, engine="openvino")
    slices = [square(low=n, high=n + 8) for n in range(0, 56, 2)]
    with ThreadPoolExecutor(4) as pool:
        masks = [mask for (mask,) in pool.map(lambda pixels: segmenter.predict([pixels]), slices)]
    for pixels, mask in zip(slices, masks, strict=True):
        assert (mask == np.where(pixels[..., 1] > 127, 255, 0)).all()


@both
def test_a_graph_that_gives_nan_is_an_error_and_no_empty_mask(engine: Engine, altered) -> None:
    bias = [np.array([value], np.float32).tobytes() for value in (-12.75, np.nan)]
    segmenter = Segmenter(altered(*bias), engine=engine, device="cpu")
    with pytest.raises(ModelError, match="not finite"):
        segmenter.predict([square()])


@both
def test_a_graph_that_is_damaged_is_refused(engine: Engine, altered) -> None:
    with pytest.raises(ModelError, match=r"refuses the model.*Transpoze"):
        Segmenter(altered(b"Transpose", b"Transpoze"), engine=engine, device="cpu")


@both
def test_a_graph_that_disagrees_with_its_contract_is_refused(engine: Engine, altered) -> None:
    with pytest.raises(ModelError, match=r"found \[\('pixels', 'uint8', \[64, 64, 3\]\)\] -> \[\('logits', 'float32'"):
        Segmenter(altered(b'"size":64', b'"size":32'), engine=engine, device="cpu")


@both
def test_what_stops_inference_is_said_in_one_line(engine: Engine) -> None:
    session = Segmenter(TINY, engine=engine, device="cpu").session
    with pytest.raises(ModelError, match=r"inference of 1 slices failed on .+: .+; remedy: a smaller") as caught:
        session.run(np.zeros((1, 32, 32, 3), np.uint8))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Exception from a.cpp:1:\nCheck 'ok' failed at b.cpp:2:\nModel can't be parsed\n\n", "Model can't be parsed"),
        ("Exception from a.cpp:1:\nlong log\n\nSummary:\n-- no rule for: X", "Summary: -- no rule for: X"),
        ("", "RuntimeError"),
    ],
)
def test_openvinos_reason_is_said_without_the_places_it_came_through(message: str, reason: str) -> None:
    assert openvino_engine._reason(RuntimeError(message)) == reason
