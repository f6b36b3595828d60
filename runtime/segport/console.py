"""What seg-infer tells people while it runs and afterwards, and how they stop it."""

import sys
from contextlib import suppress
from threading import Event, Thread
from types import TracebackType

import click
from tqdm import tqdm

from segport.interruption import Interruption
from segport.outcome import Outcome
from segport.plan import SUMMARY, Plan
from segport.result import RunResult
from segport.scoring import Scores
from segport.settings import RunSettings
from segport.text import printable, printable_lines
from segport.work import Work


class Console:
    """Progress on stderr, and a clean stop on Ctrl+C: slices under way are finished. A second one stops at once."""

    def __init__(self, plan: Plan | None, settings: RunSettings, *, quiet: bool) -> None:
        """`plan`: whose slices are counted for the bar; None to count none."""
        self._plan, self._settings = plan, settings
        self._interruption, self._ended, self._drawing = Interruption(), Event(), False
        self._bar = tqdm(unit="mask", disable=True if quiet else None, dynamic_ncols=True)

    def __enter__(self) -> "Console":
        self._interruption.__enter__()
        if not self._bar.disable and self._plan is not None:
            Thread(target=self._count, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._bar.close()
        self._interruption.__exit__(kind, error, at)

    def tick(self, outcome: Outcome[Work]) -> None:
        """Move the bar, and say at once what failed."""
        self._bar.update()
        entry = outcome.entry
        if entry.message:
            kind = "" if entry.status == "written" else "failed: "
            tqdm.write(printable(f"{kind}{outcome.job.shown}: {entry.message}"), file=sys.stderr)
        for note in entry.found_volume.notes if entry.found_volume is not None and outcome.reason else ():
            tqdm.write(printable(f"{outcome.job.shown}: {note}"), file=sys.stderr)

    def draw(self, slices: int) -> None:
        """Move the bar of the report, which begins anew."""
        if not self._drawing:
            self._drawing = True
            self._bar.reset(self._bar.total)
            self._bar.set_description("report")
        self._bar.update(slices)

    def stop(self) -> bool:
        """Return whether the user wants the run to end."""
        return self._interruption.asked

    def say_problems(self, result: RunResult) -> None:
        """Say what has not been said slice by slice; the last line is what must not be overlooked."""
        for path, why in result.general:
            print(printable(f"failed: {path}: {why}" if path else why), file=sys.stderr)
        if result.exit_code == 130:
            print("interrupted; what was written is whole; run it again to go on", file=sys.stderr)
        if result.note and self._settings.device == "cuda":
            print(result.note, file=sys.stderr)

    def _count(self) -> None:
        """Count the slices for the bar, beside the run: it does not wait for the listing of a large tree."""
        assert self._plan is not None
        total = len(self._plan.volumes.jobs)
        with suppress(OSError):
            for folder in self._plan.folders():
                total += folder.slices
                if self._ended.is_set() or self.stop():
                    return
            self._bar.total = total


def summarise(result: RunResult, settings: RunSettings) -> str:
    """Return what a run did, for people."""
    done = f", {result.up_to_date} of them up to date before" if result.up_to_date else ""
    folder = click.format_filename(result.out)
    lines = [f"{_counted(result.written, 'mask')} in {folder}{done} ({result.failed} failed, {result.ignored} ignored)"]
    lines += [f"skipped: {_counted(count, 'DICOM file')} ({why})" for why, count in sorted(result.skipped.items())]
    if settings.overlay:
        slices = any(not is_volume for _, is_volume in result.patients)
        pictures = "*_overlay.png, *_sheet.png" if slices else "*_volume_sheet.png"
        lines.append(f"pictures beside them: {pictures} (red: mask{', green: truth' if settings.score else ''})")
    if result.report is not None:
        lines.append(f"report: {click.format_filename(result.report)}")
    elif result.outdated_report:
        lines.append(f"the report in it shows an earlier run; seg-infer --report-only {folder} makes it anew")
    if result.left_out:
        lines.append(
            f"small components were left out of {_counted(result.left_out, 'slice')}: left_out_pixels in {SUMMARY}"
        )
    if result.unlike:
        reasons = "; ".join(f"{why} ({n})" for why, n in result.warnings.most_common())
        lines.append(f"unlike the training data: {_counted(result.unlike, 'slice')}: {reasons}")
    if settings.score:
        lines.append(_describe_scores(result.scores))
    return printable_lines("\n".join(lines))


def _describe_scores(scores: Scores | None) -> str:
    if scores is None:
        return "no slice has a true mask to score against"
    distance = "" if scores.hd95_mean_per_patient is None else f"; HD95 {scores.hd95_mean_per_patient:.1f} pixels"
    return (
        f"Dice pooled {scores.dice_pooled:.4f}, mean per patient {scores.dice_mean_per_patient:.4f},"
        f" median {scores.dice_median_per_patient:.4f}; IoU pooled {scores.iou_pooled:.4f}{distance}\n"
        f"accuracy {scores.accuracy:.4f}, where predicting nothing scores {scores.nothing_accuracy:.4f}"
        f" ({_counted(scores.patients, 'patient')}, {_counted(scores.slices, 'slice')})"
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
