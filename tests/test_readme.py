"""Run every command of the README, or find the written reason why not."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers import ROOT, SAMPLE_DATA, read
from segport.segmenter import default_model
from segport.settings import ENGINES

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?:<!-- (.*?) -->\n)?```(sh|python)\n(.*?)```", TEXT, re.DOTALL)
PYTHON = [body for mark, language, body in BLOCKS if mark == "run" and language == "python"]
# A training at full size takes minutes an epoch; the shared one then stands in for what it would have left.
SMALL = [
    "--size",
    "32",
    "--output-stride",
    "16",
    "--batch-size",
    "4",
    "--val",
    "0.25",
    "--test",
    "0.25",
    "--device",
    "cpu",
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("sample_data", "LGG", "OTHER"):
        (tmp_path / name).symlink_to(SAMPLE_DATA)
    return tmp_path


def run(place: Path, line: str, *more: str) -> None:
    name, *arguments = shlex.split(line, comments=True)
    command = [str(Path(sys.executable).parent / name), *arguments, *more]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def test_every_block_is_run_or_says_why_not() -> None:
    assert len(BLOCKS) >= 5
    for mark, _, body in BLOCKS:
        assert re.fullmatch(r"run|not run: .{10,}", mark), body


def test_commands_work_as_written(place: Path, trained: Path) -> None:
    ran = 0
    for mark, language, body in BLOCKS:
        if mark != "run" or language != "sh":
            continue
        for line in filter(None, body.splitlines()):
            training = line.startswith("seg-train")
            run(place, line, *(SMALL if training else []))
            if training:
                assert (place / "RUN/best.safetensors").exists()
                shutil.rmtree(place / "RUN")
                (place / "RUN").symlink_to(trained)
            ran += 1
    assert ran >= 8
    assert len(list((place / "masks").rglob("*_mask.png"))) == 48
    assert len(list((place / "OTHER-masks").rglob("*_mask.png"))) == 48


def test_python_works_as_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    code = block("Segmenter")
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)  # the README is ours
    assert names["mask"].any()  # type: ignore[attr-defined]


def test_the_model_gives_the_same_mask_in_openvino_without_segport(place: Path) -> None:
    code = block("openvino.Core")
    (place / "model.onnx").symlink_to(default_model())
    without = "import sys; sys.modules['segport'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", without + code], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    mask, differing = read(place / "mask.png"), {}
    for engine in ENGINES:
        run(place, f"seg-infer sample_data/patient_1/patient_1_6.tif --out {engine} --engine {engine} --device cpu")
        differing[engine] = (read(place / engine / "patient_1_6_mask.png") != mask).sum()
    assert mask.any()
    assert differing["openvino"] == 0
    assert differing["onnxruntime"] <= 20  # 2 on the machine of the README's figures


def test_the_pytest_example_passes(place: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (place / "RUN").symlink_to(trained)
    run(place, "seg-export RUN/best.safetensors --out model.onnx")
    names: dict[str, Any] = {}
    exec(compile(block("assert_parity"), "README.md", "exec"), names)  # the README is ours
    names["test_the_model_still_gives_the_same_masks"]()


@pytest.mark.parametrize("name", ["seg-train", "seg-export", "seg-infer"])
def test_tables_list_every_option(name: str) -> None:
    command = [str(Path(sys.executable).parent / name), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for option in re.findall(r"^  (--[a-z-]+)", done.stdout, re.MULTILINE):
        assert re.search(rf"{option}\b", table(name)), f"{name} {option}"


def block(word: str) -> str:
    """Return the README's one Python block that holds a word."""
    (found,) = [code for code in PYTHON if word in code]
    return found


def table(name: str) -> str:
    """Return the README's table of a command's options."""
    start = TEXT.index("| option | meaning |" if name == "seg-infer" else f"| `{name}` option |")
    return TEXT[start : TEXT.index("\n\n", start)]
