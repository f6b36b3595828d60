"""The tables of a report, in Markdown: each figure with its aggregation, its interval and the baselines beside it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from segport.scoring import Counts, bootstrap_interval, ratio_interval
from segport.text import printable
from segport_train.baselines import predict_nothing
from segport_train.calibration import NEAR
from segport_train.evaluation import Evaluation, SliceScore

NONE = "-"
QUARTERS = ("smallest quarter", "second quarter", "third quarter", "largest quarter")


@dataclass(frozen=True)
class Ratio:
    """A measure that is sum(above) / sum(below) over patients; `of` gives one patient's pair, from its slices."""

    name: str
    of: Callable[[Sequence[SliceScore], Counts], tuple[float, float]]


RATIOS = (
    Ratio("Dice, pooled pixels", lambda _, c: (2 * c.tp, 2 * c.tp + c.fp + c.fn)),
    Ratio("Dice, mean per patient", lambda _, c: (c.dice, 1)),
    Ratio("Dice, mean per tumour slice", lambda s, _: _mean_pair(x.counts.dice for x in s if x.counts.tumour_pixels)),
    Ratio("IoU, pooled pixels", lambda _, c: (c.tp, c.tp + c.fp + c.fn)),
    Ratio("precision, pooled pixels", lambda _, c: (c.tp, c.mask_pixels)),
    Ratio("precision, mean per patient", lambda _, c: (c.precision, 1)),
    Ratio("recall, pooled pixels", lambda _, c: (c.tp, c.tumour_pixels)),
    Ratio("recall, mean per patient", lambda _, c: (c.recall, 1)),
    Ratio("accuracy, pooled pixels", lambda _, c: (c.tp + c.tn, c.pixels)),
)
POOLED, PER_PATIENT, PER_TUMOUR_SLICE = RATIOS[:3]
MEDIAN = "Dice, median per patient"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, all but its first column aligned to the right, and an empty line."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def score_table(one: Evaluation, copied: Evaluation | None = None) -> str:
    """Return the scores of a part: the network with its intervals, and beside it empty and, if given, copied masks."""
    others = _baselines(one, copied)
    rows = []
    for ratio in RATIOS:
        pairs = _pairs(one, ratio)
        rows.append([ratio.name, _share(pairs), _interval(pairs), *(_share(_pairs(o, ratio)) for o in others.values())])
    dice = [c.dice for c in one.patients.values()]
    interval = bootstrap_interval(dice, middle=np.median) if len(dice) > 1 else None
    medians = [f"{median(c.dice for c in o.patients.values()):.4f}" for o in others.values()]
    rows.insert(2, [MEDIAN, f"{median(dice):.4f}", _range(interval), *medians])
    for name, count in COUNTED.items():
        rows.append([name, count(one), "", *(count(o) for o in others.values())])
    return table(["", "network", "95 % interval", *others], rows)


def size_table(one: Evaluation, copied: Evaluation | None = None) -> str:
    """Return mean Dice per tumour slice by the tumour's size, quarters of the tumour slices, with both baselines.

    `copied`: of the same slices in the same order; slices of several runs may have the same `row`.
    """
    others = _baselines(one, copied)
    pixels_of = [s.counts.tumour_pixels for s in one.slices]
    ordered = np.array(sorted(np.flatnonzero(pixels_of), key=pixels_of.__getitem__), np.int64)
    rows = []
    for name, chosen in zip(QUARTERS, np.array_split(ordered, len(QUARTERS)), strict=True):
        slices = [one.slices[i] for i in chosen]
        sizes = [s.counts.tumour_pixels for s in slices]
        pairs = _pairs(Evaluation(tuple(slices)), PER_TUMOUR_SLICE)
        baselines = [
            _share(_pairs(Evaluation(tuple(o.slices[i] for i in chosen)), PER_TUMOUR_SLICE)) for o in others.values()
        ]
        found = sum(s.counts.tp > 0 for s in slices)
        pixels = f"{sizes[0]} to {sizes[-1]}" if slices else NONE
        rows.append([name, pixels, str(len(slices)), str(found), _share(pairs), _interval(pairs), *baselines])
    header = ["tumour slices", "tumour pixels", "slices", "found", PER_TUMOUR_SLICE.name, "95 % interval", *others]
    return table(header, rows)


def group_table(header: Sequence[str], groups: Iterable[tuple[Sequence[str], Evaluation]]) -> str:
    """Return Dice of groups of slices with intervals, a row each; `header`: of the names that a group begins with."""
    rows = []
    for names, one in groups:
        pooled, mean = _pairs(one, POOLED), _pairs(one, PER_PATIENT)
        nothing = _share(_pairs(predict_nothing(one), PER_PATIENT))
        figures = [_share(pooled), _interval(pooled), _share(mean), _interval(mean), nothing]
        rows.append([*names, str(len(one.patients)), str(len(one.slices)), *figures])
    measures = [POOLED.name, "95 % interval", PER_PATIENT.name, "95 % interval", "the same, predicting nothing"]
    return table([*header, "patients", "slices", *measures], rows)


