"""What is in this folder: its slices, whose they are, and the true mask of each."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from segport.errors import UsageError
from segport.folders import (
    MASK_ENDING,
    Folder,
    folders_of_patient,
    is_mask,
    is_picture,
    patient_folders,
    pictures_in,
    walk_folders,
)

NUMBER_AT_END = re.compile(r"^(?P<patient>.*?)[ _-]*(?P<number>\d+)$")


@dataclass(frozen=True, slots=True)
class Slice:
    """One picture on disk. `relative`: its path below the input folder. `mask`: the true mask, if there is one."""

    path: Path
    relative: PurePath
    patient: str
    number: int | None
    mask: Path | None = None


class SliceTree:
    """The slices below `root` (a folder, or one file), listed folder by folder.

    `masks`: a folder that mirrors `root` and holds the masks, named as the slices, with or without `_mask`.
    `patient_pattern`: a regular expression searched in the relative path (with /); its group `patient` (or its
    first group) names the patient; else the folder does, or the name before the last number. `exclude`: a folder not to
    enter (the output). Raises `UsageError` when a folder is not there or the pattern has no group.
    """

    def __init__(
        self, root: Path, *, masks: Path | None = None, patient_pattern: str | None = None, exclude: Path | None = None
    ) -> None:
        if not root.exists():
            raise UsageError(f"{root}: no such file or folder")
        if masks is not None and not masks.is_dir():
            raise UsageError(f"--masks {masks}: no such folder")
        self.root = root
        self.base = root.parent if root.is_file() else root
        self._exclude = [p for p in (exclude, masks) if p is not None]
        self._pattern = _compile(patient_pattern)
        self._masks = MaskFinder(masks or self.base, every_picture=masks is not None, exclude=exclude)
        self._by_pattern: dict[str, list[PurePath]] | None = None

    def folders(self) -> Iterator[Folder]:
        """Yield the folders of the tree (see `walk_folders`); for a single file, one folder that holds it alone."""
        if self.root.is_file():
            known = is_picture(self.root.name) and not is_mask(PurePath(self.root.name))
            yield Folder(
                PurePath(), PurePath(), [self.root.name] if known else [], [], [] if known else [self.root.name]
            )
        else:
            yield from walk_folders(self.root, self._exclude)

    def slices(self, folder: Folder, *, paired: bool = True) -> Iterator[Slice]:
        """Yield the folder's slices in natural order, with their masks if `paired`."""
        for name in folder.names:
            yield self._slice(folder.relative / name, paired=paired)

    def slices_of_patient(self, item: Slice) -> Iterator[Slice]:
        """Yield every slice of the patient of `item`, without masks, in natural order.

        Only the patient's own folders are listed; with a pattern, the whole tree is, once.
        """
        for relative in self._of_patient(item):
            if self._identify(relative)[0] == item.patient:
                yield self._slice(relative, paired=False)

    def _of_patient(self, item: Slice) -> Iterator[PurePath]:
        if self.root.is_file():
            yield item.relative
        elif self._pattern is not None:
            if self._by_pattern is None:
                found = defaultdict[str, list[PurePath]](list)
                for relative in (f.relative / name for f in self.folders() for name in f.names):
                    found[self._identify(relative)[0]].append(relative)
                self._by_pattern = found
            yield from self._by_pattern.get(item.patient, [])
        else:
            for folder in folders_of_patient(self.base, patient_folders(item.relative)):
                names = pictures_in(self.base / folder)
                yield from (folder / n for n in names if not is_mask(folder / n))

    def _slice(self, relative: PurePath, *, paired: bool) -> Slice:
        path = self.base / relative
        mask = self._masks.find(relative) if paired else None
        if self._masks.every_picture and mask is not None and mask.resolve() == path.resolve():  # not its own truth
            mask = None
        return Slice(path, relative, *self._identify(relative), mask)

    def _identify(self, relative: PurePath) -> tuple[str, int | None]:
        """Return (patient, slice number): by the pattern, else by the folder, else by the name before the number."""
        ending = NUMBER_AT_END.match(relative.stem)
        number = int(ending["number"]) if ending else None
        if self._pattern is not None:
            found = self._pattern.search(relative.as_posix())
            patient = found and (found["patient"] if "patient" in self._pattern.groupindex else found[1])
            if patient is None:  # a group may take no part in a match
                raise UsageError(
                    f"--patient-pattern {self._pattern.pattern}: names no patient in {relative.as_posix()};"
                    " remedy: a pattern that fits every slice, or move that file away"
                )
            return patient, number
        folders = patient_folders(relative)
        if folders:
            return "/".join(folders), number
        name = ending["patient"] if ending else relative.stem
        return name or self.base.resolve().name, number


class MaskFinder:
    """Finds true masks below `root`: beside the slice, or in a folder of masks that mirrors its folders.

    `every_picture`: whether all pictures there are masks, not only those named so. `exclude`: a folder not to look in.
    Where a slice has several, one that is named so or lies below such a folder counts, and the first in natural order.
    """

    def __init__(self, root: Path, *, every_picture: bool, exclude: Path | None) -> None:
        self._root, self.every_picture = root, every_picture
        self._exclude = exclude and exclude.resolve()
        self._core: tuple[str, ...] | None = None
        self._known: dict[str, Path] = {}

    def find(self, relative: PurePath) -> Path | None:
        """Return the mask of the slice at this path below the input folder; None where there is none."""
        core = patient_folders(relative)
        if core != self._core:  # slices come patient by patient, so the last one's masks are all that is kept
            self._core, self._known = core, self._masks_of(core)
        return self._known.get(_common_stem(relative))

    def _masks_of(self, core: tuple[str, ...]) -> dict[str, Path]:
        masks, others = dict[str, Path](), dict[str, Path]()
        for folder in folders_of_patient(self._root, core):
            if self._exclude is None or (self._root / folder).resolve() != self._exclude:
                for name in pictures_in(self._root / folder):
                    found = masks if is_mask(folder / name) else others
                    found.setdefault(_common_stem(PurePath(name)), self._root / folder / name)
        return others | masks if self.every_picture else masks


@dataclass(frozen=True)
class Listing:
    """What a tree holds, folder by folder, each in natural order.

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
    """Return all slices below `root` at once; arguments and errors as for `SliceTree`."""
    tree = SliceTree(root, masks=masks, patient_pattern=patient_pattern, exclude=exclude)
    folders = list(tree.folders())
    slices = [item for folder in folders for item in tree.slices(folder)]
    paired = {s.mask for s in slices}
    if masks is None:
        there = [root / f.relative / name for f in folders for name in f.masks]
    else:
        there = [masks / f.relative / name for f in walk_folders(masks) for name in (*f.names, *f.masks)]
    unreadable = [root / f.relative for f in folders if not f.readable]
    lone = [path for path in there if path not in paired]
    return Listing(slices, lone, unreadable, ignored=sum(len(f.others) for f in folders))


def _common_stem(relative: PurePath) -> str:
    """Return what the names of a slice and its mask have in common."""
    stem = relative.stem
    return stem[: -len(MASK_ENDING)] if stem.casefold().endswith(MASK_ENDING) else stem


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
