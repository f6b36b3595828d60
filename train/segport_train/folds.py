"""Out-of-fold scores: the test parts of k runs, put together, so that every patient is scored by a stranger to it.

python -m segport_train.folds RUN1 RUN2 RUN3
"""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import click

from segport.command import run_command
from segport.errors import UsageError
from segport.modelfile import file_sha256
from segport.text import csv_safe
from segport_train.evaluation import Evaluation
from segport_train.init import NAMED
from segport_train.notes import NOTES
from segport_train.results import read_part
from segport_train.settings import FREE_ON_RESUME
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

UNTAUGHT = ("none", "imagenet")  # weights that no patient made


@dataclass(frozen=True)
class FoldRun:
    """A finished run of `--fold` NUMBER/FOLDS: its settings, how many patients its data has, and its test part.

    `init_sha256`: of the file that `init` names, as it was then.
    """

    folder: Path
    settings: dict[str, Any]
    init_sha256: str | None
    number: int
    folds: int
    patients: int
    test: Evaluation


def read_run(folder: Path) -> FoldRun:
    """Read a run folder; raises `UsageError` where it is no finished run of a fold."""
    try:
        recorded = json.loads((folder / "settings.json").read_bytes())
        settings, data = recorded["settings"] | {"precision": recorded["precision"]}, recorded["data"]
        fold, patients = settings["fold"], sum(part["patients"] for part in data.values())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder}: settings.json cannot be read ({error!r}); expected a run folder") from error
    if fold is None:
        raise UsageError(f"{folder}: was not trained with --fold; expected the runs of --fold 1/N to N/N")
    return FoldRun(folder, settings, _sha256_of_start(recorded), fold[0], fold[1], patients, read_part(folder, "test"))


def pool(runs: Sequence[FoldRun]) -> Evaluation:
    """Return the evaluation of all test parts together.

    Raises `UsageError` unless the runs are all folds of one split of the same data with the same settings, no patient
    is in two test parts, and none had a part in the weights that its run started from.
    """
    first = runs[0]
    for run in runs[1:]:
        pairs = [(n, first.settings.get(n), run.settings.get(n)) for n in sorted(first.settings | run.settings)]
        pairs = [("number of folds", first.folds, run.folds), ("patients", first.patients, run.patients), *pairs]
        pairs.append(("start", _kind_of_start(first), _kind_of_start(run)))
        changed = [f"{n}: {a} there, {b} here" for n, a, b in pairs if a != b and n not in FREE]
        if changed:
            raise UsageError(f"{run.folder}: is not of one experiment with {first.folder}: {'; '.join(changed)}")
    numbers = sorted(run.number for run in runs)
    if numbers != list(range(1, first.folds + 1)):
        raise UsageError(f"these are the folds {numbers} of {first.folds}; expected each from 1 to {first.folds} once")
    owners: dict[str, Path] = {}
    for run in runs:
        _refuse_known(run)
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
    unknown = sorted({str(path) for run in runs for path, known in _starts(run) if known is None})
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


def _kind_of_start(run: FoldRun) -> str:
    init = str(run.settings["init"])
    return init if init in NAMED else "a file"


def _refuse_known(run: FoldRun) -> None:
    """Raise where a test patient had a part in the weights that the run started from, or in those before them."""
    for path, known in _starts(run):
        twice = sorted(set(run.test.patients) & (known or set()))
        if twice:
            raise UsageError(
                f"{run.folder}: started from {path}, which {len(twice)} of its test patients had a part in, such as"
                f" {twice[0]}; remedy: start from a run of the same fold"
            )


def _starts(run: FoldRun) -> Iterator[tuple[Path, set[str] | None]]:
    """Yield the checkpoint that a run started from, the one before it and so on, with the patients that made each.

    None where that is not known: there is no such file, it does not lie in its run folder, or it is another by now.
    """
    init, sha256, seen = run.settings["init"], run.init_sha256, set()
    while init not in UNTAUGHT:
        path = Path(init)
        if path in seen:  # folders were renamed: what lies there is not what was used
            yield path, None
            return
        seen.add(path)
        try:
            with (path.parent / "split.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
                known = {str(csv_safe(row["patient"])) for row in csv.DictReader(file) if row["part"] != "test"}
            recorded = json.loads((path.parent / "settings.json").read_bytes())
            init = recorded["settings"]["init"]
            same = sha256 in (None, file_sha256(path))
        except (OSError, ValueError, KeyError):
            same = False
        if not same:
            yield path, None
            return
        yield path, known
        sha256 = _sha256_of_start(recorded)


def _sha256_of_start(recorded: dict[str, Any]) -> str | None:
    """Return the SHA-256 of the file that a run started from; None where settings.json is older than that entry."""
    sha256 = recorded.get("start", {}).get("init_sha256")
    return None if sha256 is None else str(sha256)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False))
def command(runs: tuple[Path, ...]) -> int:
    """Print the scores of RUNS, the folds 1/N to N/N of one experiment, over all patients."""
    click.echo(describe_folds([read_run(folder) for folder in runs]))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(command, None, name="segport_train.folds", interrupted="interrupted"))
