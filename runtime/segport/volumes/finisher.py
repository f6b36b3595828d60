"""The third stage of a volume: from logits to a mask in the stored order, and to files that have no names yet."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from segport.components import connect, keep_regions
from segport.entry import Found, FoundVolume, Stamp
from segport.errors import SliceError
from segport.folders import VOLUME_SHEET
from segport.maskrule import MaskRule
from segport.outcome import Staged, stage_failure
from segport.outputs import encode_png, stage_bytes
from segport.preprocess import restore, sigmoid, to_display, to_mask
from segport.regions import measure_regions
from segport.scoring import compare_masks
from segport.settings import RunSettings
from segport.sheet import choose_slices, contact_sheet, draw_tile
from segport.volumes.case import ModelName
from segport.volumes.job import VolumeJob
from segport.volumes.loader import TOO_LARGE, LoadedVolume
from segport.volumes.volume import Volume
from segport.workspace import Workspace

Mask = NDArray[np.uint8]


class VolumeFinisher:
    """Finishes volumes."""

    def __init__(self, rule: MaskRule, settings: RunSettings, workspace: Workspace, model: ModelName) -> None:
        self._rule, self._settings, self._workspace, self._model = rule, settings, workspace, model

    def finish(self, loaded: LoadedVolume, small: NDArray[np.float32]) -> Staged[VolumeJob]:
        """Return a volume's staged outputs. `small`: its logits, float32 [slices, size, size]. Raises `OutputError`."""
        volume, job, entry = loaded.volume, loaded.outcome.job, loaded.outcome.entry
        restored = np.stack([restore(one, volume.shape[1:], volume.spacing) for one in small])
        whole = np.stack([to_mask(one, self._rule.threshold) for one in restored])
        mask, volumes = self._keep_components(whole, volume.view.voxel_volume)
        try:
            truth, stamp, message = self._truth(job, volume)
            slices = tuple(_found(*one) for one in zip(whole, mask, restored, truth, strict=True))
            probability = volume.view.stored(sigmoid(restored)) if self._settings.probabilities else None
            one_or_none = np.ascontiguousarray(volume.view.stored(mask > 0), np.uint8)
            files = job.case.encode(one_or_none, probability, self._model)  # type: ignore[arg-type]
        except SliceError as error:
            return stage_failure(loaded.outcome, str(error), loaded.before, entry.read)
        except MemoryError:
            return stage_failure(loaded.outcome, TOO_LARGE, loaded.before, entry.read)
        if self._settings.overlay:
            files[VOLUME_SHEET] = encode_png(_sheet(volume, mask, truth))
        staged, stamps = {}, {}
        for ending in job.endings(self._settings):
            staged[ending] = self._workspace.temporary()
            stamps[ending] = stage_bytes(staged[ending], files[ending])
        sizes = len(volumes), sum(volumes), max(volumes, default=0.0)
        found = FoundVolume(slices, loaded.warnings, volume.view.spacing, *sizes, (*job.case.notes, *volume.notes))
        entry = replace(entry, status="written", message=message, truth=stamp, found_volume=found, outputs=stamps)
        older = loaded.before.outputs if loaded.before is not None else {}
        return Staged(replace(loaded.outcome, entry=entry), staged, frozenset(older) - frozenset(stamps))

    def _keep_components(self, mask: Mask, voxel_volume: float) -> tuple[Mask, list[float]]:
        """Return the mask without components that are too small, and the volumes of the others in mm3."""
        components = connect(mask)
        volumes = components.pixels * voxel_volume
        kept = components.are_large(self._rule.smallest_component) & (volumes >= (self._settings.min_volume or 0.0))
        pairs = zip(mask, components.regions, strict=True)
        return np.stack([keep_regions(one, kept[regions]) for one, regions in pairs]), volumes[kept].tolist()

    def _truth(self, job: VolumeJob, volume: Volume) -> tuple[list[Mask | None], Stamp | None, str]:
        """Return each slice's true mask, its file's stamp, and why a mask that is there cannot be used."""
        nothing: list[Mask | None] = [None] * volume.shape[0]
        if not self._settings.score or job.truth is None:
            return nothing, None, ""
        stamp: Stamp | None = None
        try:
            stamp = Stamp.of(job.truth)
            truth = job.case.read_truth()
        except OSError as error:
            return nothing, stamp, f"not scored: its mask {job.truth.name} cannot be read ({error.strerror})"
        except SliceError as error:
            return nothing, stamp, f"not scored: {error}"
        return (nothing if truth is None else list(np.asarray(volume.view.slices(truth), np.uint8))), stamp, ""


def _found(whole: Mask, mask: Mask, logits: NDArray[np.float32], truth: Mask | None) -> Found:
    inside = logits[mask > 0]
    probability = round(float(sigmoid(inside).mean()), 4) if inside.size else 0.0
    agreement = None if truth is None else compare_masks(mask, truth)
    left_out = int(np.count_nonzero(whole)) - inside.size
    return Found(mask.shape, inside.size, probability, measure_regions(mask), agreement, left_out)


def _sheet(volume: Volume, mask: Mask, truth: list[Mask | None]) -> NDArray[np.uint8]:
    chosen = choose_slices(len(mask))

    def tiles() -> Iterator[NDArray[np.uint8]]:
        for i in chosen:
            yield draw_tile(to_display(volume.pixels(i), volume.window), mask[i], truth[i])

    return contact_sheet(tiles(), [str(i + 1) for i in chosen])
