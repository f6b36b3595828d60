"""What was measured, as CSV files in the run folder: a row a slice, a row a patient, and the calibration's bins."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from segport.errors import UsageError
from segport.outputs import write_csv
from segport.scoring import Agreement, Counts
from segport_train.calibration import FINE, Calibration
from segport_train.evaluation import Evaluation, SliceScore

COUNTS = ("tp", "fp", "fn", "tn")
SLICES, PATIENTS, CALIBRATION = "slices.csv", "patients.csv", "calibration.csv"


def write_results(out: Path, parts: Mapping[str, Evaluation]) -> None:
    """Write slices.csv, patients.csv and calibration.csv; `read_part` reads the first and the last back."""
    header = ["part", "slice", "patient", "site", "tumour_pixels", "mask_pixels", "dice", *COUNTS, "hd95"]
    write_csv(out / SLICES, header, [row for part, one in parts.items() for row in _slices(part, one)])
    figures = ["dice", "iou", "precision", "recall", "hd95"]
    header = ["part", "patient", *figures, "tumour_pixels", "mask_pixels", "site", "slices", *COUNTS]
    write_csv(out / PATIENTS, header, [row for part, one in parts.items() for row in _patients(part, one)])
    rows = [
        (part, f"{i / FINE:.2f}", int(c.pixels[i]), int(c.tumour[i]), float(c.probability[i]))
        for part, one in parts.items()
        if (c := one.calibration) is not None
        for i in range(FINE)
    ]
    write_csv(out / CALIBRATION, ["part", "from", "pixels", "tumour_pixels", "probability_sum"], rows)


def read_part(run: Path, part: str) -> Evaluation:
    """Return a part of a run as it was written, without loss; raises `UsageError` where its files are not whole."""
    try:
        slices = tuple(_slice(i, row) for i, row in enumerate(_rows(run / SLICES, part)))
        bins = [
            (int(r["pixels"]), int(r["tumour_pixels"]), float(r["probability_sum"]))
            for r in _rows(run / CALIBRATION, part)
        ]
        pixels, tumour, probability = zip(*bins, strict=True) if bins else ((), (), ())
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{run}: {SLICES} and {CALIBRATION} cannot be read ({error!r}); is it a finished run?"
        ) from error
    if not slices or len(bins) != FINE:
        found = f"{len(slices)} slices and {len(bins)} bins of the part {part}"
        raise UsageError(f"{run}: holds {found}; expected slices and {FINE} bins of a finished run with that part")
    calibration = Calibration(np.array(pixels, np.int64), np.array(tumour, np.int64), np.array(probability, np.float64))
    return Evaluation(slices, calibration=calibration)


def _slices(part: str, one: Evaluation) -> Iterator[tuple[object, ...]]:
    for s in one.slices:
        c = s.counts
        counts = (c.tumour_pixels, c.mask_pixels, f"{c.dice:.4f}", c.tp, c.fp, c.fn, c.tn)
        yield part, s.relative, s.patient, s.site, *counts, s.agreement.distance if s.agreement.outlined else ""


def _patients(part: str, one: Evaluation) -> Iterator[tuple[object, ...]]:
    for patient, agreement in one.agreements.items():
        c, distance = agreement.counts, agreement.hd95
        of_patient = [s for s in one.slices if s.patient == patient]
        figures = [f"{v:.4f}" for v in (c.dice, c.iou, c.precision, c.recall)]
        figures.append("" if distance is None else f"{distance:.2f}")
        counts = (of_patient[0].site, len(of_patient), c.tp, c.fp, c.fn, c.tn)
        yield part, patient, *figures, c.tumour_pixels, c.mask_pixels, *counts


def _rows(path: Path, part: str) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from (row for row in csv.DictReader(file) if row["part"] == part)


def _slice(row: int, cells: dict[str, str]) -> SliceScore:
    counts = Counts(*(int(cells[name]) for name in COUNTS))
    distance = cells["hd95"]
    agreement = Agreement(counts, float(distance or 0), int(distance != ""))
    return SliceScore(row, cells["slice"], cells["patient"], cells["site"], agreement)
