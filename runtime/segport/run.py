"""One run of the command: plan, segment, and leave tables and run.json behind, whatever happens."""

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from segport import __version__
from segport.deaths import record_deaths
from segport.errors import OutputError
from segport.folders import typed_path
from segport.freshness import Freshness
from segport.ledger import LEDGER, Ledger
from segport.outcome import Outcome
from segport.outputs import csv_line, encode_json, rename, stage_bytes
from segport.pipeline import READERS, FolderSegmenter
from segport.plan import PATIENTS, RUN, SUMMARY, Job, Plan
from segport.report.claim import refuse_others_report
from segport.result import RunResult
from segport.scoring import Scores, score_patients
from segport.segmenter import Segmenter
from segport.settings import RunSettings
from segport.sheet_writer import SheetWriter
from segport.tables import GrowingTable, patient_header, patient_rows, summary_header, summary_row
from segport.workspace import Workspace, open_workspace


def run(
    plan: Plan,
    settings: RunSettings,
    segmenter: Segmenter,
    tick: Callable[[Outcome], object] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    drawing: Callable[[int], object] = lambda _: None,
) -> RunResult:
    """Segment what the ledger of the output folder does not name as done; `tick` is called after each slice.

    Once `stop` returns True no further slice is begun, and those under way are finished. The tables and run.json are
    written also when the run ends early, for the slices that were come to; the report page is not. `drawing` is told
    how many slices of a patient go into the report next. Raises `OutputError` (another run is
    writing there, its files are another's, the disk is full) and `ModelError` when inference fails.
    """
    started, date = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    result = RunResult(plan.out, segmenter.session.provider, segmenter.session.note)
    if not (plan.out / LEDGER).exists():
        with closing(Ledger(plan.out, writable=False)) as ledger:
            refuse_others_results(plan, settings, ledger)  # before anything is left in a folder that is not ours
    with open_workspace(plan.out, READERS) as workspace, closing(_open_ledger(plan.out, workspace)) as ledger:
        refuse_others_results(plan, settings, ledger)
        ledger.begin_run(plan.inputs, plan.roots)
        result.ledger_lines_unusable = ledger.unusable
        freshness = Freshness(ledger, plan, settings, segmenter.model, segmenter.contract, workspace)

        def describe() -> bytes:
            seconds = time.monotonic() - started
            return encode_json(_document(result, segmenter, settings, plan, freshness, date, seconds))

        _write(workspace, plan.out / RUN, describe())  # not finished yet
        table = GrowingTable(workspace.temporary(), summary_header(settings))

        def leave() -> None:
            table.close()
            rename(table.path, plan.out / SUMMARY, of_slice=False)
            lines = [csv_line(patient_header(settings)), *map(csv_line, patient_rows(result.patients, settings))]
            _write(workspace, plan.out / PATIENTS, b"".join(lines))
            _write(workspace, plan.out / RUN, describe())

        try:
            sheets = SheetWriter(plan, settings, freshness, ledger, workspace, lambda why: result.complain("", why))
            folder_segmenter = FolderSegmenter(segmenter, settings, freshness, ledger, workspace, plan.out)
            with closing(folder_segmenter.segment(_jobs(plan, result, stop))) as outcomes:  # type: ignore[type-var]  # a generator
                for outcome in outcomes:
                    table.add(summary_row(outcome, settings))
                    result.add(outcome, settings)
                    if settings.overlay:
                        sheets.add(outcome)
                    tick(outcome)
            sheets.finish()
            result.finished = not result.stopped
            result.scores = _scores(result) if settings.score else None
        except BaseException:
            with suppress(OutputError):  # what ended the run is what is reported
                leave()
            raise
        leave()
        if settings.report and result.finished:
            _write_report(result, plan, settings, workspace, stop, drawing)
    return result


