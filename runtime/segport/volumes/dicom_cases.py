"""The cases of a tree of DICOM files: every FLAIR series is one, with the T1 series of the same study."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from segport.errors import SliceError, UsageError
from segport.settings import RunSettings
from segport.volumes.case import ROLES, ModelName, Role, SequenceVolume
from segport.volumes.dicom_files import SeriesFiles
from segport.volumes.dicom_index import Series, index_dicom
from segport.volumes.dicom_planes import Stack, read_stack
from segport.volumes.dicom_roles import UNKNOWN, Guess, choose, describe, describe_some, guess_role, parse_choices
from segport.volumes.dicom_seg import NO_FRAME, UNEVEN, encode_nifti, encode_seg
from segport.volumes.dicom_seg_reading import read_seg
from segport.volumes.dicom_series import read_series
from segport.volumes.nifti import read_volume

Format = Literal["dcm", "nii"]
FORMATS: tuple[Format, ...] = get_args(Format)
MASKS: dict[Format, str] = {"dcm": "_mask.dcm", "nii": "_mask.nii.gz"}
PROBABILITY = "_probability.nii.gz"


@dataclass(frozen=True)
class DicomCase:
    """A FLAIR series and what completes it; see `Case`. `series`: the files of each role. `format`: of its mask."""

    name: str
    stem: PurePath
    source: str
    series: Mapping[Role, SeriesFiles]
    notes: tuple[str, ...] = ()
    problem: str = ""
    format: Format = "dcm"

    @property
    def files(self) -> Sequence[Path]:
        """All files that it is read from, role by role."""
        return [path for role in ROLES if role in self.series for path in self.series[role].paths]

    @property
    def roles(self) -> frozenset[Role]:
        """The sequences it has."""
        return frozenset(self.series)

    @property
    def truth_path(self) -> None:
        """None: true masks beside DICOM series are not looked for."""

    def endings(self, settings: RunSettings) -> list[str]:
        """Return the endings of what `encode` writes; the mask's is the last."""
        return [*([PROBABILITY] if settings.probabilities else []), MASKS[self.format]]

    def read(self, role: Role) -> SequenceVolume:
        """Return one of its series; raises `SliceError`."""
        return read_series(self.series[role])

    def read_truth(self) -> None:
        """Return None: true masks beside DICOM series are not looked for."""

    def read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Return a mask that `encode` wrote, uint8 [column, row, slice] of 0 and 1; raises `SliceError`."""
        if self.format == "dcm":
            return read_seg(self.series["flair"], path)
        return np.asarray(read_volume(path).voxels, np.uint8)

    def encode(
        self, mask: NDArray[np.uint8], probability: NDArray[np.float32] | None, model: ModelName
    ) -> dict[str, bytes]:
        """Return the mask as DICOM SEG or NIfTI, and the probability as NIfTI, by ending; raises `SliceError`."""
        flair = self.series["flair"]
        written = {} if probability is None else {PROBABILITY: encode_nifti(flair, probability)}
        encoded = encode_seg(flair, mask, model) if self.format == "dcm" else encode_nifti(flair, mask)
        return {**written, MASKS[self.format]: encoded}


@dataclass(frozen=True)
class DicomListing:
    """What a tree holds. `ignored`: files that are no MR pictures, by reason. `problems`: (which file, why)."""

    cases: list[DicomCase]
    ignored: Counter[str]
    problems: list[tuple[str, str]]


def find_dicom_cases(
    root: Path,
    relatives: Iterable[PurePath],
    *,
    series: Sequence[str] = (),
    keep_identity: bool = False,
    format: Format = "dcm",  # noqa: A002
) -> DicomListing:
    """Return the cases among those files below `root`; `series`: as `--series` gives them.

    Names, notes and problems hold no name or number of a patient, no path and no free text of a header, unless
    `keep_identity`. Raises `UsageError`.
    """
    chosen = parse_choices(series)
    everything = sorted(relatives)
    index = index_dicom(root, everything)
    studies: dict[str, list[Series]] = {}
    for one in index.series:
        studies.setdefault(one.study, []).append(one)
    matched: set[Role] = set()
    cases: list[DicomCase] = []
    names = _short(studies), _short(one.uid for one in index.series)
    for study in studies.values():
        cases.extend(_Study(root, study, names, keep_identity, format).cases(chosen, matched))
    for role, what in chosen.items():
        if role not in matched:
            there = describe_some(index.series, named=keep_identity)
            raise UsageError(f"--series {role}={what}: matches no series; there are {there}")
    places = {path: place for place, path in enumerate(everything, 1)}
    problems = [
        (str(p) if keep_identity else f"file {places[p]} of {len(everything)} (in the order of their paths)", reason)
        for p, reason in index.broken
    ]
    return DicomListing(cases, index.ignored, problems)


class _Study:
    """One study, from which cases are made. `names`: short names of studies and series, by UID."""

    def __init__(
        self,
        root: Path,
        study: list[Series],
        names: tuple[dict[str, str], dict[str, str]],
        named: bool,
        format_: Format,
    ) -> None:
        self._root, self._named, self._format = root, named, format_
        self._study = sorted(study, key=lambda s: (s.number is None, s.number or 0, s.uid))
        self._study_names, self._series_names = names
        self._guesses = {s.uid: guess_role(s) for s in study}

    def cases(self, chosen: Mapping[Role, str], matched: set[Role]) -> Iterator[DicomCase]:
        """Yield the cases; adds the roles that a choice is found for to `matched`. Raises `UsageError`."""
        asked = {role: choose(self._study, role, what, named=self._named) for role, what in chosen.items()}
        matched |= {role for role, found in asked.items() if found is not None}
        if "flair" in asked:
            found = asked["flair"]
            flairs = [] if found is None else [(found, "by --series")]
        else:
            flairs = self._flairs()
        if not flairs:
            there = ", ".join(describe(s, named=self._named) for s in self._study)
            how = "that --series flair means" if "flair" in asked else "that is FLAIR by its names or times"
            reason = f"has no series {how}; it has {there}; remedy: --series flair=NUMBER says which it is"
            yield DicomCase(*self._names(self._study[0], whole=True), {}, (), reason, self._format)
        for flair, reason in flairs:
            yield self._case(flair, reason, asked)

    def _flairs(self) -> list[tuple[Series, str]]:
        found = self._of_role("flair")
        if not found and len(self._study) == 1 and self._guesses[self._study[0].uid].reason == UNKNOWN:
            return [(self._study[0], "assumed: nothing says what it is, and it is the only series of its study")]
        return [(s, self._guesses[s.uid].reason) for s in found]

    def _of_role(self, role: Role) -> list[Series]:
        """Return the series guessed to have a role; derived ones only where no measured one has."""
        found = [s for s in self._study if self._guesses[s.uid].role == role]
        return [s for s in found if not self._guesses[s.uid].derived] or found

    def _case(self, flair: Series, reason: str, asked: Mapping[Role, Series | None]) -> DicomCase:
        taken: dict[Role, Series] = {"flair": flair}
        notes = [f"FLAIR: {describe(flair, named=self._named)}, {reason}"]
        problem = ""
        try:
            stack = read_stack(self._files(flair))
            notes += [f"FLAIR: {note}" for note in stack.notes()]
            if self._format == "dcm" and not stack.frame_of_reference:
                problem = NO_FRAME
            if self._format == "nii" and not stack.regular:
                problem = UNEVEN
            for role in (r for r in ROLES if r != "flair"):
                self._complete(role, flair, stack, asked, taken, notes)
        except SliceError as error:
            problem = str(error)
        files = {role: self._files(taken[role]) for role in ROLES if role in taken}
        return DicomCase(*self._names(flair), files, tuple(notes), problem, self._format)

    def _complete(
        self,
        role: Role,
        flair: Series,
        stack: Stack,
        asked: Mapping[Role, Series | None],
        taken: dict[Role, Series],
        notes: list[str],
    ) -> None:
        """Add the series of a role, if there is one, and say why."""
        if role in asked:
            found = asked[role]
            if found is None:
                notes.append(f"{role}: --series matches no series of this study")
            else:
                taken[role] = found
                notes.append(f"{role}: {describe(found, named=self._named)}, by --series")
            return
        fitting = [s for s in self._of_role(role) if s.uid != flair.uid]
        near = [s for s in fitting if s.frame_of_reference == flair.frame_of_reference]
        fitting = near or fitting
        if not fitting:
            return
        best = fitting[0]
        if len(fitting) > 1:
            best = next((s for s in fitting if self._is_on_grid(s, stack)), best)
        taken[role] = best
        others = [describe(s, named=self._named) for s in fitting if s is not best]
        also = f" (also there: {', '.join(others)})" if others else ""
        guess: Guess = self._guesses[best.uid]
        notes.append(f"{role}: {describe(best, named=self._named)}, {guess.reason}{also}")

    def _is_on_grid(self, series: Series, stack: Stack) -> bool:
        try:
            other = read_stack(self._files(series))
        except SliceError:
            return False
        return other.is_on_grid_of(stack)

    def _files(self, series: Series) -> SeriesFiles:
        return series.files(self._root, named=self._named)

    def _names(self, series: Series, *, whole: bool = False) -> tuple[str, PurePath, str]:
        """Return name, stem and source of a case; `whole`: of the study instead of its series."""
        study, one = f"study-{self._study_names[series.study]}", f"series-{self._series_names[series.uid]}"
        if not self._named:
            stem = PurePath(study) if whole else PurePath(study, one)
            return stem.as_posix(), stem, stem.as_posix()
        number = "" if series.number is None else f"{series.number}"
        words = "_".join(filter(None, (number, series.description, one)))
        stem = PurePath(_safe(series.patient_id) or study, study if whole else _safe(words))
        folder = min(series.relatives).parent
        return stem.as_posix(), stem, (stem if folder == PurePath() else folder).as_posix()


def _short(uids: Iterable[str]) -> dict[str, str]:
    """Return the first 8 hexadecimal digits of the SHA-256 of each; more where two would be the same."""
    digests = {uid: hashlib.sha256(uid.encode("utf-8", "backslashreplace")).hexdigest() for uid in uids}
    length = next(n for n in range(8, 65) if len({d[:n] for d in digests.values()}) == len(digests))
    return {uid: digest[:length] for uid, digest in digests.items()}


def _safe(words: str) -> str:
    """Return text as part of a file's name: letters, digits, - and _, at most 100."""
    return re.sub(r"[^\w-]+", "_", words).strip("_")[-100:]
