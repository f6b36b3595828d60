"""The table of slices (pandas): one row a slice with its mask, patient and size."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from segport.errors import SliceError, UsageError
from segport.preprocess import split_channels
from segport.reading import read_slice, read_truth
from segport.sources import Slice, list_slices
from segport_train.settings import TrainSettings


@dataclass(frozen=True)
class Problem:
    """Why a file cannot be trained on."""

    path: Path
    reason: str


def build_table(settings: TrainSettings) -> tuple[pd.DataFrame, list[Problem]]:
    """Read every slice and mask once and return (table, what was left out).

    Columns: path, mask, relative (text), patient, number, height, width, tumour_pixels, sha256 (of pixels and mask).
    Named as problems: a slice without a mask, a mask without a slice, a mask of another size, an unreadable file.
    Raises `UsageError` when nothing is left, or with problems unless `problems` is "leave-out".
    """
    listing = list_slices(
        settings.data, masks=settings.masks, patient_pattern=settings.patient_pattern, exclude=settings.out
    )
    problems = [Problem(m, "is a mask without a slice, or a second one") for m in listing.lone_masks]
    problems += [Problem(folder, "is a folder that cannot be listed") for folder in listing.unreadable]
    rows = []
    for item in listing.slices:
        try:
            rows.append(_read_row(item))
        except SliceError as error:
            problems.append(Problem(item.path, str(error)))
    if problems and settings.problems == "stop":
        listed = "\n".join(f"  {p.path}: {p.reason}" for p in problems[:20])
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise UsageError(
            f"{settings.data}: {len(problems)} files cannot be trained on:\n{listed}{more}\n"
            "remedy: mend them, or leave them out with --problems leave-out"
        )
    if not rows:
        raise UsageError(f"{settings.data}: found no slice with a mask; expected patient/slice.tif and slice_mask.tif")
    table = pd.DataFrame(rows)
    if settings.tumour_only:
        table = table[table.tumour_pixels > 0].reset_index(drop=True)
    if not table.tumour_pixels.any():
        raise UsageError(f"{settings.data}: every mask is empty; there is nothing to learn")
    return table, problems


def fingerprint(table: pd.DataFrame, seed: int) -> dict[str, object]:
    """Return counts and a salted SHA-256 over the slices' contents in content order; no name enters it."""
    salt = hashlib.sha256(f"segport-{seed}".encode()).hexdigest()[:16]
    digest = hashlib.sha256(salt.encode() + "".join(sorted(table.sha256)).encode()).hexdigest()
    return {
        "patients": int(table.patient.nunique()),
        "slices": len(table),
        "tumour_slices": int((table.tumour_pixels > 0).sum()),
        "salt": salt,
        "sha256": digest,
    }


def _read_row(item: Slice) -> dict[str, object]:
    pixels = read_slice(item.path)
    height, width, channels = split_channels(pixels).shape
    mask = read_truth(item, (height, width))
    digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes() + np.packbits(mask).tobytes())
    return {
        "path": item.path,
        "mask": item.mask,
        "relative": item.relative.as_posix(),
        "patient": item.patient,
        "number": item.number,
        "height": height,
        "width": width,
        "channels": channels,
        "tumour_pixels": int(mask.sum()),
        "sha256": digest.hexdigest(),
    }
