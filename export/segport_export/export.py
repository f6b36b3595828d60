"""From checkpoint to model file: build a candidate, prove it, and only then rename it into place."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from segport.contract import SCHEMA
from segport.errors import GateError, OutputError
from segport.golden import golden_logits, make_golden, self_test
from segport.outputs import atomic_path, write_json, write_png
from segport.preprocess import prepare
from segport.segmenter import Segmenter
from segport_export.build import Build, Candidate, embed_contract
from segport_export.junit import write_junit
from segport_export.parity import Reference, check_parity
from segport_export.report import ParityReport
from segport_export.rundata import RunData
from segport_export.sensitivity import KEPT, rank_layers
from segport_export.settings import ExportSettings
from segport_export.subjects import parity_slices
from segport_train.checkpoint import load_network

Say = Callable[[str], object]


@dataclass(frozen=True)
class ExportResult:
    """A model that passed: its path, size in bytes, exporter, rewrites, layers kept in fp32, and the figures."""

    path: Path
    size: int
    exporter: str
    rewrites: tuple[str, ...]
    kept: tuple[str, ...]
    parity: ParityReport


def export_model(settings: ExportSettings, say: Say = lambda _: None) -> ExportResult:
    """Write `settings.out` and MODEL.parity.json, once a candidate has passed the gate; `say` gets progress.

    Raises `GateError` when masks differ or prove nothing: then only MODEL.rejected.json and .png are written (the
    figures, and the worst slice), and earlier files are untouched. Raises `ModelError` for a checkpoint that is
    refused, `UsageError` without slices to calibrate on or to compare, `SliceError` for one that cannot be read.
    """
    network, contract = load_network(settings.checkpoint)
    if settings.smallest_component is not None:
        output = replace(contract.output, smallest_component=settings.smallest_component)
        contract = replace(contract, output=output, schema=SCHEMA)
    run = RunData.beside(settings.checkpoint)
    try:
        settings.out.parent.mkdir(parents=True, exist_ok=True)
        if settings.junit is not None:
            settings.junit.unlink(missing_ok=True)  # one of an earlier run would pass for this one's
    except OSError as error:
        raise OutputError(f"{error.filename}: cannot be written ({error.strerror})") from error
    with TemporaryDirectory(prefix=".seg-export-", dir=settings.out.parent) as folder:
        reference = Reference(network, contract, parity_slices(run, settings.parity, contract))
        build = Build(network, contract, settings, Path(folder))
        candidate, report, kept = _prove(build, reference, run, say)
        rejected = [settings.out.with_suffix(suffix) for suffix in (".rejected.json", ".rejected.png")]
        if report.failures:
            write_json(rejected[0], report.as_json())
            write_png(rejected[1], report.overlay)
            _write_junit(report, settings)
            raise GateError(_explain(report, settings))
        _put_in_place(candidate, report, settings.out)
        write_json(settings.out.with_suffix(".parity.json"), report.as_json())
        for path in rejected:
            path.unlink(missing_ok=True)
        _write_junit(report, settings)
    export = candidate.contract.export
    rewrites = export.rewrites if export else ()
    return ExportResult(settings.out, settings.out.stat().st_size, build.exporter, rewrites, kept, report)


def _prove(
    build: Build, reference: Reference, run: RunData, say: Say
) -> tuple[Candidate, ParityReport, tuple[str, ...]]:
    """Return the first candidate that passes, or the last that failed; int8 is tried with sensitive layers in fp32."""
    s = build.settings
    calibration = run.calibration(s.calibration, s.calibration_slices) if s.precision == "int8" else []
    displays = run.read_displays(calibration, s.calibration, build.contract)
    prepared = [prepare(display, build.contract) for display in displays]
    candidate = build.candidate(prepared)
    report = check_parity(reference, candidate.path, s.precision, budget=s.dice_budget)
    if not report.failures or s.precision != "int8" or report.proves_nothing:
        return candidate, report, ()
    say(f"int8 does not pass ({'; '.join(report.failures)}): measuring which layers cost most")
    ranked = rank_layers(build.float_graph, build.int8_graph, reference, build.folder)
    kept: tuple[str, ...] = ()
    for count in KEPT:
        kept = tuple(ranked[:count])
        say(f"trying with {count} of {len(ranked)} layers in fp32: {', '.join(kept)}")
        candidate = build.candidate(prepared, keep=kept)
        report = check_parity(reference, candidate.path, s.precision, budget=s.dice_budget)
        if not report.failures:
            break
    return candidate, report, kept


def _put_in_place(candidate: Candidate, report: ParityReport, out: Path) -> None:
    """Add parity figures and golden logits to the contract, prove the file once more, and rename it."""
    passed = Segmenter(candidate.path, device="cpu")
    golden = make_golden(passed, report.tolerance.logit, report.tolerance.flips)
    export = candidate.contract.export
    proven = replace(candidate.contract, export=export and replace(export, parity=report.for_contract()), golden=golden)
    with atomic_path(out) as final:
        embed_contract(candidate.path, final, proven)
        finished = Segmenter(final, device="cpu")
        same = np.array_equal(golden_logits(finished), golden_logits(passed))
        if not (same and self_test(finished).passed):
            raise GateError("the finished file gives other logits than the one that passed; nothing was written")


def _write_junit(report: ParityReport, settings: ExportSettings) -> None:
    if settings.junit is not None:
        write_junit(settings.junit, report, settings.out.name)


def _explain(report: ParityReport, settings: ExportSettings) -> str:
    problems = "\n".join(f"  {f}" for f in report.failures)
    kept = "; the earlier file is untouched" if settings.out.exists() else "; no file was written"
    lines = [
        f"the {report.precision} model did not pass the gate:\n{problems}",
        f"  worst slice: {report.worst_slice}",
        f"figures: {settings.out.with_suffix('.rejected.json')}, that slice: .rejected.png beside it{kept}",
    ]
    if not report.proves_nothing:
        more = f"--calibration-slices {4 * settings.calibration_slices}, --calibration DATA, or --precision fp32"
        lines.insert(
            1,
            f"  with {KEPT[-1]} sensitive layers in fp32, too; remedy: train longer, {more}"
            if report.precision == "int8"
            else "  remedy: --no-rewrite, then another --opset, show what is at fault; please report it",
        )
    return "\n".join(lines)
