"""One run of the command: plan, segment, and leave tables and run.json behind, whatever happens."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from segport.committer import Committer
from segport.deaths import record_deaths
from segport.errors import OutputError
from segport.folders import LEDGER
from segport.freshness import Freshness
from segport.ledger import Ledger
from segport.maskrule import MaskRule
from segport.outcome import Outcome
from segport.outputs import csv_line, encode_json, rename, stage_bytes
from segport.pipeline import READERS, FolderSegmenter
from segport.plan import PATIENTS, RUN, SUMMARY, Job, Plan
from segport.report.claim import refuse_others_report, report_is_there
from segport.result import RunResult, describe_result, score_result
from segport.segmenter import Segmenter
from segport.settings import RunSettings
from segport.sheet_writer import SheetWriter
from segport.stacks import group_stacks
from segport.tables import GrowingTable, patient_rows, summary_header, summary_rows
from segport.volumes.job import VolumeJob
from segport.work import Work
from segport.workspace import Workspace, open_workspace

T = TypeVar("T")

UNLISTED = "the folder cannot be listed; are its permissions right?"


def run(
    plan: Plan,
    settings: RunSettings,
    segmenter: Segmenter,
    tick: Callable[[Outcome[Work]], object] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    drawing: Callable[[int], object] = lambda _: None,
) -> RunResult:
    """Segment what the ledger of the output folder does not name as done; `tick` is called after each slice.

    Once `stop` returns True no further slice (or stack of slices) is begun, and those under way are finished. The
    tables and run.json are written also when the run ends early, for the slices that were come to; the report page is
    not. `drawing` is told how many slices of a patient go into the report next. Raises `OutputError` (another run is
    writing there, its files are another's, the disk is full) and `ModelError` when inference fails.
    """
    started, date = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    result = _begin(plan, segmenter)
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
            return encode_json(describe_result(result, segmenter, settings, plan, freshness, date, seconds))

        _write(workspace, plan.out / RUN, describe())  # not finished yet
        table = GrowingTable(workspace.temporary(), summary_header(settings))

        def take(outcome: Outcome[Job] | Outcome[VolumeJob]) -> None:
            for row in summary_rows(outcome, settings):
                table.add(row)
            result.add(outcome, settings)
            tick(outcome)

        def leave() -> None:
            table.close()
            rename(table.path, plan.out / SUMMARY, of_slice=False)
            rows = patient_rows(result.patients, settings, volumes=bool(plan.volumes.jobs))
            _write(workspace, plan.out / PATIENTS, b"".join(map(csv_line, rows)))
            _write(workspace, plan.out / RUN, describe())

        rule, size = MaskRule.of(settings, segmenter.contract), segmenter.contract.input.size
        try:
            sheets = SheetWriter(plan, settings, freshness, ledger, workspace, lambda why: result.complain("", why))
            parts = (segmenter, settings, freshness, workspace, Committer(ledger, plan.out))
            with closing(_segment_slices(_stacks(plan, result, stop, rule, size), sheets, *parts)) as outcomes:
                deque(map(take, outcomes), 0)
            with closing(_segment_volumes(_until(stop, plan.volumes.jobs, result), *parts)) as volumes:
                deque(map(take, volumes), 0)
            result.finished = not result.stopped
            result.scores = score_result(result) if settings.score else None
        except BaseException:
            with suppress(OutputError):  # what ended the run is what is reported
                leave()
            raise
        result.outdated_report = report_is_there(plan.out, ledger) and result.written > result.up_to_date
        leave()
        if settings.report and result.finished:
            _write_report(result, plan, settings, workspace, stop, drawing)
    return result


def _begin(plan: Plan, segmenter: Segmenter) -> RunResult:
    """Return a result that knows what listing the volumes found."""
    listing = plan.volumes
    result = RunResult(plan.out, segmenter.session.provider, segmenter.session.note, skipped=listing.skipped)
    for what, why in listing.problems:
        result.complain(what, why)
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


def _stacks(plan: Plan, result: RunResult, stop: Callable[[], bool], rule: MaskRule, size: int) -> Iterator[list[Job]]:
    """Yield slices that are judged together, or one each; a stack that was begun is whole when the user stops."""
    for folder in plan.folders():
        result.ignored += folder.others
        if not folder.readable:
            result.unreadable += 1
            result.complain(str(folder.path), UNLISTED)
        yield from _until(stop, group_stacks(folder.jobs, rule, size), result)
        if result.stopped:
            break
    # files of volumes were counted with the others of their folders; of a run that was stopped, not all were
    result.ignored = max(0, result.ignored - plan.volumes.used - plan.volumes.skipped.total())


def _segment_slices(
    stacks: Iterator[list[Job]], sheets: SheetWriter, segmenter: Segmenter, settings: RunSettings, *parts: Any
) -> Generator[Outcome[Job]]:
    """Segment slices; draw the patients' sheets where overlays are asked for, else remove those that are outdated."""
    with closing(FolderSegmenter(segmenter, settings, *parts).segment(stacks)) as outcomes:  # type: ignore[type-var]  # a generator
        for outcome in outcomes:
            yield outcome
            (sheets.add if settings.overlay else sheets.drop)(outcome)
    sheets.finish()


def _segment_volumes(jobs: Iterator[VolumeJob], *parts: Any) -> Generator[Outcome[VolumeJob]]:
    """Segment volumes where there are any: what reads them is imported then, since it needs the extra medical."""
    for first in jobs:
        from segport.volumes.pipeline import VolumeSegmenter

        yield from VolumeSegmenter(*parts).segment(chain([first], jobs))


def _until(stop: Callable[[], bool], jobs: Iterable[T], result: RunResult) -> Iterator[T]:
    for job in jobs:
        if stop():
            result.stopped = True
            return
        yield job


def refuse_others_results(plan: Plan, settings: RunSettings, ledger: Ledger) -> None:
    """Raise `OutputError` where the tables of the output folder are of inputs that this run does not have."""
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
    if ledger.inputs is not None and not _goes_on(ledger.inputs, plan.inputs):
        raise OutputError(
            f"{plan.out}: holds the results of another run, over {', '.join(ledger.inputs or [])}; its tables would be"
            " replaced; remedy: another --out, or --overwrite"
        )


def _goes_on(before: list[str], now: list[str]) -> bool:
    """Return whether every row that tables over `before` have is in tables over `now` again.

    A single input's outputs lie elsewhere than if it were one of several.
    """
    return set(before) == set(now) or (len(before) > 1 and set(before) < set(now))


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
