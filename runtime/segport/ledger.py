"""The journal of an output folder: an append-only file of JSON lines that makes a run resumable.

A slice's line is on the disk before its mask gets its name, so every mask that a run wrote is named by a line. The last
line of a slice counts. The file is read once, and only where each line begins is kept: 16 bytes a line.
"""

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np

from segport.entry import MISFITS, Entry
from segport.errors import OutputError
from segport.folders import LEDGER

BLOCK = 65_536  # bytes that are read at a time, from the end, to find the end of the last whole line


class Ledger:
    """The ledger of an output folder. `inputs`: the names of the inputs of the last run, None without one.

    `roots`: their paths. `unusable`: how many lines are no entries (a damaged disk, another program). `find` may be
    called from threads.
    """

    def __init__(self, folder: Path, *, writable: bool) -> None:
        """Open the ledger and, where `writable`, mend a last line that was cut off; raises `OutputError`."""
        self.path = folder / LEDGER
        self.inputs: list[str] | None = None
        self.roots: list[str] = []
        self.unusable = 0
        self._lock, self._appending = Lock(), Lock()
        self._writer: BinaryIO | None = None
        self._reader: BinaryIO | None = None
        try:
            if writable:
                self._writer = self.path.open("ab", buffering=0)
                _mend_tail(self.path)
            if self.path.exists():
                self._reader = self.path.open("rb")
            self._index()
        except OSError as error:
            self.close()
            raise self._failed(error) from error

    def history(self, stem: str) -> Iterator[Entry]:
        """Yield the entries of a slice, the last first."""
        key = _key(stem)
        at = int(np.searchsorted(self._keys, key, side="right"))
        while at > 0 and self._keys[at - 1] == key:
            at -= 1
            entry = self._read(int(self._starts[at]))
            if entry is not None and entry.stem == stem:
                yield entry

    def find(self, stem: str) -> Entry | None:
        """Return the last entry of a slice as it was when the ledger was opened; None where there is none."""
        return next(self.history(stem), None)

    def begin_run(self, inputs: list[str], roots: Sequence[str] = ()) -> None:
        """Note which inputs the lines that follow are of, and their paths; raises `OutputError`."""
        self._append(json.dumps({"run": inputs, "roots": list(roots)}) + "\n")

    def append(self, entries: Iterable[Entry]) -> None:
        """Append entries and wait until they are on the disk; raises `OutputError`, leaving no half line."""
        self._append("".join(entry.to_json() + "\n" for entry in entries))

    def close(self) -> None:
        """Close the file."""
        for file in (self._writer, self._reader):
            if file is not None:
                file.close()

    def _append(self, text: str) -> None:
        if text and self._writer is not None:
            with self._appending:
                self._append_whole(text, self._writer)

    def _append_whole(self, text: str, writer: BinaryIO) -> None:
        data = text.encode("ascii")  # JSON escapes the rest, lone surrogates too
        end = os.fstat(writer.fileno()).st_size
        try:
            while data:
                data = data[writer.write(data) or 0 :]
            os.fsync(writer.fileno())
        except OSError as error:
            with suppress(OSError):  # the half line that stays is mended when the ledger is opened again
                writer.truncate(end)
            raise self._failed(error) from error

    def _index(self) -> None:
        keys, starts, position = array("Q"), array("Q"), 0
        for line in self._reader or ():
            document = _parse(line)
            if document is not None and "stem" in document:
                keys.append(_key(str(document["stem"])))
                starts.append(position)
            elif document is not None and isinstance(document.get("run"), list):
                self.inputs = [str(name) for name in document["run"]]
                roots = document.get("roots")
                self.roots = [str(root) for root in roots] if isinstance(roots, list) else []
            else:
                self.unusable += 1
            position += len(line)
        found = np.frombuffer(keys, np.uint64) if keys else np.empty(0, np.uint64)
        order = np.argsort(found, kind="stable")  # stable: the later of two lines stays behind the earlier
        self._keys = found[order]
        self._starts = (np.frombuffer(starts, np.uint64) if starts else np.empty(0, np.uint64))[order]

    def _read(self, start: int) -> Entry | None:
        if self._reader is None:
            return None
        with self._lock:
            self._reader.seek(start)
            document = _parse(self._reader.readline())
        try:
            return None if document is None else Entry.from_json(document)
        except MISFITS:  # of another version of segport, or edited
            return None

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: cannot be read or written ({error.strerror or error})")


def _key(stem: str) -> int:
    return int.from_bytes(hashlib.blake2b(stem.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _mend_tail(path: Path) -> None:
    """Cut off a last line that has no end: the process or the machine stopped while it was written."""
    with path.open("rb+") as file:
        end = position = file.seek(0, os.SEEK_END)
        while position > 0:
            start = max(0, position - BLOCK)
            file.seek(start)
            line_end = file.read(position - start).rfind(b"\n")
            if line_end >= 0:
                position = start + line_end + 1
                break
            position = start
        if position < end:
            file.truncate(position)
