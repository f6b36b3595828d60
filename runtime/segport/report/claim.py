"""Where a report lies, and whether what lies there is a run's. Light: a run asks before its first slice."""

import os
from pathlib import Path

from segport.errors import OutputError
from segport.ledger import Ledger

REPORT, PAGE, STYLE, SCRIPT, PATIENTS = "report", "index.html", "report.css", "report.js", "patients"
KEY = "//report"  # no slice's stem begins so


def refuse_others_report(out: Path, ledger: Ledger, *, overwrite: bool) -> None:
    """Raise `OutputError` where the output folder holds a report that no run wrote."""
    if overwrite or ledger.find(KEY) is not None:
        return
    for name in (PAGE, STYLE, SCRIPT, PATIENTS):
        if os.path.lexists(out / REPORT / name):
            raise OutputError(
                f"{out / REPORT / name} is already there and no run of seg-infer wrote it;"
                " remedy: --overwrite to replace it, or another --out"
            )


def report_is_there(out: Path, ledger: Ledger) -> bool:
    """Return whether a run wrote a report here."""
    return ledger.find(KEY) is not None and (out / REPORT / PAGE).is_file()
