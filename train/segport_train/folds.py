"""Out-of-fold scores: the test parts of k runs, put together, so that every patient is scored by a stranger to it.

python -m segport_train.folds RUN1 RUN2 RUN3
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import click

from segport.command import run_command
from segport.errors import UsageError
from segport_train.evaluation import Evaluation
from segport_train.init import NAMED
from segport_train.lineage import Ancestor, trace_ancestors
from segport_train.notes import NOTES
from segport_train.results import read_part
from segport_train.settings import FREE_ON_RESUME, recorded_setting
from segport_train.tables import (
    calibration_table,
    describe_part,
    group_table,
    score_table,
    site_table,
    size_table,
)

# What may differ between the runs: the fold, what decides no number, and the weights they start from, whose patients
# are checked instead. Where the data lies may not: other data would be another experiment.
FREE = (FREE_ON_RESUME | {"fold", "init"}) - {"data", "masks", "split_file"}

# What decides numbers and stands beside the settings in settings.json, and what a run that lacks it had.
BESIDE = {"processes": 1, "order": None}


@dataclass(frozen=True)
class FoldRun:
    """A finished run of `--fold` NUMBER/FOLDS. `recorded`: its settings.json. `ancestors`: the runs before it."""

    folder: Path
    recorded: dict[str, Any]
    ancestors: tuple[Ancestor, ...]
    number: int
    folds: int
    patients: int
    test: Evaluation


def read_run(folder: Path) -> FoldRun:
    """Read a run folder; raises `UsageError` where it is no finished run of a fold."""
    try:
        recorded = json.loads((folder / "settings.json").read_bytes())
        fold, patients = recorded["settings"]["fold"], _counted(recorded, "patients")
        ancestors = trace_ancestors(recorded)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{folder}: settings.json cannot be read ({error!r}); expected a run folder") from error
    if fold is None:
        raise UsageError(f"{folder}: was not trained with --fold; expected the runs of --fold 1/N to N/N")
    return FoldRun(folder, recorded, ancestors, fold[0], fold[1], patients, read_part(folder, "test"))


def pool(runs: Sequence[FoldRun]) -> Evaluation:
    """Return the evaluation of all test parts together.

    Raises `UsageError` unless the runs, and those that they started from, are all folds of one split of the same data
    with the same settings, no patient is in two test parts, and none had a part in what its run started from.
    """
    first = runs[0]
    for run in runs:
        _refuse_known(run)
        changed = _differences(first, run)
        if first.folds != run.folds:
            changed.append(f"number of folds: {first.folds} there, {run.folds} here")
        if changed:
            raise UsageError(f"{run.folder}: is not of one experiment with {first.folder}: {'; '.join(changed)}")
    numbers = sorted(run.number for run in runs)
    if numbers != list(range(1, first.folds + 1)):
        raise UsageError(f"these are the folds {numbers} of {first.folds}; expected each from 1 to {first.folds} once")
    owners: dict[str, Path] = {}
    for run in runs:
        for patient in run.test.patients:
            if owners.setdefault(patient, run.folder) != run.folder:
                raise UsageError(f"the patient {patient} is in the test part of {owners[patient]} and of {run.folder}")
    if len(owners) != first.patients:
        raise UsageError(f"the test parts hold {len(owners)} patients, the data {first.patients}; expected the same")
    return reduce(add, (run.test for run in runs))


def describe_folds(runs: Sequence[FoldRun]) -> str:
    """Return the report on all folds, in Markdown; errors as for `pool`."""
    pooled = pool(runs)
    ordered = sorted(runs, key=lambda run: run.number)
    unknown = sorted({str(one.path) for run in runs for one in run.ancestors if one.recorded is None})
    return "".join(
        [
            f"# Out-of-fold scores of {len(runs)} runs\n\n",
            "Every patient is scored once, by a network that it neither trained nor chose the epoch of.\n",
            *(
                f"Started from {path}, made from unknown patients; if these are among them, it flatters.\n"
                for path in unknown
            ),
            f"\n## {describe_part('all folds', pooled)}\n\n",
            score_table(pooled) + size_table(pooled),
            "## Folds\n\n" + group_table(["fold"], (([f"{r.number} of {r.folds}"], r.test) for r in ordered)),
            f"## Sites\n\n{sites}" if (sites := site_table({"all folds": pooled})) else "",
            f"## Calibration\n\n{calibration_table({'all folds': pooled})}",
            NOTES,
        ]
    )


def _refuse_known(run: FoldRun) -> None:
    """Raise where a test patient had a part in the weights that the run started from, or in those before them."""
    for ancestor in run.ancestors:
        twice = sorted(set(run.test.patients) & ancestor.patients)
        if twice:
            raise UsageError(
                f"{run.folder}: started from {ancestor.path}, which {len(twice)} of its test patients had a part in,"
                f" such as {twice[0]}; remedy: start from a run of the same fold"
            )


def _differences(one: FoldRun, other: FoldRun) -> list[str]:
    """Return what decides numbers and is not the same in two runs, or in the runs that they started from."""
    found = _compare(one.recorded, other.recorded)
    known = all(ancestor.recorded is not None for run in (one, other) for ancestor in run.ancestors)
    if known and len(one.ancestors) != len(other.ancestors):
        found.append(f"runs before it: {len(one.ancestors)} there, {len(other.ancestors)} here")
    for there, here in zip(one.ancestors, other.ancestors, strict=False):
        if there.recorded is not None and here.recorded is not None:
            found += [f"{here.path}: {text}" for text in _compare(there.recorded, here.recorded)]
    return found


def _compare(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    there, here = (run["settings"] | {"precision": run.get("precision")} for run in (one, other))  # what auto became
    names = [n for n in sorted(there | here) if n not in FREE]
    pairs = [(n, recorded_setting(there, n), recorded_setting(here, n)) for n in names]
    pairs += [(n, _counted(one, n), _counted(other, n)) for n in ("patients", "slices")]
    pairs += [(n, one.get(n, default), other.get(n, default)) for n, default in BESIDE.items()]
    pairs.append(("start", _kind_of_start(there), _kind_of_start(here)))
    return [f"{n}: {was} there, {is_now} here" for n, was, is_now in pairs if was != is_now]


def _kind_of_start(settings: dict[str, Any]) -> str:
    init = str(settings["init"])
    return init if init in NAMED else "a file"


def _counted(recorded: dict[str, Any], what: str) -> int:
    return sum(part.get(what, 0) for part in recorded["data"].values())


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False))
def command(runs: tuple[Path, ...]) -> int:
    """Print the scores of RUNS, the folds 1/N to N/N of one experiment, over all patients."""
    click.echo(describe_folds([read_run(folder) for folder in runs]))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(command, None, name="segport_train.folds", interrupted="interrupted"))
