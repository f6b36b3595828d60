"""Walking a tree of folders: which files in it are slices, which are masks, and in what order they come.

Layouts: `patient/slice.tif` with `slice_mask.tif` beside it; `images/` with `masks/` beside it; flat files. A file
whose stem ends in `_mask`, or that lies below a folder named `masks` or `labels`, is a mask and never a slice.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path, PurePath

SUFFIXES = frozenset({".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp"})
MASK_ENDING = "_mask"
LEDGER = "ledger.jsonl"  # in every output folder of seg-infer
OUTPUT_ENDINGS = ("_overlay", "_probability", "_heat", "_sheet")  # what seg-infer writes beside masks
SHEET, VOLUME_SHEET = "_sheet.png", "_volume_sheet.png"
MASK_FOLDERS = frozenset({"masks", "labels"})
IMAGE_FOLDERS = frozenset({"images", "imgs"})
DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Folder:
    """One folder. `relative`: its path below the root. `names`, `masks`: its slices and masks, in natural order.

    `mirror`: its path below an output folder, in which no two folders differ only in case or Unicode normal form.
    `others`: its files that are neither. `readable`: whether it could be listed.
    """

    relative: PurePath
    mirror: PurePath
    names: list[str]
    masks: list[str]
    others: list[str] = field(default_factory=list)
    readable: bool = True


def walk_folders(root: Path, exclude: Sequence[Path] = ()) -> Iterator[Folder]:
    """Yield the folders below `root`, itself first, each before the folders in it; folders in natural order.

    One folder is listed at a time, so a large tree starts to yield at once. Hidden files and folders, `exclude` and the
    output folders of earlier runs are left out. Links are followed, out of the tree as well, except in circles.
    """
    barred = {folder.resolve() for folder in exclude}
    # folders to come: path, path in the output, and where each and those above it really are
    waiting: list[tuple[PurePath, PurePath, tuple[Path, ...]]] = [(PurePath(), PurePath(), (root.resolve(),))]
    while waiting:
        here, mirror, chain = waiting.pop()
        try:
            with os.scandir(root / here) as entries:
                shown = [e for e in entries if not e.name.startswith(".")]
            folders = {e.name: e.is_symlink() for e in shown if _is_folder(e)}
        except OSError:
            yield Folder(here, mirror, [], [], readable=False)
            continue
        if here.parts and any(e.name == LEDGER for e in shown):  # its report has pictures of slices
            continue
        yield _sort_files(here, mirror, [e.name for e in shown if e.name not in folders])
        names = sorted(folders, key=natural_key)
        for name, unlike in reversed(list(zip(names, unlike_names(names), strict=True))):
            target = (root / here / name).resolve() if folders[name] else chain[-1] / name
            if target not in barred and target not in chain:
                waiting.append((here / name, mirror / unlike, (*chain, target)))


def folders_of_patient(root: Path, core: tuple[str, ...], depth: int = 2) -> Iterator[PurePath]:
    """Yield the folders whose path below `root` is `core`, but for at most `depth` folders of images or masks in it.

    So `core` ("p7",) finds p7, p7/images, p7/masks, images/p7 and masks/p7.
    """
    yield from _descend(root, PurePath(), core, depth)


def _descend(root: Path, here: PurePath, core: tuple[str, ...], depth: int) -> Iterator[PurePath]:
    if not core:
        yield here
    elif os.path.isdir(root / here / core[0]):  # noqa: PTH112  (False where pathlib raises: no permission, too long)
        yield from _descend(root, here / core[0], core[1:], depth)
    if depth:
        for name in _kind_folders(root / here):
            yield from _descend(root, here / name, core, depth - 1)


def _kind_folders(folder: Path) -> list[str]:
    """Return the folders in `folder` that are named for what they hold: images or masks."""
    try:
        with os.scandir(folder) as entries:
            found = [e.name for e in entries if e.name.casefold() in MASK_FOLDERS | IMAGE_FOLDERS and e.is_dir()]
    except OSError:
        return []
    return sorted(found, key=natural_key)


def pictures_in(folder: Path) -> list[str]:
    """Return the names of the pictures in `folder` that are not hidden, in natural order; none if it is unreadable."""
    try:
        with os.scandir(folder) as entries:
            found = [e.name for e in entries if not e.name.startswith(".") and is_picture(e.name)]
    except OSError:
        return []
    return sorted(found, key=natural_key)


def unlike_names(names: Sequence[str]) -> Iterator[str]:
    """Yield the names, ~2, ~3 behind the later ones of those that differ only in case or Unicode normal form."""
    times = Counter(map(fold, names))
    taken = {name for name, number in times.items() if number == 1}
    for name in names:
        numbered = (f"{name}~{number}" for number in count(2))
        unlike = name if times[fold(name)] == 1 else next(n for n in chain([name], numbered) if fold(n) not in taken)
        taken.add(fold(unlike))
        yield unlike


def typed_path(path: Path) -> Path:
    """Return the path made absolute as the user wrote it; `resolve` would follow links, which may change."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def fold(name: str) -> str:
    """Return what file systems that ignore case or normal form make of a name."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def natural_key(name: str) -> tuple[str, str]:
    """Return a sort key that puts `_9` before `_10`. It is short: a folder may hold 100,000 names."""
    return DIGITS.sub(lambda digits: f"{int(digits[0]):020}", name.casefold()), name


def is_picture(name: str) -> bool:
    """Return whether a file of this name is a slice or a mask, and not an overlay or the like of an earlier run."""
    path = PurePath(name)
    return path.suffix.lower() in SUFFIXES and not path.stem.casefold().endswith(OUTPUT_ENDINGS)


def is_mask(relative: PurePath) -> bool:
    """Return whether the picture at this path below the root is a mask."""
    return below_masks(relative) or relative.stem.casefold().endswith(MASK_ENDING)


def below_masks(relative: PurePath) -> bool:
    """Return whether the file at this path below the root lies in a folder that is named for masks."""
    return any(part.casefold() in MASK_FOLDERS for part in relative.parts[:-1])


def patient_folders(relative: PurePath) -> tuple[str, ...]:
    """Return the folders of the path, but for those that only say whether they hold images or masks."""
    return tuple(p for p in relative.parts[:-1] if p.casefold() not in MASK_FOLDERS | IMAGE_FOLDERS)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _sort_files(here: PurePath, mirror: PurePath, files: list[str]) -> Folder:
    pictures = sorted((n for n in files if is_picture(n)), key=natural_key)
    masks = [n for n in pictures if is_mask(here / n)]
    names = [n for n in pictures if not is_mask(here / n)] if masks else pictures
    return Folder(here, mirror, names, masks, [n for n in files if not is_picture(n)])
