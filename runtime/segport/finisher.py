"""The third stage of a run: from logits to what was found, and to pictures in files that have no names yet."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segport.components import keep_regions
from segport.entry import Entry, Found, Stamp
from segport.errors import SliceError
from segport.maskrule import MaskRule
from segport.outcome import Computed, Loaded, Staged, stage_failure
from segport.outputs import encode_png, stage_bytes
from segport.overlay import draw_heat, draw_outlines
from segport.plan import HEAT, MASK, OVERLAY, PROBABILITY, Job
from segport.preprocess import restore, sigmoid, to_display, to_mask
from segport.reading import read_slice, read_truth
from segport.regions import measure_regions
from segport.scoring import compare_masks
from segport.settings import RunSettings
from segport.sources import Slice
from segport.workspace import Workspace


class Finisher:
    """Finishes slices. May be called from threads."""

    def __init__(self, rule: MaskRule, settings: RunSettings, workspace: Workspace) -> None:
        self._rule, self._settings, self._workspace = rule, settings, workspace

    def finish(self, computed: Computed) -> Staged[Job]:
        """Return a slice's staged outputs. Raises `OutputError`."""
        loaded, job = computed.loaded, computed.loaded.outcome.job
        if not loaded.writable:
            return Staged(loaded.outcome, record=False)
        logits = restore(computed.logits, loaded.shape)
        whole = to_mask(logits, self._rule.threshold)
        mask = whole if computed.kept is None else keep_regions(whole, computed.kept)
        left_out = cv2.countNonZero(whole) - cv2.countNonZero(mask)
        found = Found(loaded.shape, *_tumour(mask, logits), measure_regions(mask), left_out=left_out)
        entry, truth = loaded.outcome.entry, None
        try:
            if self._settings.score and job.slice.mask is not None:
                truth, found, entry = _score(job.slice, job.slice.mask, mask, found, entry)
            pictures = self._pictures(loaded, logits, mask, truth)
        except SliceError as error:
            return stage_failure(loaded.outcome, str(error), loaded.before, entry.read)
        files, stamps = {}, {}
        for ending in job.endings(self._settings):
            files[ending] = self._workspace.temporary()
            stamps[ending] = stage_bytes(files[ending], encode_png(pictures[ending]))
        entry = replace(entry, status="written", found=found, outputs=stamps)
        older = loaded.before.outputs if loaded.before is not None else {}
        return Staged(replace(loaded.outcome, entry=entry), files, frozenset(older) - frozenset(stamps))

    def _pictures(
        self, loaded: Loaded, logits: NDArray[np.float32], mask: NDArray[np.uint8], truth: NDArray[np.uint8] | None
    ) -> dict[str, NDArray[Any]]:
        """Return the outputs by ending. A slice that is drawn is read again rather than kept: memory stays flat."""
        pictures: dict[str, NDArray[Any]] = {MASK: mask}
        wanted = loaded.outcome.job.endings(self._settings)
        if PROBABILITY in wanted:
            probability = sigmoid(logits)
            pictures[PROBABILITY] = np.rint(probability * 65535).astype(np.uint16)
        if OVERLAY in wanted:
            path, read = loaded.outcome.job.slice.path, loaded.outcome.entry.read
            display = to_display(read_slice(path), loaded.window)
            if read is None or not read.is_of(path, verify=False) or display.shape[:2] != mask.shape:
                raise SliceError("changed while it was segmented; run the command again")
            pictures[OVERLAY] = draw_outlines(display, mask, truth)
            if HEAT in wanted:
                pictures[HEAT] = draw_heat(display, probability)
        return pictures


def _tumour(mask: NDArray[np.uint8], logits: NDArray[np.float32]) -> tuple[int, float]:
    """Return the number of tumour pixels and their mean probability, 0 where there is none."""
    inside = logits[mask > 0]
    return inside.size, round(float(sigmoid(inside).mean()), 4) if inside.size else 0.0


def _score(
    item: Slice, mask_file: Path, mask: NDArray[np.uint8], found: Found, entry: Entry
) -> tuple[NDArray[np.uint8] | None, Found, Entry]:
    """Return the true mask and what was found and entered, with the scores; a truth that does not fit is a message."""
    try:
        try:
            entry = replace(entry, truth=Stamp.of(mask_file))
        except OSError as error:
            raise SliceError(f"its mask {mask_file.name} cannot be read ({error.strerror})") from error
        truth = read_truth(item, mask.shape)
    except SliceError as error:
        return None, found, replace(entry, message=f"not scored: {error}")
    return truth, replace(found, agreement=compare_masks(mask, truth)), entry
