"""The runs before a run: which checkpoint it started from, which that one, and the patients that made each."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segport.modelfile import file_sha256
from segport.text import csv_safe

UNTAUGHT = ("none", "imagenet")  # weights that no patient made


@dataclass(frozen=True)
class Ancestor:
    """A file of weights that a run started from. `patients`: those that made it. `recorded`: its run's settings.json.

    Both None where that is not known: there is no such file, it lies in no run folder, or it is another by now.
    """

    path: Path
    patients: frozenset[str] | None = None
    recorded: dict[str, Any] | None = None


def trace_ancestors(recorded: dict[str, Any]) -> tuple[Ancestor, ...]:
    """Return what the run of a settings.json started from, and what that one did, as far as it is known."""
    return tuple(_trace(recorded))


def _trace(recorded: dict[str, Any]) -> Iterator[Ancestor]:
    seen = set()
    while (init := recorded["settings"]["init"]) not in UNTAUGHT:
        path, sha256 = Path(init), recorded.get("start", {}).get("init_sha256")  # older runs have no such entry
        ancestor = Ancestor(path) if path in seen else _read(path, sha256)  # seen: the folders were renamed since
        yield ancestor
        if ancestor.recorded is None:
            return
        seen.add(path)
        recorded = ancestor.recorded


def _read(path: Path, sha256: str | None) -> Ancestor:
    try:
        with (path.parent / "split.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            patients = frozenset(str(csv_safe(row["patient"])) for row in csv.DictReader(file) if row["part"] != "test")
        recorded = json.loads((path.parent / "settings.json").read_bytes())
        _ = recorded["settings"]["init"]
        same = sha256 in (None, file_sha256(path))
    except (OSError, ValueError, KeyError, TypeError):
        return Ancestor(path)
    return Ancestor(path, patients, recorded) if same else Ancestor(path)
