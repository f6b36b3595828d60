"""From checkpoint to model file: trace, quantise, prove, and only then rename into place."""

import platform
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from segport import __version__
from segport.contract import KEY, Export, ModelContract
from segport.errors import GateError, OutputError, SliceError
from segport.golden import NAMES, golden_logits, golden_masks, golden_slices, make_golden, self_test
from segport.outputs import atomic_path, write_json
from segport.preprocess import prepare, to_display
from segport.segmenter import Segmenter
from segport.sources import read_truth
from segport_export.parity import TOLERANCES, ParityReport, ParitySlice, check_parity
from segport_export.quantize import quantize
from segport_export.rundata import RunData, read_displays
from segport_export.settings import ExportSettings
from segport_export.trace import check_form, trace
from segport_train.checkpoint import load_network


@dataclass(frozen=True)
class ExportResult:
    """A model that passed: its path, size in bytes, and the figures."""

    path: Path
    size: int
    exporter: str
    parity: ParityReport


def export_model(settings: ExportSettings) -> ExportResult:
    """Write `settings.out` and MODEL.parity.json, once the candidate has passed the gate.

    Raises `GateError` when masks differ or prove nothing: then only MODEL.rejected.json is written, with the
    figures, and earlier files are untouched. Raises `ModelError` for a checkpoint that is refused, `UsageError`
    without slices to calibrate on or to compare, `SliceError` for one that cannot be read.
    """
    network, contract = load_network(settings.checkpoint)
    run = RunData.beside(settings.checkpoint)
    try:
        settings.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{settings.out.parent}: cannot be created ({error.strerror})") from error
    with TemporaryDirectory(prefix=".seg-export-", dir=settings.out.parent) as folder:
        graph, candidate = Path(folder, "float.onnx"), Path(folder, "candidate.onnx")
        size = contract.input.size
        exporter = trace(network, size, contract.origin.output_stride, settings.opset, graph)
        calibration: dict[str, Any] = {}
        if settings.precision == "int8":
            slices = run.calibration(settings.calibration, settings.calibration_slices)
            prepared = [prepare(display, contract) for display in read_displays(slices, contract)]
            quantized = Path(folder, "int8.onnx")
            calibration = quantize(graph, quantized, prepared, contract)
            graph = quantized
        described = Export(settings.opset, exporter, settings.precision, (), _versions(), calibration)
        contract = replace(contract, export=described)
        embed_contract(graph, candidate, contract)
        check_form(onnx.load(candidate, load_external_data=False), settings.opset)
        report = check_parity(network, candidate, parity_slices(run, settings.parity, contract), settings.precision)
        rejected = settings.out.with_suffix(".rejected.json")
        if report.failures:
            write_json(rejected, report.as_json())
            raise GateError(_explain(report, settings))
        passed = Segmenter(candidate, device="cpu")
        limits = TOLERANCES[settings.precision]
        golden = make_golden(passed, limits.logit, limits.flips)
        proven = replace(contract, export=replace(described, parity=report.for_contract()), golden=golden)
        with atomic_path(settings.out) as final:
            embed_contract(candidate, final, proven)
            finished = Segmenter(final, device="cpu")
            same = np.array_equal(golden_logits(finished), golden_logits(passed))
            if not (same and self_test(finished).passed):
                raise GateError("the finished file gives other logits than the one that passed; nothing was written")
        write_json(settings.out.with_suffix(".parity.json"), report.as_json())
        rejected.unlink(missing_ok=True)
    return ExportResult(settings.out, settings.out.stat().st_size, exporter, report)


def embed_contract(source: Path, target: Path, contract: ModelContract) -> None:
    """Write `source` to `target` with this contract in `metadata_props`; raises `GateError` if the graph changed."""
    model = onnx.load(source, load_external_data=False)
    before = model.graph.SerializeToString(deterministic=True)
    kept = {p.key: p.value for p in model.metadata_props if p.key != KEY}
    onnx.helper.set_model_props(model, kept | {KEY: contract.to_json()})
    onnx.save(model, target)
    if onnx.load(target, load_external_data=False).graph.SerializeToString(deterministic=True) != before:
        raise GateError("embedding the contract changed the graph")


def parity_slices(run: RunData, folder: Path | None, contract: ModelContract) -> list[ParitySlice]:
    """Return the shipped synthetic slices, and the slices of `folder` or of the run that were not trained on.

    The synthetic masks count as truth only where there are no other slices: a Dice pooled over both says nothing.
    """
    found = run.parity(folder)
    shipped = zip(NAMES, golden_slices(), golden_masks(), strict=True)
    slices = [ParitySlice(name, to_display(pixels), None if found else mask) for name, pixels, mask in shipped]
    for item, display in zip(found, read_displays(found, contract), strict=True):
        try:
            truth = read_truth(item, display.shape) if item.mask else None
        except SliceError as error:
            raise SliceError(f"{item.path}: {error}") from error
        slices.append(ParitySlice(item.relative.as_posix(), display, truth))
    return slices


def _explain(report: ParityReport, settings: ExportSettings) -> str:
    problems = "\n".join(f"  {f}" for f in report.failures)
    kept = "; the earlier file is untouched" if settings.out.exists() else "; no file was written"
    return (
        f"the {report.precision} model did not pass the gate:\n{problems}\n"
        f"  worst slice: {report.worst_slice} (Dice {report.worst_slice_dice:.4f})\n"
        f"figures: {settings.out.with_suffix('.rejected.json')}{kept}"
    )


def _versions() -> dict[str, str]:
    names = ("torch", "onnx", "numpy")
    return {"segport": __version__, "python": platform.python_version()} | {n: version(n) for n in names}
