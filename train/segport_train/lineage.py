"""The runs before a run: which checkpoint it started from, which that one, and the patients that made each."""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segport.modelfile import file_sha256
from segport.text import csv_safe

UNTAUGHT = ("none", "imagenet")  # weights that no patient made


@dataclass(frozen=True)
class Ancestor:
    """A file of weights that a run started from. `trained`, `chosen`: patients of its train and val parts.

    `recorded`: its run's settings.json, None where that is not known: there is no such file, it lies in no run folder,
    or it is another by now.
    """

    path: Path
    trained: frozenset[str] = frozenset()
    chosen: frozenset[str] = frozenset()
    recorded: dict[str, Any] | None = None

    @property
    def patients(self) -> frozenset[str]:
        """The patients that made it."""
        return self.trained | self.chosen


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
            parts: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
            for row in csv.DictReader(file):
                parts[row["part"]].add(str(csv_safe(row["patient"])))
        recorded = json.loads((path.parent / "settings.json").read_bytes())
        _ = recorded["settings"]["init"]
        same = sha256 in (None, file_sha256(path))
    except (OSError, ValueError, KeyError, TypeError):
        return Ancestor(path)
    return Ancestor(path, frozenset(parts["train"]), frozenset(parts["val"]), recorded) if same else Ancestor(path)


def find_taught(recorded: dict[str, Any], val: Iterable[str], test: Iterable[str]) -> tuple[list[str], bool]:
    """Return which patients of a run's val and test parts its ancestors were made with, and whether all are known.

    Val may be val again: it chooses epochs, and its figures are called too good anyway.
    """
    val, test = ({str(csv_safe(patient)) for patient in part} for part in (val, test))
    ancestors = trace_ancestors(recorded)
    taught = {p for a in ancestors for p in (a.trained & (val | test)) | (a.chosen & test)}
    return sorted(taught), all(a.recorded is not None for a in ancestors)
