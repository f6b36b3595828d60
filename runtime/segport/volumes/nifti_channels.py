"""Which NIfTI files belong together, by the user's globs: `--channel flair=GLOB --channel post=GLOB`.

A glob with / is matched against the path below the input, and `*` stays within one name; one without is matched against
names, in folders of any depth. `?` and `[...]` work as in a shell. Files are of one case where all wildcards matched
the same text, and where they lie in one folder, unless the globs name folders: so `*_FL.nii.gz` and `*_T1.nii.gz` pair
within a folder, `flair/*.nii.gz` and `t1/*.nii.gz` across two.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import NamedTuple

from segport.errors import UsageError
from segport.folders import below_masks
from segport.volumes.case import ROLES, Role
from segport.volumes.nifti_names import (
    SEPARATORS,
    Group,
    Grouping,
    attach_truths,
    classify,
    nifti_stem,
    telling_folders,
)

TOKENS = re.compile(r"\*|\?|\[!?\]?[^\]/]*\]|.", re.DOTALL)
EXPECTED = "expected ROLE=GLOB with the roles flair, pre and post, such as flair='*_flair.nii.gz'"


class _Glob(NamedTuple):
    """A glob made ready. `last`: how many wildcards its last part has. `folders`: which of its others have some."""

    text: str
    pattern: re.Pattern[str]
    last: int
    folders: tuple[bool, ...]


def parse_channels(values: Sequence[str]) -> dict[Role, str]:
    """Return the globs of `--channel`, by role; raises `UsageError`."""
    globs: dict[Role, str] = {}
    for value in values:
        name, _, glob = value.partition("=")
        role = next((r for r in ROLES if r == name), None)
        if role is None or not glob:
            raise UsageError(f"--channel {value}: {EXPECTED}")
        if role in globs:
            raise UsageError(f"--channel {role} is given twice: {globs[role]} and {glob}; expected one glob a role")
        globs[role] = glob
    if globs and "flair" not in globs:
        raise UsageError("--channel names no flair, which is the one sequence that cannot be missing; add flair=GLOB")
    if len({"/" in glob for glob in globs.values()}) > 1:
        raise UsageError("--channel: either all globs name folders (with /) or none, so that files can be put together")
    return globs


def group_by_channels(relatives: Iterable[PurePath], channels: Mapping[Role, str]) -> Grouping:
    """Return the cases among files, given by their paths below the input; `channels` as `parse_channels` gives them.

    Raises `UsageError` for a glob that matches nothing, and for a file that is matched by two.
    """
    globs = {role: _compile(role, glob) for role, glob in channels.items()}
    groups = defaultdict[tuple[object, ...], Group](lambda: Group("", ()))
    truths, matched, ignored, count = list[PurePath](), set[Role](), 0, 0
    for relative in relatives:
        found = {role: match for role, glob in globs.items() if (match := _match(glob, relative))}
        if len(found) > 1:
            which = " and ".join(f"{role}={globs[role].text}" for role in found)
            raise UsageError(f"--channel: {relative.as_posix()} is matched by {which}; expected one role a file")
        for role, match in found.items():
            place = () if globs[role].folders else (relative.parent,)
            groups[*place, *match.groups()].sequences.setdefault(role, []).append(relative)
        is_truth = not found and (below_masks(relative) or classify(nifti_stem(relative.name))[0] == "truth")
        truths += [relative] * is_truth
        ignored += not found and not is_truth
        matched.update(found)
        count += 1
    for role, glob in channels.items():
        if role not in matched:
            raise UsageError(
                f"--channel {role}={glob}: matches none of the {count} NIfTI files; expected a glob over the path below"
                " the input, such as '*/*_flair.nii.gz', or over names, such as '*_flair.nii.gz'"
            )
    for group in groups.values():
        _name_group(group, globs[next(role for role, files in group.sequences.items() if group.files[0] in files)])
    return Grouping(list(groups.values()), attach_truths(groups.values(), truths), ignored)


def _name_group(group: Group, glob: _Glob) -> None:
    """Label a case by what the wildcards matched in its first file's name and folders."""
    file = group.files[0]
    match = _match(glob, file)
    texts = match.groups()[-glob.last :] if match and glob.last else ()
    group.label = "_".join(text.strip(SEPARATORS) for text in texts if text.strip(SEPARATORS))
    if glob.folders:
        group.parts = tuple(p for p, wild in zip(file.parent.parts, glob.folders, strict=True) if wild)
    else:
        group.parts = telling_folders(file.parent, group.label)


def _match(glob: _Glob, relative: PurePath) -> re.Match[str] | None:
    text = relative.as_posix() if glob.folders else relative.name
    return glob.pattern.fullmatch(unicodedata.normalize("NFC", text))


def _compile(role: Role, text: str) -> _Glob:
    *folders, name = unicodedata.normalize("NFC", text).split("/")
    patterns = [_translate(part) for part in (*folders, name)]
    try:
        pattern = re.compile("/".join(patterns), re.DOTALL)
        counts = [re.compile(part).groups for part in patterns]
    except re.error as error:
        raise UsageError(f"--channel {role}={text}: not a glob ({error})") from error
    return _Glob(text, pattern, counts[-1], tuple(n > 0 for n in counts[:-1]))


def _translate(part: str) -> str:
    """Return the regular expression of one part of a glob, each wildcard a group."""
    return "".join(map(_translate_token, TOKENS.findall(part)))


def _translate_token(token: str) -> str:
    if token == "*":
        return "([^/]*)"
    if token == "?":
        return "([^/])"
    if len(token) == 1:
        return re.escape(token)
    inverted, inside = token[1] == "!", token[1:-1].removeprefix("!")
    members = "".join(c if c == "-" else re.escape(c) for c in inside)
    return f"([{'^' * inverted}{members}])"
