"""One run of the command: plan, segment, and leave summary.csv and run.json behind, whatever happens."""

import platform
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from segport import __version__
from segport.modelfile import file_sha256
from segport.outputs import write_csv, write_json
from segport.pipeline import SliceResult, segment_folder
from segport.plan import RUN, SUMMARY, Plan
from segport.scoring import Counts, Scores, score_patients
from segport.segmenter import Segmenter
from segport.settings import RunSettings

COLUMNS = ("path", "patient", "slice", "tumour_pixels", "tumour_share", "mean_probability", "status", "message")


@dataclass(frozen=True)
class RunResult:
    """What a run did; `scores` when truth was there and asked for. `unscored`: masks that could not be compared.

    `unreadable`: folders that could not be listed.
    """

    out: Path
    written: int
    failed: list[SliceResult]
    unreadable: list[Path]
    unscored: list[SliceResult]
    ignored: int
    provider: str
    note: str
    scores: Scores | None

    @property
    def exit_code(self) -> int:
        """0 when every slice was written (and scored, where asked); else 1."""
        return 1 if self.failed or self.unscored or self.unreadable else 0


def run(
    plan: Plan, settings: RunSettings, segmenter: Segmenter, tick: Callable[[SliceResult], object] = lambda _: None
) -> RunResult:
    """Segment the planned slices; `tick` is called after each. Errors as for `segment_folder`.

    summary.csv and run.json are written also when the run ends early, for the slices that were done.
    """
    started, results = time.monotonic(), list[SliceResult]()
    write_json(plan.out / RUN, {"finished": False})  # from here on what lies in the folder is this run's
    try:
        with closing(segment_folder(segmenter, plan, settings)) as stream:  # type: ignore[type-var]  # a generator
            for result in stream:
                results.append(result)
                tick(result)
    finally:
        summary = _summarise(results, plan, segmenter, settings)
        write_csv(plan.out / SUMMARY, _header(settings), [_row(r, settings) for r in results])
        write_json(plan.out / RUN, _document(summary, segmenter, settings, time.monotonic() - started, plan))
    return summary


def _summarise(results: list[SliceResult], plan: Plan, segmenter: Segmenter, settings: RunSettings) -> RunResult:
    scored = [r for r in results if r.counts is not None]
    patients: dict[str, Counts] = defaultdict(Counts)
    for r in scored:
        patients[r.job.slice.patient] += r.counts or Counts()
    return RunResult(
        out=plan.out,
        written=sum(r.status == "written" for r in results),
        failed=[r for r in results if r.status == "failed"],
        unreadable=plan.unreadable,
        unscored=[r for r in results if settings.score and r.status == "written" and r.message],
        ignored=plan.ignored,
        provider=segmenter.session.provider,
        note=segmenter.session.note,
        scores=score_patients(patients, len(scored)) if scored else None,
    )


def _header(settings: RunSettings) -> list[str]:
    return [*COLUMNS[:6], *(["dice", "iou"] if settings.score else []), *COLUMNS[6:]]


def _row(result: SliceResult, settings: RunSettings) -> list[object]:
    """Return a line of summary.csv; no timing stands in it, so that two runs give the same bytes."""
    item = result.job.slice
    row: list[object] = [result.job.stem.with_name(item.relative.name).as_posix(), item.patient]
    row.append("" if item.number is None else item.number)
    if result.status == "written":
        row += [result.tumour_pixels, f"{result.tumour_pixels / result.pixels:.6f}", f"{result.mean_probability:.4f}"]
    else:
        row += ["", "", ""]
    if settings.score:
        row += [f"{result.counts.dice:.4f}", f"{result.counts.iou:.4f}"] if result.counts else ["", ""]
    return [*row, result.status, result.message]


def _document(
    summary: RunResult, segmenter: Segmenter, settings: RunSettings, seconds: float, plan: Plan
) -> dict[str, Any]:
    golden = segmenter.contract.golden
    contract = replace(segmenter.contract, golden=golden and replace(golden, logits="(left out)"))
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(settings).items()}
    return {
        "finished": summary.written + len(summary.failed) == len(plan.jobs),
        "model": {"file": segmenter.model.name, "sha256": file_sha256(segmenter.model)},
        "provider": summary.provider,
        "provider_note": summary.note,
        "threads": segmenter.session.threads,
        "batch_size": segmenter.session.batch or settings.batch_size,
        "settings": plain,
        "counts": {
            "planned": len(plan.jobs),
            "written": summary.written,
            "failed": len(summary.failed),
            "ignored": summary.ignored,
        },
        "failed": [{"path": str(r.job.slice.path), "message": r.message} for r in summary.failed],
        "unreadable": [str(folder) for folder in summary.unreadable],
        "scores": asdict(summary.scores) if summary.scores else None,
        "seconds": round(seconds, 3),
        "versions": _versions(),
        "contract": asdict(contract),
    }


def _versions() -> dict[str, str]:
    found = {"segport": __version__, "python": platform.python_version()}
    for name in ("numpy", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu", "openvino"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
