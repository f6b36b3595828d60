"""The split into parts: who is trained on, who chooses the epoch, and who is kept apart."""

import numpy as np
import pandas as pd

from segport.errors import UsageError
from segport_train.patients import look_up
from segport_train.settings import TrainSettings

PARTS = ("train", "val", "test")
FEW = 5  # patients below which one of them moves a part's mean by more than differences between models usually are


def assign_parts(table: pd.DataFrame, settings: TrainSettings) -> pd.Series:
    """Return "train", "val" or "test" for each row, seeded.

    By patient; with `fold` k/n the k-th of n equal groups of patients is "test", so that over n runs every patient is
    kept apart once; with `split` "site" the patients of the `holdout` sites are; with "slice" neighbouring slices are
    divided, which leaks; a split file decides all by itself. From three patients on, a part that is asked for has at
    least one. Raises `UsageError` when the split file names no part for a patient, when
    a patient's site is not known, when nothing is left to train on, or when pixel-identical slices lie in two parts.
    """
    if settings.split_file is not None:
        parts = look_up(table.patient, "--split-file", settings.split_file, "part", PARTS)
    else:
        units = table.relative if settings.split == "slice" else table.patient
        names = np.array(sorted(units.unique()))
        np.random.default_rng(settings.seed).shuffle(names)
        test = _kept_apart(table, names, settings)
        rest = [name for name in names if name not in test]
        validation = rest[: _share(len(names), settings.validation)]
        assigned = dict.fromkeys(validation, "val") | dict.fromkeys(test, "test")
        parts = units.map(lambda n: assigned.get(n, "train"))
    if not table.tumour_pixels[parts == "train"].any():
        raise UsageError(f"the split leaves no slice with tumour to train on; remedy: {_more_to_train(settings)}")
    _refuse_twins(table, parts)
    return parts


def describe_parts(table: pd.DataFrame) -> list[str]:
    """Return what the user should know of the parts: which are missing, and which are too small to say much."""
    counts = table.groupby("part").patient.nunique().to_dict()
    notes = [
        f"the {part} part has {counts[part]} {'patient' if counts[part] == 1 else 'patients'}: its scores say little of"
        " other patients"
        for part in ("val", "test")
        if counts.get(part, FEW) < FEW
    ]
    tumour = table.tumour_pixels.groupby(table.part).any()
    notes += [
        f"the {part} part has no slice with tumour: "
        + ("best.safetensors will be the last epoch's" if part == "val" else "its Dice says only where a mask is wrong")
        for part in ("val", "test")
        if not tumour.get(part, True)
    ]
    if "val" not in counts:
        notes.append("there is no val part: best.safetensors will be the last epoch's, chosen by nothing")
    if "test" not in counts:
        notes.append("there is no test part: no score will come from patients that nothing was chosen on")
    return notes


def _kept_apart(table: pd.DataFrame, names: np.ndarray, settings: TrainSettings) -> set[str]:
    """Return which of the shuffled `names` are the test part."""
    if settings.split == "site":
        return _patients_of_sites(table, settings)
    if settings.fold is not None:
        number, folds = settings.fold
        if folds > len(names):
            raise UsageError(f"--fold {number}/{folds}: there are {len(names)} patients; expected no more folds")
        return set(names[number - 1 :: folds])
    validation = _share(len(names), settings.validation)
    return set(names[validation : validation + _share(len(names), settings.test)])


def _patients_of_sites(table: pd.DataFrame, settings: TrainSettings) -> set[str]:
    homeless = table.patient[table.site == ""]
    if len(homeless):
        raise UsageError(
            f"--site-pattern {settings.site_pattern}: does not match the patient {homeless.iloc[0]}; its first group"
            " names the site; remedy: a pattern that matches, or --sites CSV"
        )
    unknown = sorted(set(settings.holdout) - set(table.site))
    if unknown:
        found = ", ".join(sorted(set(table.site)))
        raise UsageError(f"--holdout {unknown[0]}: no patient is of that site; found {found}")
    return set(table.patient[table.site.isin(settings.holdout)])


def _more_to_train(settings: TrainSettings) -> str:
    """Return what the user can do for a larger training part."""
    if settings.split_file is not None:
        return "a --split-file that names more patients train"
    if settings.split == "site":
        return "a smaller --val, or fewer --holdout sites"
    return "a smaller --val, or more folds" if settings.fold is not None else "smaller --val and --test"


def _refuse_twins(table: pd.DataFrame, parts: pd.Series) -> None:
    """Raise when the same pixels lie in two parts, whatever their masks: one patient under two names would leak.

    Constant slices are exempt: they show nothing of a patient, and every volume may have some.
    """
    shown = table[~table.constant]
    spread = parts[shown.index].groupby(shown.shown_sha256).nunique()
    twins = shown[shown.shown_sha256.isin(spread.index[spread > 1])].sort_values("shown_sha256", kind="stable")
    if len(twins):
        first, second = twins.relative.iloc[0], twins.relative.iloc[1]
        raise UsageError(
            f"{len(twins)} slices with the same pixels lie in two parts, such as {first} and {second};"
            " remedy: remove the copies, or give a --split-file that keeps their patients in one part"
        )


def _share(count: int, share: float) -> int:
    """Return how many of `count` units a share means; at least one when asked for and there are three or more."""
    return max(round(count * share), 1 if share > 0 and count >= 3 else 0)
