"""The table of slices (pandas): one row a slice with its mask, patient and size; and the split into parts."""

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

PARTS = ("train", "val", "test")


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


def assign_parts(table: pd.DataFrame, settings: TrainSettings) -> pd.Series:
    """Return "train", "val" or "test" for each row, seeded; by patient unless `split` is "slice".

    Raises `UsageError` when the split file names no part for a patient, when nothing is left to train on, or when
    the same tumour slice lies in two parts.
    """
    if settings.split_file is not None:
        parts = _parts_from_file(table, settings.split_file)
    else:
        units = table.relative if settings.split == "slice" else table.patient
        names = np.array(sorted(units.unique()))
        np.random.default_rng(settings.seed).shuffle(names)
        validation, test = (_share(len(names), s) for s in (settings.validation, settings.test))
        assigned = dict.fromkeys(names[:validation], "val") | dict.fromkeys(
            names[validation : validation + test], "test"
        )
        parts = units.map(lambda n: assigned.get(n, "train"))
    if not table.tumour_pixels[parts == "train"].any():
        raise UsageError("the split leaves no slice with tumour to train on; remedy: smaller --val and --test")
    _refuse_twins(table, parts)
    return parts


def _refuse_twins(table: pd.DataFrame, parts: pd.Series) -> None:
    """Raise when the same tumour slice lies in two parts: one patient under two names would leak."""
    tumour = table[table.tumour_pixels > 0]
    spread = parts[tumour.index].groupby(tumour.sha256).nunique()
    twins = tumour[tumour.sha256.isin(spread.index[spread > 1])].sort_values("sha256")
    if len(twins):
        first, second = twins.relative.iloc[0], twins.relative.iloc[1]
        raise UsageError(
            f"{len(twins)} slices lie in two parts under different names, such as {first} and {second};"
            " remedy: remove the copies, or give a --split-file that keeps them in one part"
        )


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


def _parts_from_file(table: pd.DataFrame, path: Path) -> pd.Series:
    try:
        split = pd.read_csv(path, dtype=str, keep_default_na=False, encoding_errors="surrogateescape")
    except (OSError, ValueError) as error:
        raise UsageError(f"--split-file {path}: cannot be read ({error})") from error
    if not {"patient", "part"} <= set(split.columns):
        raise UsageError(f"--split-file {path}: has columns {list(split.columns)}, expected patient and part")
    unknown = sorted(set(split.part) - set(PARTS))
    if unknown:
        raise UsageError(f"--split-file {path}: names the parts {unknown}, expected {', '.join(PARTS)}")
    if split.patient.duplicated().any():
        twice = split.patient[split.patient.duplicated()].iloc[0]
        raise UsageError(f"--split-file {path}: names the patient {twice} twice")
    parts = table.patient.map(split.set_index("patient").part)
    if parts.isna().any():
        missing = sorted(table.patient[parts.isna()].unique())
        raise UsageError(f"--split-file {path}: names no part for {len(missing)} patients, such as {missing[0]}")
    return parts


def _share(count: int, share: float) -> int:
    """Return how many of `count` units a share means; at least one when asked for and there are three or more."""
    return max(round(count * share), 1 if share > 0 and count >= 3 else 0)
