"""The first stage of a run: reads and prepares a slice where it has to be segmented."""

from dataclasses import replace
from datetime import UTC, datetime

from segport.contract import ModelContract
from segport.entry import Entry, Stamp
from segport.errors import SliceError
from segport.freshness import Freshness, Verdict
from segport.outcome import Loaded, Outcome, Staged, stage_failure
from segport.plan import Job
from segport.plausibility import unlike_training
from segport.preprocess import Pixels, Window, prepare
from segport.reading import read_stamped
from segport.settings import RunSettings


class Loader:
    """Loads slices. May be called from as many threads as the workspace has readers."""

    def __init__(self, contract: ModelContract, settings: RunSettings, freshness: Freshness) -> None:
        self._contract, self._settings, self._freshness = contract, settings, freshness

    def load(self, job: Job, verdict: Verdict) -> Loaded | Staged[Job]:
        """Return a slice for the network, or what there is to say of one that needs it not, or cannot be used."""
        if verdict.kind == "fresh" and verdict.entry is not None:
            # a message on what is written is on its score
            entry = verdict.entry if self._settings.score else replace(verdict.entry, message="")
            return Staged(Outcome(job, entry), record=False)
        outcome = Outcome(job, self._entry(job, verdict), verdict.reason)
        refused = Staged(outcome, record=False) if verdict.kind == "refused" else None
        if refused is not None and not verdict.stack:
            return refused
        read: Stamp | None = None
        try:
            data, read = read_stamped(job.slice.path)
            pixels = self._freshness.reader.decode(job.slice.path, data)
            window, volume = self._window(job, pixels)
            prepared = prepare(pixels, self._contract, window)
        except SliceError as error:
            return refused or stage_failure(outcome, str(error), verdict.entry, read)
        warnings = unlike_training(pixels, prepared, self._contract)
        entry = replace(outcome.entry, read=read, volume=volume, warnings=warnings)
        outcome = replace(outcome, entry=entry)
        return Loaded(outcome, verdict.entry, pixels.shape[:2], window, prepared, writable=refused is None)

    def _window(self, job: Job, pixels: Pixels) -> tuple[Window | None, str]:
        """Return the slice's window, and the state of the patient's slices where it depends on them."""
        windows = self._freshness.windows_of(job)
        if not windows.follows_rule(pixels):
            return windows.window_of(job.slice, pixels), ""
        # before the window: should a slice change meanwhile, the next run sees another state
        volume = windows.state_of_patient(job.slice)
        window = windows.window_of(job.slice, pixels)
        # which no state is: the next run segments the patient anew
        return window, "incomplete" if windows.lacks_slices(job.slice) else volume

    def _entry(self, job: Job, verdict: Verdict) -> Entry:
        """Return the slice's entry as long as it has no outputs: it counts as failed."""
        return Entry(
            job.name,
            job.source,
            "failed",
            verdict.reason if verdict.kind == "refused" else "",
            model=self._freshness.model,
            settings=self._freshness.pixels,
            stack=verdict.stack,
            scored=self._settings.score,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )
