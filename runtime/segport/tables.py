"""The tables a run leaves: summary.csv with a row a slice, patients.csv with a row a patient.

No timing stands in them, and a row of a slice is made from its ledger entry alone: two runs give the same bytes,
whether they were interrupted or not.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from segport.entry import Entry, Found, FoundVolume
from segport.errors import OutputError
from segport.outcome import Outcome
from segport.outputs import csv_line
from segport.plan import Job
from segport.scoring import Agreement
from segport.settings import RunSettings
from segport.volumes.job import VolumeJob

# What a score of empty masks is stands in the header, where it is read.
DICE, IOU = "dice_1_if_both_empty", "iou_1_if_both_empty"
HD95 = "hd95_px_0_if_both_empty_diagonal_if_one"
FOUND = ("tumour_pixels", "tumour_share", "mean_probability", "components", "largest_component", "left_out_pixels")
VOLUME = ["tumour_volume_mm3", "components_3d", "largest_component_mm3"]
VOLUME += ["pixel_height_mm", "pixel_width_mm", "slice_distance_mm", "notes"]
PLACE = ("box_left", "box_top", "box_width", "box_height", "centroid_x", "centroid_y")


def summary_header(settings: RunSettings) -> list[str]:
    """Return the header of summary.csv."""
    scores = [DICE, IOU, HD95] if settings.score else []
    return ["path", "patient", "slice", *FOUND, *PLACE, *scores, "status", "warning", "message"]


def summary_rows(outcome: Outcome[Job | VolumeJob], settings: RunSettings) -> Iterator[list[object]]:
    """Yield the row of one slice, or of each axial slice of a volume, from the feet to the head; of a failed one, one.

    A volume's slices are counted from 1. Their rows and columns are as the network saw them: `volumes.geometry`.
    """
    job, entry = outcome.job, outcome.entry
    if isinstance(job, Job):
        number = "" if job.slice.number is None else job.slice.number
        yield [job.row_path, job.patient, number, *_findings(entry, entry.found, entry.warnings, settings)]
    elif entry.found_volume is None:
        yield [job.stem.as_posix(), job.patient, "", *_findings(entry, None, (), settings)]
    else:
        pairs = zip(entry.found_volume.slices, entry.found_volume.warnings, strict=True)
        for number, (found, warnings) in enumerate(pairs, 1):
            yield [job.stem.as_posix(), job.patient, number, *_findings(entry, found, warnings, settings)]


def _findings(entry: Entry, found: Found | None, warnings: tuple[str, ...], settings: RunSettings) -> Iterator[object]:
    if found is None:
        yield from [""] * (len(FOUND) + len(PLACE) + 3 * settings.score)
    else:
        yield from _found(found)
        yield from _scores(found) if settings.score else []
    yield from (entry.status, "; ".join(warnings), entry.message)


def _found(found: Found) -> list[object]:
    share = found.tumour_pixels / (found.shape[0] * found.shape[1])
    regions = found.regions
    centre = ("", "") if regions.centroid is None else tuple(f"{c:.2f}" for c in regions.centroid)
    numbers = [found.tumour_pixels, f"{share:.6f}", f"{found.mean_probability:.4f}"]
    return [*numbers, regions.components, regions.largest, found.left_out, *(regions.box or [""] * 4), *centre]


def _scores(found: Found) -> list[object]:
    if found.agreement is None:
        return ["", "", ""]
    return _score_cells(found.agreement)


def _score_cells(agreement: Agreement) -> list[object]:
    counts = agreement.counts
    return [f"{counts.dice:.4f}", f"{counts.iou:.4f}", f"{agreement.hd95 or 0:.3f}"]


@dataclass(slots=True)
class PatientTotals:
    """Sums over one patient's slices. `scored`: slices that agreement with a true mask was measured on."""

    slices: int = 0
    failed: int = 0
    positive: int = 0
    tumour_pixels: int = 0
    scored: int = 0
    agreement: Agreement | None = None
    volume: FoundVolume | None = None

    def add(self, entry: Entry) -> None:
        """Count one slice in, or all of a volume."""
        if entry.found_volume is not None:
            self.volume = entry.found_volume
            for found in entry.found_volume.slices:
                self._add(found)
        else:
            self._add(entry.found)

    def _add(self, found: Found | None) -> None:
        self.slices += 1
        if found is None:
            self.failed += 1
            return
        self.positive += found.tumour_pixels > 0
        self.tumour_pixels += found.tumour_pixels
        if found.agreement is not None:
            self.agreement = (self.agreement or Agreement()) + found.agreement
            self.scored += 1


def patient_rows(
    patients: Mapping[tuple[str, bool], PatientTotals], settings: RunSettings, *, volumes: bool
) -> Iterator[list[object]]:
    """Yield the header of patients.csv, and the row of each patient. `volumes`: whether the run has any.

    Area: of all slices' tumour; volume of slices: area times their distance.
    """
    space = ["tumour_area_mm2", "tumour_volume_ml"] if settings.spacing else []
    space += VOLUME if volumes else []
    scores = [DICE, IOU, "hd95_px_mean_over_slices_with_tumour"] if settings.score else []
    yield ["patient", "slices", "failed", "positive_slices", "tumour_pixels", *space, *scores]
    for (name, _), totals in patients.items():
        row: list[object] = [name, totals.slices, totals.failed, totals.positive, totals.tumour_pixels]
        if settings.spacing:
            height, width, distance = settings.spacing
            area = totals.tumour_pixels * height * width
            own = totals.volume is not None  # which has its own spacing
            row += ["", ""] if own else [f"{area:.2f}", f"{area * distance / 1000:.4f}"]
        if volumes:
            row += _volume(totals.volume)
        if settings.score:
            row += ["", "", ""] if totals.agreement is None else _score_cells(totals.agreement)
        yield row


def _volume(found: FoundVolume | None) -> list[object]:
    if found is None:
        return [""] * len(VOLUME)
    height, width, distance = found.spacing
    lengths = [f"{height:.4f}", f"{width:.4f}", f"{distance:.4f}"]
    return [f"{found.volume:.2f}", found.components, f"{found.largest:.2f}", *lengths, "; ".join(found.notes)]


class GrowingTable:
    """A table that is written row by row into a file without a name yet: memory does not grow with it."""

    def __init__(self, path: Path, header: list[str]) -> None:
        """Raise `OutputError` when the file cannot be written, as `add` and `close` do."""
        self.path = path
        try:
            self._file = path.open("wb")
        except OSError as error:
            raise self._refused(error) from error
        try:
            self.add(header)
        except OutputError:
            with suppress(OSError):
                self._file.close()
            raise

    def add(self, row: list[object] | list[str]) -> None:
        """Append a row."""
        try:
            self._file.write(csv_line(row))
        except OSError as error:
            raise self._refused(error) from error

    def close(self) -> None:
        """Write what is left."""
        try:
            with self._file:
                self._file.flush()
                os.fsync(self._file.fileno())
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: the table of slices cannot be written ({error.strerror or error})")
