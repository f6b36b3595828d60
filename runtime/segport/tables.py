"""The tables a run leaves: summary.csv with a row a slice, patients.csv with a row a patient.

No timing stands in them, and a row of a slice is made from its ledger entry alone: two runs give the same bytes,
whether they were interrupted or not.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from segport.entry import Entry, Found
from segport.errors import OutputError
from segport.outcome import Outcome
from segport.outputs import csv_line
from segport.scoring import Agreement
from segport.settings import RunSettings

# What a score of empty masks is stands in the header, where it is read.
DICE, IOU = "dice_1_if_both_empty", "iou_1_if_both_empty"
HD95 = "hd95_px_0_if_both_empty_diagonal_if_one"
FOUND = ("tumour_pixels", "tumour_share", "mean_probability", "components", "largest_component")
PLACE = ("box_left", "box_top", "box_width", "box_height", "centroid_x", "centroid_y")


def summary_header(settings: RunSettings) -> list[str]:
    """Return the header of summary.csv."""
    scores = [DICE, IOU, HD95] if settings.score else []
    return ["path", "patient", "slice", *FOUND, *PLACE, *scores, "status", "warning", "message"]


def summary_row(outcome: Outcome, settings: RunSettings) -> list[object]:
    """Return the row of one slice."""
    job, entry = outcome.job, outcome.entry
    row: list[object] = [job.row_path, job.patient, "" if job.slice.number is None else job.slice.number]
    if entry.found is None:
        row += [""] * (len(FOUND) + len(PLACE) + 3 * settings.score)
    else:
        row += [*_found(entry.found), *(_scores(entry.found) if settings.score else [])]
    return [*row, entry.status, "; ".join(entry.warnings), entry.message]


def _found(found: Found) -> list[object]:
    share = found.tumour_pixels / (found.shape[0] * found.shape[1])
    regions = found.regions
    centre = ("", "") if regions.centroid is None else tuple(f"{c:.2f}" for c in regions.centroid)
    numbers = [found.tumour_pixels, f"{share:.6f}", f"{found.mean_probability:.4f}"]
    return [*numbers, regions.components, regions.largest, *(regions.box or [""] * 4), *centre]


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

    def add(self, entry: Entry) -> None:
        """Count one slice in."""
        self.slices += 1
        found = entry.found
        if found is None:
            self.failed += 1
            return
        self.positive += found.tumour_pixels > 0
        self.tumour_pixels += found.tumour_pixels
        if found.agreement is not None:
            self.agreement = (self.agreement or Agreement()) + found.agreement
            self.scored += 1


def patient_header(settings: RunSettings) -> list[str]:
    """Return the header of patients.csv."""
    space = ["tumour_area_mm2", "tumour_volume_ml"] if settings.spacing else []
    scores = [DICE, IOU, "hd95_px_mean_over_slices_with_tumour"] if settings.score else []
    return ["patient", "slices", "failed", "positive_slices", "tumour_pixels", *space, *scores]


def patient_rows(patients: Mapping[str, PatientTotals], settings: RunSettings) -> Iterator[list[object]]:
    """Yield the row of each patient. Area: of all slices' tumour; volume: area times the distance of the slices."""
    for name, totals in patients.items():
        row: list[object] = [name, totals.slices, totals.failed, totals.positive, totals.tumour_pixels]
        if settings.spacing:
            height, width, distance = settings.spacing
            area = totals.tumour_pixels * height * width
            row += [f"{area:.2f}", f"{area * distance / 1000:.4f}"]
        if settings.score:
            row += ["", "", ""] if totals.agreement is None else _score_cells(totals.agreement)
        yield row


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