def _write_report(
    result: RunResult,
    plan: Plan,
    settings: RunSettings,
    workspace: Workspace,
    stop: Callable[[], bool],
    drawing: Callable[[int], object],
) -> None:
    from segport.report.later import write_run_report  # here: templates are needed for nothing else

    def ask(slices: int) -> bool:
        drawing(slices)
        return stop()

    result.report = write_run_report(plan, settings, workspace, ask)
    result.stopped = result.report is None


def _jobs(plan: Plan, result: RunResult, stop: Callable[[], bool]) -> Iterator[Job]:
    for folder in plan.folders():
        result.ignored += folder.ignored
        if not folder.readable:
            result.unreadable += 1
            result.complain(str(folder.path), "the folder cannot be listed; are its permissions right?")
        for job in folder.jobs:
            if stop():
                result.stopped = True
                return
            yield job


def refuse_others_results(plan: Plan, settings: RunSettings, ledger: Ledger) -> None:
    """Raise `OutputError` where the tables of the output folder are not of an earlier run over the same inputs."""
    if settings.report:
        refuse_others_report(plan.out, ledger, overwrite=settings.overwrite)
    if settings.overwrite:
        return
    there = [name for name in (SUMMARY, PATIENTS, RUN) if (plan.out / name).exists()]
    if there and not ledger.path.exists():
        raise OutputError(
            f"{plan.out}: holds {there[0]}, which this run would replace, and no {LEDGER} that says who wrote it;"
            " remedy: another --out, or --overwrite to replace it"
        )
    if ledger.inputs not in (None, plan.inputs):
        raise OutputError(
            f"{plan.out}: holds the results of another run, over {', '.join(ledger.inputs or [])}; its tables would be"
            " replaced; remedy: another --out, or --overwrite"
        )


def _open_ledger(out: Path, workspace: Workspace) -> Ledger:
    """Return the ledger, in which are the slices that were being read when the last process ended by force."""
    ledger = Ledger(out, writable=True)
    if not workspace.died:
        return ledger
    with closing(ledger):
        record_deaths(ledger, workspace)
    return Ledger(out, writable=True)  # it finds what was there when it was opened


def _write(workspace: Workspace, path: Path, data: bytes) -> None:
    file = workspace.temporary()
    stage_bytes(file, data)
    rename(file, path, of_slice=False)


def _scores(result: RunResult) -> Scores | None:
    agreements = {name: p.agreement for name, p in result.patients.items() if p.agreement is not None}
    if not agreements:
        return None
    slices = sum(p.scored for p in result.patients.values())
    counts = {name: agreement.counts for name, agreement in agreements.items()}
    return score_patients(counts, slices, [agreement.hd95 for agreement in agreements.values()])


def _document(
    result: RunResult,
    segmenter: Segmenter,
    settings: RunSettings,
    plan: Plan,
    freshness: Freshness,
    date: str,
    seconds: float,
) -> dict[str, Any]:
    golden = segmenter.contract.golden
    contract = replace(segmenter.contract, golden=golden and replace(golden, logits="(left out)"))
    return {
        "finished": result.finished,
        "inputs": plan.inputs,
        "started": date,
        "model": {"file": segmenter.model.name, "sha256": freshness.model},
        "device_asked": segmenter.session.asked,
        "provider": result.provider,
        "provider_note": result.note,
        "provider_facts": segmenter.session.facts,
        "threads": segmenter.session.threads,
        "lanes": segmenter.session.lanes,
        "batch_size": segmenter.session.batch or settings.batch_size,
        "settings": {k: str(typed_path(v)) if isinstance(v, Path) else v for k, v in asdict(settings).items()},
        "counts": {
            "planned": result.written + result.failed,
            **{n: getattr(result, n) for n in ("written", "up_to_date", "failed", "unscored", "unreadable", "ignored")},
        },
        "ledger_lines_unusable": result.ledger_lines_unusable,
        "problems": [{"path": path, "message": message} for path, message in result.problems + result.general],
        "unlike_training_data": {"slices": result.unlike, "reasons": dict(result.warnings)},
        "scores": asdict(result.scores) if result.scores else None,
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