def site_table(parts: Mapping[str, Evaluation]) -> str:
    """Return Dice per site of each part, with intervals; empty where no site is known."""
    groups = [
        ([cell(site), part], Evaluation(tuple(s for s in one.slices if s.site == site)))
        for part, one in parts.items()
        for site in one.sites
    ]
    return group_table(["site", "part"], groups) if groups else ""


def calibration_table(parts: Mapping[str, Evaluation]) -> str:
    """Return the calibration errors of the parts; empty where none was measured."""
    rows = []
    for part, one in parts.items():
        if one.calibration is not None:
            near = sum(b.pixels for b in one.calibration.curve(NEAR)) / one.calibration.pixels.sum()
            errors = (one.calibration.error(), one.calibration.error(NEAR), one.calibration.unsuspected)
            cells = [NONE if e is None else f"{e:.4f}" for e in errors]
            rows.append([part, cells[0], cells[1], f"{near:.4f}", cells[2]])
    limit = f"probability from {NEAR}"
    header = ["part", "ECE, all pixels", f"ECE, {limit}", f"pixels with a {limit}", "tumour pixels below it"]
    return table(header, rows) if rows else ""


def describe_part(name: str, one: Evaluation) -> str:
    """Return the part's name and what is in it, for a heading."""
    patients, slices, tumour = len(one.patients), len(one.slices), len(one.tumour_slices)
    return f"{name}: {_count(patients, 'patient')}, {_count(slices, 'slice')}, {tumour} of them with tumour"


def cell(text: str) -> str:
    """Return text that others chose so that it stays one cell of a table."""
    return printable(text).replace("|", "\\|")


def _baselines(one: Evaluation, copied: Evaluation | None) -> dict[str, Evaluation]:
    others = {"predicting nothing": predict_nothing(one)}
    return others if copied is None else others | {"copying the nearest training slice": copied}


def _mean_pair(values: Iterable[float]) -> tuple[float, float]:
    """Return a mean as a pair: sum and count."""
    listed = list(values)
    return sum(listed), len(listed)


def _pairs(one: Evaluation, ratio: Ratio) -> list[tuple[float, float]]:
    slices: dict[str, list[SliceScore]] = {patient: [] for patient in one.patients}
    for s in one.slices:
        slices[s.patient].append(s)
    return [ratio.of(slices[patient], counts) for patient, counts in one.patients.items()]


def _share(pairs: Sequence[tuple[float, float]]) -> str:
    above, below = (sum(values) for values in zip(*pairs, strict=True)) if pairs else (0.0, 0.0)
    return f"{above / below:.4f}" if below else NONE


def _interval(pairs: Sequence[tuple[float, float]]) -> str:
    if len(pairs) < 2:
        return NONE
    above, below = (list(values) for values in zip(*pairs, strict=True))
    return _range(ratio_interval(above, below))


def _range(interval: tuple[float, float] | None) -> str:
    return NONE if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _of(count: int, total: int) -> str:
    return f"{count} of {total}" + (f" ({100 * count / total:.1f} %)" if total else "")


def _distance(one: Evaluation) -> str:
    distance = one.scores.hd95_mean_per_patient
    return NONE if distance is None else f"{distance:.1f} pixels"


def _false_positives(one: Evaluation) -> str:
    without = [s for s in one.slices if not s.counts.tumour_pixels]
    return _of(sum(s.counts.fp > 0 for s in without), len(without))


def _missed(one: Evaluation) -> str:
    return _of(sum(s.counts.tp == 0 for s in one.tumour_slices), len(one.tumour_slices))


def _smallest_found(one: Evaluation) -> str:
    found = [s.counts.tumour_pixels for s in one.tumour_slices if s.counts.tp]
    return f"{min(found)} pixels" if found else "none"


def _largest_missed(one: Evaluation) -> str:
    missed = [s.counts.tumour_pixels for s in one.tumour_slices if not s.counts.tp]
    return f"{max(missed)} pixels" if missed else "none"


COUNTED: dict[str, Callable[[Evaluation], str]] = {
    "HD95, mean per patient": _distance,
    "slices without tumour that get a mask": _false_positives,
    "tumour slices that are missed": _missed,
    "smallest tumour found in a slice": _smallest_found,
    "largest tumour missed in a slice": _largest_missed,
}
