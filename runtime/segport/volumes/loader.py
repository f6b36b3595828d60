"""The first stage of a volume: judged, and read and prepared where it has to be segmented."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from segport.contract import ModelContract
from segport.entry import Entry, Stamp
from segport.errors import SliceError
from segport.freshness import Freshness
from segport.outcome import Outcome, Staged, stage_failure
from segport.plausibility import unlike_training
from segport.preprocess import prepare
from segport.settings import RunSettings
from segport.volumes.job import VolumeJob
from segport.volumes.volume import Volume, read_volume

TOO_LARGE = "does not fit into memory; remedy: a machine with more, or cut the volume"


@dataclass(frozen=True, slots=True)
class LoadedVolume:
    """A volume that was read: what will be said of it, what was said `before`.

    `prepared`: its slices for the network, uint8 [size, size, 3] each; `warnings`: of each.
    """

    outcome: Outcome[VolumeJob]
    before: Entry | None
    volume: Volume
    prepared: list[NDArray[np.uint8]]
    warnings: tuple[tuple[str, ...], ...]


class VolumeLoader:
    """Loads volumes."""

    def __init__(self, contract: ModelContract, settings: RunSettings, freshness: Freshness) -> None:
        self._contract, self._settings, self._freshness = contract, settings, freshness

    def load(self, job: VolumeJob) -> LoadedVolume | Staged[VolumeJob]:
        """Return a volume for the network, or what there is to say of one that needs it not, or cannot be used."""
        verdict = self._freshness.judge(job)
        if verdict.kind == "fresh" and verdict.entry is not None:
            # a message on what is written is on its score
            entry = verdict.entry if self._settings.score else replace(verdict.entry, message="")
            return Staged(Outcome(job, entry), record=False)
        refused = verdict.kind == "refused"
        state = "" if refused else job.state()  # before it is read: a change meanwhile leaves another state
        outcome = Outcome(job, self._entry(job, verdict.reason if refused else "", state), verdict.reason)
        if refused:
            return Staged(outcome, record=False)
        read: Stamp | None = None
        try:
            read = _stamp(job)
            if job.case.problem:
                raise SliceError(job.case.problem)
            with self._freshness.reader.noted(job.source, job.case.files):
                volume = read_volume(job.case, self._contract, self._settings.window)
                prepared, warnings = [], []
                for i in range(volume.shape[0]):
                    pixels = volume.pixels(i)
                    prepared.append(prepare(pixels, self._contract, volume.window, volume.spacing))
                    warnings.append(unlike_training(pixels, prepared[-1], self._contract, volume.spacing))
        except SliceError as error:
            return stage_failure(outcome, str(error), verdict.entry, read)
        except MemoryError:
            return stage_failure(outcome, TOO_LARGE, verdict.entry, read)
        outcome = replace(outcome, entry=replace(outcome.entry, read=read))
        return LoadedVolume(outcome, verdict.entry, volume, prepared, tuple(warnings))

    def _entry(self, job: VolumeJob, message: str, state: str) -> Entry:
        """Return the volume's entry as long as it has no outputs: it counts as failed."""
        return Entry(
            job.name,
            job.source,
            "failed",
            message,
            model=self._freshness.model,
            settings=self._freshness.pixels,
            volume=state,
            scored=self._settings.score,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _stamp(job: VolumeJob) -> Stamp:
    try:
        return job.stamp()
    except OSError as error:
        raise SliceError(f"cannot be read ({error.strerror})") from error
