"""What the ledger says of one slice: which file was read, with what, what came out."""

import errno
import hashlib
import json
import stat
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePath
from typing import Any, Literal, get_args

from segport.regions import Regions
from segport.scoring import Agreement, Counts

Status = Literal["written", "failed", "died", "sheet", "report"]
"""How a slice ended. "died": the line is of a death (`segport.deaths`); "sheet": of a contact sheet, "report":
of files of the report page."""


TEXTS = ("stem", "source", "message", "model", "settings", "volume", "stack", "time")
MISFITS = (TypeError, ValueError, KeyError, AttributeError)
"""What `from_json` raises for a line that was edited, or written by another version."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """A file at one moment: size in bytes, time of its last change in nanoseconds, SHA-256 of its bytes."""

    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        """Return the stamp of a file; raises `OSError`. A change while it is read leaves a time that differs later."""
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):  # opening a pipe would wait for ever
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with path.open("rb") as file:
            return cls(facts.st_size, facts.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest())

    def is_of(self, path: Path, *, verify: bool) -> bool:
        """Return whether `path` holds these bytes: size and time decide, the hash where they differ or to `verify`."""
        try:
            facts = path.stat()
            if not verify and (facts.st_size, facts.st_mtime_ns) == (self.size, self.mtime_ns):
                return True
            return facts.st_size == self.size and Stamp.of(path).sha256 == self.sha256
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Found:
    """What a slice's mask holds. `shape`: height and width. `agreement` with the true mask: None when not scored.

    `left_out`: pixels of three-dimensional components that were too small for the mask.
    """

    shape: tuple[int, int]
    tumour_pixels: int
    mean_probability: float
    regions: Regions
    agreement: Agreement | None = None
    left_out: int = 0

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Found":
        """Return what a parsed line says; errors as for `Entry.from_json`."""
        values = dict(document)
        regions: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values["regions"].items()}
        values["shape"], values["regions"] = tuple(values["shape"]), Regions(**regions)
        if agreement := values["agreement"]:
            values["agreement"] = Agreement(**(agreement | {"counts": Counts(**agreement["counts"])}))
        return cls(**values)


@dataclass(frozen=True, slots=True)
class FoundVolume:
    """What a volume's mask holds. `slices`: of each axial slice from the feet to the head; `warnings`: theirs.

    `spacing`: height and width of a pixel and distance of the slices, in millimetres. `components`: connected in three
    dimensions; their `volume` together and the `largest` one in mm3. `notes`: what was guessed or put in place of what.
    """

    slices: tuple[Found, ...]
    warnings: tuple[tuple[str, ...], ...]
    spacing: tuple[float, float, float]
    components: int
    volume: float
    largest: float
    notes: tuple[str, ...]

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "FoundVolume":
        """Return what a parsed line says; errors as for `Entry.from_json`."""
        values = dict(document)
        values["slices"] = tuple(map(Found.from_json, values["slices"]))
        values["warnings"] = tuple(map(tuple, values["warnings"]))
        values["spacing"], values["notes"] = tuple(values["spacing"]), tuple(values["notes"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger, on a slice or a volume.

    `stem`: the outputs' path below the output folder, without ending. `source`: the slice's path. `read`: its stamp
    when it was read. `model`: SHA-256 of the model file; `settings`: hash of the settings that decide pixels; `volume`:
    state of the patient's slices where the intensity window depends on them; of a volume that of its files, of a sheet
    or report that of what it shows. `stack`: which slices its mask was judged beside (`stacks.name_stack`). `outputs`:
    stamps by ending. `scored`: whether a true mask was looked for; `truth`: its stamp. `warnings`: why the slice is
    unlike the training data.
    """

    stem: str
    source: str
    status: Status
    message: str = ""
    read: Stamp | None = None
    model: str = ""
    settings: str = ""
    volume: str = ""
    stack: str = ""
    outputs: dict[str, Stamp] = field(default_factory=dict)
    scored: bool = False
    truth: Stamp | None = None
    found: Found | None = None
    found_volume: FoundVolume | None = None
    warnings: tuple[str, ...] = ()
    time: str = ""

    def to_json(self) -> str:
        """Return the entry as one line of JSON, without the line's end."""
        return json.dumps(_fields(self), separators=(",", ":"), allow_nan=False, default=_fields)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Entry":
        """Return the entry in a parsed line; raises one of `MISFITS` where it is no entry's."""
        values = dict(document)
        texts = [values.get(name, "") for name in TEXTS] + list(values.get("warnings", ()))
        if not all(isinstance(text, str) for text in texts) or values["status"] not in get_args(Status):
            raise TypeError("not an entry of this version")
        if any(PurePath(ending).name != ending for ending in values.get("outputs", {})):
            raise ValueError("an ending that leads to another folder")
        for name in ("read", "truth"):
            values[name] = Stamp(**values[name]) if values.get(name) else None
        values["outputs"] = {str(k): Stamp(**v) for k, v in dict(values.get("outputs", {})).items()}
        for name, kind in (("found", Found), ("found_volume", FoundVolume)):
            values[name] = kind.from_json(values[name]) if values.get(name) else None
        values["warnings"] = tuple(values.get("warnings", ()))
        return cls(**values)


def _fields(record: Any) -> dict[str, Any]:
    """Return a dataclass as `json` takes it; `asdict` would copy all that is in it, which takes ten times as long."""
    return {f.name: getattr(record, f.name) for f in fields(record)}
