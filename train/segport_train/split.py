"""The split into parts: who is trained on, who chooses the epoch, and who is kept apart."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from segport.errors import UsageError
from segport_train.settings import TrainSettings

PARTS = ("train", "val", "test")


def assign_parts(table: pd.DataFrame, settings: TrainSettings) -> pd.Series:
    """Return "train", "val" or "test" for each row, seeded.

    By patient; with `fold` k/n the k-th of n equal groups of patients is "test", so that over n runs every patient is
    kept apart once; with `split` "site" the patients of the `holdout` sites are; with "slice" neighbouring slices are
    divided, which leaks; a split file decides all by itself. Raises `UsageError` when the split file or the site
    pattern names no part for a patient, when nothing is left to train on, or when the same tumour slice lies in two
    parts.
    """
    if settings.split_file is not None:
        parts = _parts_from_file(table, settings.split_file)
    else:
        units = table.relative if settings.split == "slice" else table.patient
        names = np.array(sorted(units.unique()))
        np.random.default_rng(settings.seed).shuffle(names)
        test = _kept_apart(names, settings)
        rest = [name for name in names if name not in test]
        validation = rest[: _share(len(names), settings.validation)]
        assigned = dict.fromkeys(validation, "val") | dict.fromkeys(test, "test")
        parts = units.map(lambda n: assigned.get(n, "train"))
    if not table.tumour_pixels[parts == "train"].any():
        raise UsageError("the split leaves no slice with tumour to train on; remedy: smaller --val and --test")
    _refuse_twins(table, parts)
    return parts


def _kept_apart(names: np.ndarray, settings: TrainSettings) -> set[str]:
    """Return which of the shuffled `names` are the test part."""
    if settings.split == "site":
        return _patients_of_sites(names, settings)
    if settings.fold is not None:
        number, folds = settings.fold
        if folds > len(names):
            raise UsageError(f"--fold {number}/{folds}: there are {len(names)} patients; expected no more folds")
        return set(names[number - 1 :: folds])
    validation = _share(len(names), settings.validation)
    return set(names[validation : validation + _share(len(names), settings.test)])


def _patients_of_sites(names: np.ndarray, settings: TrainSettings) -> set[str]:
    sites = {name: _site(name, settings.site_pattern) for name in names}
    unknown = sorted(set(settings.holdout) - set(sites.values()))
    if unknown:
        found = ", ".join(sorted(set(sites.values())))
        raise UsageError(f"--holdout {unknown[0]}: no patient is of that site; found {found}")
    return {name for name, site in sites.items() if site in settings.holdout}


def _site(patient: str, pattern: str) -> str:
    found = re.search(pattern, patient)
    if found is None:
        raise UsageError(
            f"--site-pattern {pattern}: does not match the patient {patient}; its first group names the site"
        )
    return str(found[1])


def _refuse_twins(table: pd.DataFrame, parts: pd.Series) -> None:
    """Raise when the same tumour slice lies in two parts: one patient under two names would leak."""
    tumour = table[table.tumour_pixels > 0]
    spread = parts[tumour.index].groupby(tumour.sha256).nunique()
    twins = tumour[tumour.sha256.isin(spread.index[spread > 1])].sort_values("sha256")
    if len(twins):
        first, second = twins.relative.iloc[0], twins.relative.iloc[1]
        raise UsageError(
            f"{len(twins)} slices lie in two parts under different names, such as {first} and {second};"
            " remedy: remove the copies, or give a --split-file that keeps them in one part"
        )


def _parts_from_file(table: pd.DataFrame, path: Path) -> pd.Series:
    try:
        split = pd.read_csv(path, dtype=str, keep_default_na=False, encoding_errors="surrogateescape")
    except (OSError, ValueError) as error:
        raise UsageError(f"--split-file {path}: cannot be read ({error})") from error
    if not {"patient", "part"} <= set(split.columns):
        raise UsageError(f"--split-file {path}: has columns {list(split.columns)}, expected patient and part")
    unknown = sorted(set(split.part) - set(PARTS))
    if unknown:
        raise UsageError(f"--split-file {path}: names the parts {unknown}, expected {', '.join(PARTS)}")
    if split.patient.duplicated().any():
        twice = split.patient[split.patient.duplicated()].iloc[0]
        raise UsageError(f"--split-file {path}: names the patient {twice} twice")
    parts = table.patient.map(split.set_index("patient").part)
    if parts.isna().any():
        missing = sorted(table.patient[parts.isna()].unique())
        raise UsageError(f"--split-file {path}: names no part for {len(missing)} patients, such as {missing[0]}")
    return parts


def _share(count: int, share: float) -> int:
    """Return how many of `count` units a share means; at least one when asked for and there are three or more."""
    return max(round(count * share), 1 if share > 0 and count >= 3 else 0)
