"""The table of slices (pandas): one row a slice with its mask, patient, site and size."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segport.errors import SliceError, UsageError
from segport.preprocess import Pixels, split_channels
from segport.reading import read_slice, read_truth
from segport.session import usable_cores
from segport.sources import Slice, list_slices
from segport.stages import ordered_map
from segport_train.cache import SliceCache
from segport_train.patients import look_up
from segport_train.settings import TrainSettings


@dataclass(frozen=True)
class Problem:
    """Why a file cannot be trained on."""

    path: Path
    reason: str


@dataclass(frozen=True)
class _Read:
    """A slice as it was read, and its row."""

    row: dict[str, object]
    pixels: Pixels
    truth: NDArray[np.uint8]


def build_table(settings: TrainSettings, cache: SliceCache | None = None) -> tuple[pd.DataFrame, list[Problem]]:
    """Read every slice and mask once and return (table, what was left out); fill the cache on the way.

    Columns: path, mask, relative (text), patient, number, height, width, channels, tumour_pixels, sha256 (of pixels
    and mask), pixels_sha256 (of dtype, shape and pixels), constant (whether all pixels are alike), site (text, empty
    where neither the pattern nor a CSV names one), same_patient (all slices of the patient, in the
    table or not: their window depends on them). Slices that are not uint8 wait for their window: `SliceDataset`.
    Named as problems: a slice without a mask, a mask without a slice, a mask of another size, an unreadable file.
    Raises `UsageError` when nothing is left, or with problems unless `problems` is "leave-out".
    """
    listing = list_slices(
        settings.data, masks=settings.masks, patient_pattern=settings.patient_pattern, exclude=settings.out
    )
    problems = [Problem(m, "is a mask without a slice, or a second one") for m in listing.lone_masks]
    problems += [Problem(folder, "is a folder that cannot be listed") for folder in listing.unreadable]
    cache = cache or SliceCache(None, settings.size)
    rows = []
    with cache.filling():
        for result in _read_all(listing.slices):
            if isinstance(result, Problem):
                problems.append(result)
                continue
            rows.append(result.row)
            if result.pixels.dtype == np.uint8:
                cache.add(content(result.row), result.pixels, result.truth)
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
    patients: dict[str, list[Slice]] = defaultdict(list)
    for item in listing.slices:
        patients[item.patient].append(item)
    table["same_patient"] = table.patient.map(patients)
    table["site"] = _sites(table.patient, settings)
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


def content(row: Mapping[Any, Any]) -> str:
    """Return what names a row's pixels and mask in the cache."""
    return f"{row['pixels_sha256']} {row['sha256']}"


def content_hashes(pixels: Pixels, truth: NDArray[np.uint8]) -> dict[str, object]:
    """Return the hashes of a slice as read and its mask, as the table has them."""
    both = hashlib.sha256(np.ascontiguousarray(pixels).tobytes())
    alone = both.copy()
    alone.update(f"{pixels.dtype.str} {pixels.shape}".encode())
    both.update(np.packbits(truth).tobytes())
    return {"sha256": both.hexdigest(), "pixels_sha256": alone.hexdigest(), "shown_sha256": _hash_shown(pixels)}


def _hash_shown(pixels: Pixels) -> str:
    """Return a hash of what the network sees: one channel stands for three, so three that are equal are one."""
    channels = split_channels(pixels)
    if (channels == channels[..., :1]).all():
        channels = channels[..., :1]
    shown = hashlib.sha256(f"{channels.dtype.str} {channels.shape}".encode())
    shown.update(np.ascontiguousarray(channels).tobytes())
    return shown.hexdigest()


def _read_all(slices: list[Slice]) -> Iterator[_Read | Problem]:
    """Yield slices in order, read by a thread a core: decoding and hashing release the interpreter's lock."""
    workers = usable_cores()
    with ThreadPoolExecutor(workers, "table") as pool:
        yield from ordered_map(pool, _read, slices, 2 * workers)


def _read(item: Slice) -> _Read | Problem:
    try:
        pixels = read_slice(item.path)
        channels = split_channels(pixels)
        truth = read_truth(item, channels.shape)
    except SliceError as error:
        return Problem(item.path, str(error))
    row: dict[str, object] = {
        "path": item.path,
        "mask": item.mask,
        "relative": item.relative.as_posix(),
        "patient": item.patient,
        "number": item.number,
        "height": channels.shape[0],
        "width": channels.shape[1],
        "channels": channels.shape[2],
        "tumour_pixels": int(truth.sum()),
        "constant": channels.tobytes() == channels[0, 0].tobytes() * (channels.shape[0] * channels.shape[1]),
    }
    return _Read(row | content_hashes(pixels, truth), pixels, truth)


def _sites(patients: "pd.Series[str]", settings: TrainSettings) -> "pd.Series[str]":
    if settings.sites is not None:
        return look_up(patients, "--sites", settings.sites, "site")
    found = (re.search(settings.site_pattern, patient) for patient in patients)
    return pd.Series([match[1] or "" if match else "" for match in found], patients.index, dtype=object)
