"""NIfTI files as cases to segment: found by their names or by the user's globs, read and written one by one."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from segport.errors import SliceError
from segport.folders import fold, natural_key, unlike_names
from segport.settings import RunSettings
from segport.volumes.case import ModelName, Role, SequenceVolume
from segport.volumes.nifti import encode_mask, encode_probability, read_layout, read_volume
from segport.volumes.nifti_channels import group_by_channels
from segport.volumes.nifti_header import corners_apart
from segport.volumes.nifti_names import Group, group_by_names, nifti_stem

MASK, PROBABILITY = "_mask.nii.gz", "_probability.nii.gz"
SAID: dict[Role, str] = {"pre": "T1", "flair": "FLAIR", "post": "T1 after contrast"}
SAME = 0.1  # voxels by which a true mask may lie beside its FLAIR: what rounding in headers does, not another grid
SHOWN = 3  # files that a note names; a case can have dozens


@dataclass(frozen=True, eq=False)
class NiftiCase:
    """One case of NIfTI files (see `segport.volumes.case.Case`).

    `root`: the input folder. `sequences`: one file a role, by its path below root. `truths`: its true masks, of which
    there should be one. `guesses`: what its names left open.
    """

    root: Path
    name: str
    stem: PurePath
    relatives: tuple[PurePath, ...]
    sequences: Mapping[Role, PurePath]
    truths: tuple[PurePath, ...] = ()
    guesses: tuple[str, ...] = ()
    problem: str = ""

    @property
    def source(self) -> str:
        """The FLAIR's path below the input; without one, that of its first file."""
        return self.relatives[0].as_posix()

    @property
    def files(self) -> tuple[Path, ...]:
        """Its sequences' files, FLAIR's first; not its true mask."""
        return tuple(self.root / relative for relative in self.relatives)

    @property
    def roles(self) -> frozenset[Role]:
        """The sequences it has."""
        return frozenset(self.sequences)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was guessed from its names and its headers, which are read for it; unreadable ones say nothing here."""
        notes = list(self.guesses)
        for relative in () if self.problem else self.relatives:
            try:
                notes += [f"{relative.name} {note}" for note in read_layout(self.root / relative).notes]
            except SliceError:  # `read` says why
                continue
        return tuple(notes)

    @property
    def truth_path(self) -> Path | None:
        """The file of its true mask; of several, which `read_truth` refuses, the first."""
        return self.root / self.truths[0] if self.truths else None

    def endings(self, settings: RunSettings) -> list[str]:
        """Return the endings of the files that `encode` writes; the mask's is the last."""
        return [PROBABILITY, MASK] if settings.probabilities else [MASK]

    def read(self, role: Role) -> SequenceVolume:
        """Return one of its sequences; raises `SliceError` with the reason."""
        relative = self.sequences[role]
        try:
            return read_volume(self.root / relative)
        except SliceError as error:
            if role == "flair":
                raise
            raise SliceError(f"its {SAID[role]} {relative.name} {error}") from error

    def read_truth(self) -> NDArray[np.uint8] | None:
        """Return its true mask, uint8 [i, j, k] of 0 and 1 on FLAIR's grid, 1 where a label is above 0; None without.

        Raises `SliceError` for several masks, for one that cannot be read, and for one that lies on another grid.
        """
        if not self.truths:
            return None
        name = self.truths[0].name
        if len(self.truths) > 1:
            raise SliceError(
                f"has {len(self.truths)} masks: {_listed(self.truths)}; expected one; remedy: move the others"
            )
        flair = read_layout(self.root / self.sequences["flair"])
        try:
            truth = read_volume(self.root / self.truths[0])
        except SliceError as error:
            raise SliceError(f"its mask {name} {error}") from error
        if truth.voxels.shape != flair.shape:
            raise SliceError(f"its mask {name} is {truth.voxels.shape}, its FLAIR {flair.shape} (voxels along i, j, k)")
        apart = corners_apart(flair.shape, flair.affine, truth.affine)
        if apart > SAME:
            raise SliceError(
                f"its mask {name} lies {apart:.1f} voxels beside its FLAIR; expected the same affine; remedy: resample"
            )
        return np.asarray(np.greater(truth.voxels, 0), np.uint8)

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Return a mask that `encode` wrote, uint8 [i, j, k] of 0 and 1; raises `SliceError`."""
        return np.asarray(read_volume(path).voxels, np.uint8)

    def encode(
        self, mask: NDArray[np.uint8], probability: NDArray[np.float32] | None, model: ModelName
    ) -> dict[str, bytes]:
        """Return the files to write, by ending; arguments and errors as for `segport.volumes.case.Case`."""
        layout = read_layout(self.root / self.sequences["flair"])
        files = {} if probability is None else {PROBABILITY: encode_probability(layout, probability, model)}
        return files | {MASK: encode_mask(layout, mask, model)}


@dataclass(frozen=True)
class NiftiListing:
    """What NIfTI files below a folder are: `cases`, in natural order, no two with one name or stem.

    `lone_masks`: masks that belong to no case. `ignored`: how many files are neither sequences nor masks.
    """

    cases: list[NiftiCase]
    lone_masks: list[PurePath]
    ignored: int


def find_nifti_cases(
    root: Path, relatives: Iterable[PurePath], channels: Mapping[Role, str] | None = None
) -> NiftiListing:
    """Return the cases among `relatives`, the paths below `root` of all its .nii and .nii.gz files; none is opened.

    By names, as `segport.volumes.nifti_names` reads them, or by globs (see `segport.volumes.nifti_channels`). Files
    that form no proper case become one with a problem. Raises `UsageError` for globs that match nothing or too much.
    """
    ordered = sorted(relatives, key=_natural)
    found = group_by_channels(ordered, channels) if channels else group_by_names(ordered)
    groups = sorted(found.groups, key=lambda group: _natural(group.files[0]))
    stems = _stems(root, groups)
    cases = [_make_case(root, *each) for each in zip(groups, _names(groups, stems), stems, strict=True)]
    return NiftiListing(cases, found.lone_masks, found.ignored)


def _make_case(root: Path, group: Group, name: str, stem: PurePath) -> NiftiCase:
    guesses = list(group.notes)
    if group.left_out:
        guesses.append(f"left out, since no sequence's name is at the end of theirs: {_listed(group.left_out)}")
    sequences = {role: files[0] for role, files in group.sequences.items()}
    return NiftiCase(
        root, name, stem, tuple(group.files), sequences, tuple(group.truths), tuple(guesses), _problem(group)
    )


def _problem(group: Group) -> str:
    for role, files in group.sequences.items():
        if len(files) > 1:
            return (
                f"has {len(files)} files that may be its {SAID[role]}: {_listed(files)}; expected one; remedy: move the"
                f" others, or choose with --channel {role}=GLOB"
            )
    if "flair" in group.sequences:
        return ""
    there = " and ".join(f"{SAID[role]} ({_listed(files)})" for role, files in group.sequences.items())
    return (
        f"has {there} and no FLAIR, which the model cannot do without; remedy: let its FLAIR's name begin alike and"
        " end in _flair, or use --channel flair=GLOB; the wildcards must match the same text in all files of a case"
    )


def _names(groups: Sequence[Group], stems: Sequence[PurePath]) -> Iterator[str]:
    """Yield the cases' names: their telling folders and their label; where two would share it, their stems."""
    plain = ["/".join(filter(None, (*g.parts, g.label))) or s.name for g, s in zip(groups, stems, strict=True)]
    times = Counter(map(fold, plain))
    return unlike_names([s.as_posix() if times[fold(n)] > 1 else n for n, s in zip(plain, stems, strict=True)])


def _stems(root: Path, groups: Sequence[Group]) -> list[PurePath]:
    """Return the outputs' paths without ending, all different where case or Unicode normal form is ignored.

    The label, or the folder's name where there is none; where two would share it, the file's name with ending.
    """
    files = [group.files[0] for group in groups]
    plain = [f.parent / _last_part(root, g, f) for g, f in zip(groups, files, strict=True)]
    times = Counter(fold(stem.as_posix()) for stem in plain)
    told = [f.parent / f.name if times[fold(s.as_posix())] > 1 else s for s, f in zip(plain, files, strict=True)]
    return [PurePath(stem) for stem in unlike_names([stem.as_posix() for stem in told])]


def _last_part(root: Path, group: Group, file: PurePath) -> str:
    candidates = (group.label, *group.parts[-1:], file.parent.name, root.resolve().name, nifti_stem(file.name))
    return next(c for c in candidates if c not in {"", ".", ".."})


def _natural(relative: PurePath) -> list[tuple[str, str]]:
    return [natural_key(part) for part in relative.parts]


def _listed(files: Sequence[PurePath]) -> str:
    shown = ", ".join(file.name for file in files[:SHOWN])
    return f"{shown} and {len(files) - SHOWN} more" if len(files) > SHOWN else shown
