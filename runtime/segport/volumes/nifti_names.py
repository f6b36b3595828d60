"""Which NIfTI files belong together, by their names.

What a name ends in says which sequence it is, as BRATS and BIDS write it, behind `_`, `-` or `.`, in any case; what
stands before it labels the case: `p7_flair.nii.gz` and `p7_t1ce.nii.gz` of one folder are one case, p7. Where nothing
stands before it, the folder names the case. Of BIDS' entities `ce-<agent>` makes a T1w the sequence after contrast;
others, such as `run-2`, are part of the label.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal, TypeGuard

from segport.folders import below_masks, patient_folders
from segport.volumes.case import ROLES, Role

Kind = Literal["pre", "flair", "post", "truth", "other", ""]
KINDS: dict[Kind, str] = {
    "flair": "flair|t2f",
    "pre": "t1|t1n|t1w",
    "post": "t1ce|t1gd|t1c|ce-gadolinium",
    "truth": "mask|seg|dseg",
    "other": "t2|t2w|labels?|probability",
}
ENDINGS: dict[Kind, re.Pattern[str]] = {k: re.compile(f"(?:^|[_.-])(?:{e})$", re.IGNORECASE) for k, e in KINDS.items()}
SUFFIX = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
CONTRAST = re.compile(r"(?:^|_)ce-[a-z0-9]+(?=_|$)", re.IGNORECASE)
SEPARATORS = "_-. "
UNSAID = "its name does not say which sequence it is: taken for a FLAIR"


@dataclass
class Group:
    """Files of one case. `label`: what names it in its folder, empty where the folder does.

    `parts`: the folders that tell the case from others, for its name. `left_out`: files beside it that begin with its
    label and end in nothing known.
    """

    label: str
    parts: tuple[str, ...]
    sequences: dict[Role, list[PurePath]] = field(default_factory=dict)
    truths: list[PurePath] = field(default_factory=list)
    left_out: list[PurePath] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def files(self) -> list[PurePath]:
        """Its sequences' files, FLAIR's first."""
        roles: tuple[Role, ...] = ("flair", *(role for role in ROLES if role != "flair"))
        return [file for role in roles for file in self.sequences.get(role, ())]


@dataclass(frozen=True)
class Grouping:
    """What files became. `lone_masks`: masks of no case. `ignored`: how many files are neither."""

    groups: list[Group]
    lone_masks: list[PurePath]
    ignored: int


def nifti_stem(name: str) -> str:
    """Return a file's name without .nii or .nii.gz, in Unicode's normal form C."""
    return unicodedata.normalize("NFC", SUFFIX.sub("", name))


def classify(stem: str) -> tuple[Kind, str]:
    """Return what a stem says the file is ("" for nothing known), and the label that stands before it."""
    for kind, ending in ENDINGS.items():
        found = ending.search(stem)
        if found is None:
            continue
        label = stem[: found.start()]
        if kind == "pre" and CONTRAST.search(label):
            return "post", CONTRAST.sub("", label).strip(SEPARATORS)
        return kind, label.rstrip(SEPARATORS)
    return "", stem


def group_by_names(relatives: Iterable[PurePath]) -> Grouping:
    """Return the cases among files, given by their paths below the input.

    A file of no known ending is the FLAIR of a case of its own, unless its name goes on from that of a case beside it:
    then it is one more picture of that case, and left out.
    """
    groups: dict[tuple[PurePath, str], Group] = {}
    truths, unknown, ignored = list[PurePath](), list[PurePath](), 0
    for relative in relatives:
        kind, label = classify(nifti_stem(relative.name))
        if below_masks(relative):
            truths.append(relative)
        elif _is_role(kind):
            group = groups.setdefault((relative.parent, label), Group(label, telling_folders(relative.parent, label)))
            group.sequences.setdefault(kind, []).append(relative)
        elif kind == "truth":
            truths.append(relative)
        elif kind == "":
            unknown.append(relative)
        else:
            ignored += 1
    own = list[Group]()
    for relative in unknown:
        stem = nifti_stem(relative.name)
        beside = [groups[relative.parent, b] for b in _beginnings(stem) if (relative.parent, b) in groups]
        if beside:
            beside[0].left_out.append(relative)
            ignored += 1
        else:
            own.append(Group(stem, telling_folders(relative.parent, stem), {"flair": [relative]}, notes=[UNSAID]))
    found = [*groups.values(), *own]
    return Grouping(found, attach_truths(found, truths), ignored)


def attach_truths(groups: Iterable[Group], truths: Iterable[PurePath]) -> list[PurePath]:
    """Give each mask to the case that it is named for, by label or by FLAIR's name; return the others.

    Both are in one folder, but for folders of images or masks in it.
    """
    named = defaultdict[tuple[tuple[str, ...], str], list[Group]](list)
    for group in groups:
        file = group.files[0]
        for name in {group.label, nifti_stem(file.name)}:
            named[patient_folders(file), name].append(group)
    lone = []
    for truth in truths:
        name = classify(nifti_stem(truth.name))[1]
        folders = patient_folders(truth)
        owners = named.get((folders, name)) or named.get((folders, classify(name)[1])) or []
        for group in owners:
            group.truths.append(truth)
        if not owners:
            lone.append(truth)
    return lone


def telling_folders(folder: PurePath, label: str) -> tuple[str, ...]:
    """Return the folders that say more than the label does: of BIDS' sub-1/ses-2/anat/sub-1_ses-2 none."""
    said = {"anat", label, *label.split("_")} if label else set()
    return tuple(part for part in folder.parts if part not in said)


def _is_role(kind: Kind) -> TypeGuard[Role]:
    return kind in ROLES


def _beginnings(stem: str) -> Iterator[str]:
    """Yield the stem and what stands before each of its separators, the longest first, the empty text last."""
    yield stem
    for at in range(len(stem) - 1, -1, -1):
        if stem[at] in SEPARATORS:
            yield stem[:at].rstrip(SEPARATORS)
    yield ""
