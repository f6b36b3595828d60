"""What a CSV says of each patient: the part it is in, the site it comes from."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from segport.errors import UsageError


def look_up(
    patients: "pd.Series[str]", flag: str, path: Path, column: str, allowed: Collection[str] = ()
) -> "pd.Series[str]":
    """Return for each of `patients`, a column of the table, what the CSV's `column` says.

    Raises `UsageError`, which names `flag`, for a CSV that cannot be read, lacks a column, names a patient twice or one
    of the table not at all, or says anything but what is `allowed` (where that is given).
    """
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, encoding_errors="surrogateescape")
    except (OSError, ValueError) as error:
        raise UsageError(f"{flag} {path}: cannot be read ({error})") from error
    if not {"patient", column} <= set(rows.columns):
        raise UsageError(f"{flag} {path}: has columns {list(rows.columns)}, expected patient and {column}")
    unknown = sorted(set(rows[column]) - set(allowed)) if allowed else []
    if unknown:
        raise UsageError(f"{flag} {path}: names the {column}s {unknown}, expected {', '.join(allowed)}")
    if rows.patient.duplicated().any():
        twice = rows.patient[rows.patient.duplicated()].iloc[0]
        raise UsageError(f"{flag} {path}: names the patient {twice} twice")
    found = patients.map(rows.set_index("patient")[column])
    if found.isna().any():
        missing = sorted(patients[found.isna()].unique())
        raise UsageError(f"{flag} {path}: names no {column} for {len(missing)} patients, such as {missing[0]}")
    return found
