"""What is in this folder: finds slices and their masks in the layouts people have.

Layouts: `patient/slice.tif` with `slice_mask.tif` beside it; `images/` with `masks/` beside it; flat files, whose
patient is the name before the last `_<n>`. A file whose stem ends in `_mask`, or that lies below a folder named
`masks`, is a mask and never an input.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from segport.errors import UsageError

SUFFIXES = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp"})
MASK_ENDING = "_mask"
OUTPUT_ENDINGS = ("_overlay", "_probability")  # what seg-infer writes beside masks
MASK_FOLDERS = frozenset({"masks", "labels"})
IMAGE_FOLDERS = frozenset({"images", "imgs"})
NUMBER_AT_END = re.compile(r"^(?P<patient>.*?)[ _-]*(?P<number>\d+)$")


@dataclass(frozen=True)
class Slice:
    """One picture on disk. `relative`: its path below the input folder. `mask`: the true mask, if there is one."""

    path: Path
    relative: PurePath
    patient: str
    number: int | None
    mask: Path | None = None


@dataclass(frozen=True)
class Listing:
    """What a folder holds, in natural order.

    `lone_masks`: masks without a slice, and second masks of a slice. `unreadable`: folders that could not be listed.
    `ignored`: how many files are neither slices nor masks.
    """

    slices: list[Slice]
    lone_masks: list[Path]
    unreadable: list[Path]
    ignored: int


def list_slices(
    root: Path, *, masks: Path | None = None, patient_pattern: str | None = None, exclude: Path | None = None
) -> Listing:
    """Return the slices below `root` (a folder, or one file), in natural order.

    `masks`: a folder that mirrors `root` and holds the masks, named as the slices, with or without `_mask`.
    `patient_pattern`: a regular expression searched in the relative path (with /); its group `patient` (or its
    first group) names the patient. `exclude`: a folder not to enter (the output). Not looked at: hidden files, and
    files named as overlays and probabilities of an earlier run. Raises `UsageError` when a folder is not there or
    the pattern has no group.
    """
    if not root.exists():
        raise UsageError(f"{root}: no such file or folder")
    if masks is not None and not masks.is_dir():
        raise UsageError(f"--masks {masks}: no such folder")
    pattern = _compile(patient_pattern)
    base = root.parent if root.is_file() else root
    tree = _Tree([], []) if root.is_file() else _walk(root, [p for p in (exclude, masks) if p is not None])
    files = [PurePath(root.name)] if root.is_file() else tree.files
    pictures = [f for f in files if _is_picture(f)]
    inputs = [f for f in pictures if not _is_mask(f)]
    if masks is not None:
        candidates = [(f, masks / f) for f in _walk(masks, []).files if _is_picture(f)]
    else:
        beside = [PurePath(f.name) for f in sorted(base.iterdir())] if root.is_file() else pictures
        candidates = [(f, base / f) for f in beside if _is_picture(f) and _is_mask(f)]
    truth: dict[tuple[str, ...], Path] = {}
    for relative, path in candidates:
        truth.setdefault(_pair_key(relative), path)
    slices = [Slice(base / f, f, *_identify(f, base, pattern), truth.get(_pair_key(f))) for f in inputs]
    paired = {s.mask for s in slices}
    lone = [] if root.is_file() else [path for _, path in candidates if path not in paired]
    return Listing(slices, lone, tree.unreadable, ignored=len(files) - len(pictures))


def natural_key(path: PurePath) -> list[tuple[Any, ...]]:
    """Return a sort key that puts `_9` before `_10` and a folder's files together."""
    return [
        tuple((0, int(part), part) if part.isdecimal() else (1, part.casefold(), part) for part in parts if part)
        for parts in (re.split(r"(\d+)", piece) for piece in path.parts)
    ]


def group_patients(slices: Sequence[Slice]) -> dict[str, list[Slice]]:
    """Return the slices of each patient, patients and slices in the order given."""
    groups: dict[str, list[Slice]] = {}
    for item in slices:
        groups.setdefault(item.patient, []).append(item)
    return groups


@dataclass(frozen=True)
class _Tree:
    files: list[PurePath]
    unreadable: list[Path]


def _walk(root: Path, exclude: Sequence[Path]) -> _Tree:
    """Return the files below `root` as relative paths in natural order; hidden files and `exclude` left out.

    Links are followed, except in circles.
    """
    barred = {folder.resolve() for folder in exclude}
    found: list[PurePath] = []
    unreadable: list[Path] = []
    chains = {root: frozenset({root.resolve()})}  # of each folder: where it and the folders above it really are
    for folder, folders, names in os.walk(
        root, followlinks=True, onerror=lambda error: unreadable.append(Path(error.filename))
    ):
        here = Path(folder)
        above = chains.pop(here)
        targets = {f: (here / f).resolve() for f in folders if not f.startswith(".")}
        folders[:] = [f for f, target in targets.items() if target not in barred | above]
        chains |= {here / f: above | {targets[f]} for f in folders}
        found += [(here / n).relative_to(root) for n in names if not n.startswith(".")]
    return _Tree(sorted(found, key=natural_key), unreadable)


def _is_picture(relative: PurePath) -> bool:
    return relative.suffix.lower() in SUFFIXES and not relative.stem.casefold().endswith(OUTPUT_ENDINGS)


def _is_mask(relative: PurePath) -> bool:
    below_masks = any(part.casefold() in MASK_FOLDERS for part in relative.parts[:-1])
    return below_masks or relative.stem.casefold().endswith(MASK_ENDING)


def _pair_key(relative: PurePath) -> tuple[str, ...]:
    """Return what a slice and its mask have in common: folders but `images` and `masks`, and the stem but `_mask`."""
    stem = relative.stem
    if stem.casefold().endswith(MASK_ENDING):
        stem = stem[: -len(MASK_ENDING)]
    return (*_patient_folders(relative), stem)


def _patient_folders(relative: PurePath) -> tuple[str, ...]:
    return tuple(p for p in relative.parts[:-1] if p.casefold() not in MASK_FOLDERS | IMAGE_FOLDERS)


def _compile(patient_pattern: str | None) -> re.Pattern[str] | None:
    if patient_pattern is None:
        return None
    try:
        pattern = re.compile(patient_pattern)
    except re.error as error:
        raise UsageError(f"--patient-pattern {patient_pattern}: not a regular expression ({error})") from error
    if pattern.groups == 0:
        raise UsageError(f"--patient-pattern {patient_pattern}: needs a group, as in '^([^_]+)_'")
    return pattern


def _identify(relative: PurePath, base: Path, pattern: re.Pattern[str] | None) -> tuple[str, int | None]:
    """Return (patient, slice number): by the pattern, else by the folder, else by the name before the last number."""
    ending = NUMBER_AT_END.match(relative.stem)
    number = int(ending["number"]) if ending else None
    if pattern is not None:
        found = pattern.search(relative.as_posix())
        if found is None:
            raise UsageError(f"--patient-pattern {pattern.pattern}: does not match {relative.as_posix()}")
        return str(found["patient"] if "patient" in pattern.groupindex else found[1]), number
    folders = _patient_folders(relative)
    if folders:
        return "/".join(folders), number
    name = ending["patient"] if ending else relative.stem
    return name or base.resolve().name, number
