"""Exports of the shared training, made once; and graphs that were tampered with."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from segport_export.cli import main
from segport_export.parity import Reference
from segport_export.rundata import RunData
from segport_export.subjects import parity_slices
from segport_train.checkpoint import load_network
from tampering import Change


@pytest.fixture(scope="session")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return models that passed, by precision."""
    folder = tmp_path_factory.mktemp("models")
    paths = {precision: folder / f"{precision}.onnx" for precision in ("fp32", "int8")}
    for precision, path in paths.items():
        assert main([str(trained / "best.safetensors"), "--out", str(path), "--precision", precision]) == 0
    return paths


@pytest.fixture(scope="session")
def reference(trained: Path) -> Reference:
    """Return the shared training's network on the shipped synthetic slices and the hostile ones."""
    network, contract = load_network(trained / "best.safetensors")
    return Reference(network, contract, parity_slices(RunData.beside(Path("nowhere/x")), None, contract))


@pytest.fixture
def tampered(exported: dict[str, Path], tmp_path: Path) -> Callable[[Change], Path]:
    """Return a function that copies the fp32 model with a change to its graph, contract kept."""

    def tamper(change: Change) -> Path:
        model = onnx.load(exported["fp32"])
        change(model)
        onnx.save(model, tmp_path / "tampered.onnx")
        return tmp_path / "tampered.onnx"

    return tamper
