"""Which series is FLAIR, T1 before or after contrast agent: by what people call them, else by how they were measured.

Names first, as heudiconv and BIDScoin do: they are what a radiographer chose. Parameters decide where names are silent;
their limits are usual at 1.5 and 3 T.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from segport.errors import UsageError
from segport.volumes.case import ROLES, Role
from segport.volumes.dicom_index import Parameters, Series

_NEITHER = re.compile(
    r"locali[sz]er|scout|survey|calib|\b(loc|plan|mpr|mip|minip|dwi|adc|trace\w*|diff\w*|dti|fa|b ?\d{3,4}|ep2d\w*|epi"
    r"|swi|swan|venbold|t2 star|pha|phase|perf\w*|pwi|dsc|dce|cbf|cbv|mtt|ttp|tof|mra|mrv|angio\w*|asl|pcasl|mrs"
    r"|spectro|csi|bold|fmri|sub|subtraction|report|screen)\b"
)
_FLAIR = re.compile(r"flair|dark ?fluid")
_T1 = re.compile(r"\bt1|mprage|mp rage|bravo|spgr|\btfl|\bvibe|\bir ?fspgr")
_POST = re.compile(
    r"\+ ?(c|gd|km|contrast)\b|\bc ?\+|\b(gd|gad|gado\w*|ce|km|post(?!er)\w*|contrast|kontrast\w*|mdc)\b"
    r"|\bt1 ?(c|ce|gd)\b"
)
_PRE = re.compile(r"\b(pre|nativ\w*|ohne|without|w ?/ ?o|non ?contrast|unenhanced|plain)\b")
OTHER, UNKNOWN = "another kind of picture", "not identified"
MOST_SHOWN = 10  # series in one message
_LOCALISER = {"LOCALIZER", "LOCALISER"}
_DERIVED = {"SECONDARY", "MPR", "PROJECTION IMAGE", "MIP", "MIN IP", "ADC", "CSA MPR", "SUBTRACTION", "SUB"}
# What may be shown of a description: words that belong to sequences and to no person. All else could be a name.
_SHOWN = frozenset("""
    t1 t1w t2 t2w pd pdw flair dark fluid tirm stir tse fse se gre ge gr ir tfl mprage mp rage spgr fspgr bravo vibe
    space cube vista spc tra trans axial ax cor coronal sag sagittal obl 2d 3d fs fatsat iso mm ce gd km post pre nativ
    contrast kontrast with without ohne mit brain head kopf hirn dwi adc trace swi tof mra perf ep2d dti asl bold
    localizer localiser scout survey mpr mip sub orig p2 p3 0 1 2 3 4 5 6 7 8 9 c
""".split())  # fmt: skip  # noqa: SIM905


@dataclass(frozen=True)
class Guess:
    """What a series is taken for; `reason`: by what. `derived`: whether it was computed from another one."""

    role: Role | None
    reason: str
    derived: bool = False


def guess_role(series: Series) -> Guess:
    """Return the role that a series' names or parameters speak for; None where nothing does."""
    words = re.sub(r"[\s_\-.*^]+", " ", series.words.casefold())
    kinds = set(series.image_type)
    if _NEITHER.search(words) or kinds & _LOCALISER:
        return Guess(None, OTHER)
    role, reason = _by_words(words, contrast=series.parameters.contrast)
    if role is None:
        role, reason = _by_times(series.parameters)
    return Guess(role, reason, bool(kinds & _DERIVED))


def _by_words(words: str, *, contrast: bool) -> tuple[Role | None, str]:
    t1 = _T1.search(words)
    if _FLAIR.search(words) and not t1:  # there is a T1 FLAIR
        return "flair", "by its description"
    if not t1:
        return None, UNKNOWN
    if _PRE.search(words) or not (_POST.search(words) or contrast):
        return "pre", "by its description"
    return "post", "by its description" if _POST.search(words) else "by its contrast agent"


def _by_times(p: Parameters) -> tuple[Role | None, str]:
    te, tr, ti = p.echo_time, p.repetition_time, p.inversion_time
    if te is None or tr is None or "EP" in p.scanning_sequence:
        return None, UNKNOWN
    if ti is not None and ti >= 1500 and te >= 60 and tr >= 4000:
        return "flair", f"by its times (TR {tr:g}, TE {te:g}, TI {ti:g} ms)"
    prepared = "IR" in p.scanning_sequence or "MP" in p.sequence_variant
    spin = "SE" in p.scanning_sequence and te <= 30 and tr <= 1200
    if spin or ("GR" in p.scanning_sequence and prepared and te <= 15):
        return "post" if p.contrast else "pre", f"by its times (TR {tr:g}, TE {te:g} ms)"
    return None, UNKNOWN


def parse_choices(values: Sequence[str]) -> dict[Role, str]:
    """Return what `--series ROLE=WHAT` asks for, by role; raises `UsageError`."""
    chosen: dict[Role, str] = {}
    for given in values:
        role, equals, what = given.partition("=")
        if role not in ROLES or not equals or not what.strip():
            raise UsageError(
                f"--series {given}: expected ROLE=WHAT, ROLE one of {', '.join(ROLES)}, WHAT a series' number, its"
                " SeriesInstanceUID or a part of its description, as in --series flair=4"
            )
        if role in chosen:
            raise UsageError(f"--series {given}: {role} is given twice")
        chosen[role] = what.strip()
    return chosen


def choose(study: Sequence[Series], role: Role, what: str, *, named: bool) -> Series | None:
    """Return the series of a study that WHAT means; None where none is; raises `UsageError` where several are."""
    if what.isdecimal():
        found = [s for s in study if s.number == int(what)]
    else:
        found = [s for s in study if s.uid == what or what.casefold() in s.description.casefold()]
    if len(found) > 1:
        raise UsageError(
            f"--series {role}={what}: matches {len(found)} series of one study:"
            f" {', '.join(describe(s, named=named) for s in found)}; remedy: give a SeriesInstanceUID"
        )
    return found[0] if found else None


def describe(series: Series, *, named: bool) -> str:
    """Return what messages call a series: its number and description.

    Without `named`, words of the description that are no words of sequences are shown as *: they may be names.
    """
    number = "a series without number" if series.number is None else f"series {series.number}"
    said = series.description if named else _without_names(series)
    return f"{number} '{said}'" if said else number


def describe_some(series: Sequence[Series], *, named: bool) -> str:
    """Return what messages call several series, at most `MOST_SHOWN` of them."""
    more = f" and {len(series) - MOST_SHOWN} more" if len(series) > MOST_SHOWN else ""
    return ", ".join(describe(s, named=named) for s in series[:MOST_SHOWN]) + more or "none"


def _without_names(series: Series) -> str:
    secret = {word for value in series.identity for word in re.findall(r"\w+", value.casefold().replace("_", " "))}
    words = re.findall(r"[^\W_]+", series.description)
    return re.sub(r"(\* )+\*", "*", " ".join(w if w.casefold() in _SHOWN - secret else "*" for w in words))
