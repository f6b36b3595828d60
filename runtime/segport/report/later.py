"""Makes the report of a run, at its end or later, from what the run left in its output folder."""

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

from segport.contract import ModelContract
from segport.errors import UsageError
from segport.folders import LEDGER
from segport.ledger import Ledger
from segport.pipeline import READERS
from segport.plan import RUN, Plan, plan_run
from segport.report.slices import SliceViews
from segport.report.volumes import VolumeViews
from segport.report.writer import ReportWriter
from segport.settings import RunSettings
from segport.workspace import Workspace, open_workspace

AGAIN = "remedy: run seg-infer again with --report"


def write_run_report(
    plan: Plan, settings: RunSettings, workspace: Workspace, stop: Callable[[int], bool] = lambda _: False
) -> Path | None:
    """Write the report of the run that left run.json and ledger in the plan's output folder; return its page's path.

    The folder's ledger must be closed, its workspace open. `stop` and errors as for `ReportWriter.write`.
    """
    document = json.loads((plan.out / RUN).read_text(encoding="utf-8"))
    contract = ModelContract.from_json(json.dumps(document["contract"]), str(plan.out / RUN))
    with closing(Ledger(plan.out, writable=True)) as ledger:
        model = document["model"]["sha256"]
        slices = SliceViews(plan, settings, contract, model, ledger, workspace)
        volumes = VolumeViews(plan, settings, contract, model, ledger)
        patients = chain(slices.patients(), volumes.patients())
        return ReportWriter(plan.out, settings, ledger, workspace).write(document, patients, stop)


def write_later(
    out: Path, *, overwrite: bool = False, verify: bool = False, stop: Callable[[int], bool] = lambda _: False
) -> Path | None:
    """Write the report of an earlier run from its output folder; return its page's path, None when stopped.

    A run that was interrupted has one of what is there. The inputs must still lie where they were. Raises `UsageError`
    for a folder that no run left or that says too little, else as `ReportWriter.write`.
    """
    document = _read_run(out)
    with closing(Ledger(out, writable=False)) as ledger:
        roots = [Path(root) for root in ledger.roots]
    if not roots:
        raise UsageError(f"{out / LEDGER}: does not say where its slices are, as ledgers of older versions; {AGAIN}")
    gone = [root for root in roots if not root.exists()]
    if gone:
        raise UsageError(f"{out}: its slices were read from {gone[0]}, which is not there; remedy: put them back there")
    settings = replace(_read_settings(out, document["settings"]), overwrite=overwrite, verify=verify)
    plan = plan_run(roots, out, settings)
    with open_workspace(out, READERS) as workspace:
        return write_run_report(plan, settings, workspace, stop)


def _read_run(out: Path) -> Mapping[str, Any]:
    """Return the run.json of an output folder; raises `UsageError` where there is none, or no ledger."""
    missing = [name for name in (RUN, LEDGER) if not (out / name).is_file()]
    if missing:
        raise UsageError(
            f"{out}: holds no {missing[0]}; expected the output folder of a run,"
            " as in: seg-infer --report-only folder-masks"
        )
    try:
        document = json.loads((out / RUN).read_text(encoding="utf-8"))
        _ = document["settings"], document["contract"], document["model"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{out / RUN}: says too little of its run ({error!r}); {AGAIN}") from error
    return document  # type: ignore[no-any-return]


def _read_settings(out: Path, document: Mapping[str, Any]) -> RunSettings:
    """Return the settings in a run.json; those that this version does not know are left out."""
    known = {f.name for f in fields(RunSettings)}
    values = {name: value for name, value in document.items() if name in known}
    try:
        for name in ("model", "masks"):
            values[name] = Path(values[name]) if values.get(name) else None
        for name in ("window", "spacing"):
            values[name] = tuple(values[name]) if values.get(name) else None
        for name in ("channel", "series"):
            values[name] = tuple(values.get(name, ()))
        return RunSettings(**values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{out / RUN}: its settings cannot be read ({error!r}); {AGAIN}") from error
