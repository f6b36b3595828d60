"""Prepared slices in memory-mapped files, found by what they were made from, never by a name or a time.

A file is a row of records and, behind them, an index: which record is of which key, where it lies, its SHA-256; then
the index' own SHA-256 and length, and `MAGIC`. It is written beside its name and renamed when it is whole, so that one
that is cut has no end to be believed by; a record whose SHA-256 differs is prepared again. No file is ever changed:
processes that share a folder add files of their own, and the folder may be deleted whenever nothing runs.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from segport.contract import Input, ModelContract
from segport.errors import OutputError
from segport.outputs import rename
from segport.preprocess import Pixels, Window, prepare, prepare_mask, to_display

ENDING = ".slices"
MAGIC = b"segport slices 1"  # another layout, another number
STALE = 3600.0  # seconds without a write after which a temporary file is of a process that was killed
COUNTED = 4  # every fourth pixel: enough for percentiles of a patient
GREYS = 3 * 256 * 4  # bytes of the counts in a record


@dataclass(frozen=True, slots=True)
class CachedSlice:
    """A slice in a mapped file: pages are read when they are used and belong to all processes. Do not write to it."""

    record: NDArray[np.uint8]
    sha256: str
    size: int
    height: int
    width: int

    def is_sound(self) -> bool:
        """Return whether the record is what was written; reads all of it."""
        return hashlib.sha256(self.record.data).hexdigest() == self.sha256

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The prepared slice, uint8 [size, size, 3] RGB."""
        return self.record[: 3 * self.size**2].reshape(self.size, self.size, 3)

    @property
    def mask(self) -> NDArray[np.uint8]:
        """The prepared mask, uint8 [size, size] of 0 and 1."""
        return self.record[3 * self.size**2 : 4 * self.size**2].reshape(self.size, self.size)

    @property
    def greys(self) -> NDArray[np.uint32]:
        """How often each grey level occurs per channel, uint32 [3, 256], as `count_greys` counts."""
        return np.frombuffer(self.record[4 * self.size**2 :][:GREYS].tobytes(), "<u4").reshape(3, 256)

    @property
    def truth(self) -> NDArray[np.uint8]:
        """The mask at the slice's own size, uint8 [height, width] of 0 and 1."""
        bits = np.unpackbits(self.record[4 * self.size**2 + GREYS :], count=self.height * self.width)
        return bits.reshape(self.height, self.width)


class SliceCache:
    """Prepared slices of one input size in `folder`; where that is None, in a file that ends with the process.

    The key of a slice: the hashes of its pixels and mask, its window, and what the preparation makes of pictures that
    are made here, so that another rule, size or version of OpenCV finds nothing that differs.
    """

    def __init__(self, folder: Path | None, size: int) -> None:
        self._folder, self._size = folder, size
        self._contract = ModelContract(Input(size))  # levels and percentiles decide windows, which are given
        self._preparation = _try_preparation(self._contract)
        self._known: dict[str, CachedSlice] = {}
        self._checked: set[str] = set()
        self._file: IO[bytes] | None = None
        self._index: dict[str, tuple[int, int, int, int, str]] = {}
        if folder is not None:
            _sweep(folder)
            for path in sorted(folder.glob(f"*{ENDING}"), key=lambda p: p.stat().st_mtime_ns):
                self._known |= _open_records(path, size)

    def find(self, content: str, window: Window | None = None) -> CachedSlice | None:
        """Return the slice of these contents (hashes of pixels and mask) in this window; None where there is none."""
        key = self._key(content, window)
        found = self._known.get(key)
        if found is not None and key not in self._checked:
            if not found.is_sound():
                del self._known[key]
                return None
            self._checked.add(key)
        return found

    def __getitem__(self, key: tuple[str, Window | None]) -> CachedSlice:
        """Return the slice of these contents and this window, which was added; raises `OutputError` without it."""
        found = self.find(*key)
        if found is None:
            raise OutputError(
                f"{self._folder or tempfile.gettempdir()}: does not give back the prepared slices that were written"
                " there; remedy: --cache DIR on another disk"
            )
        return found

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Let slices be added within the block; they can be found behind it. Nothing is kept if it ends by an error."""
        try:
            yield
            if self._file is not None:
                self._finish(self._file)
        finally:
            if self._file is not None:
                with suppress(OSError):  # what it holds is not wanted: the disk may be full
                    self._file.close()
                if self._folder is not None:
                    Path(self._file.name).unlink(missing_ok=True)
            self._file, self._index = None, {}

    def add(self, content: str, pixels: Pixels, truth: NDArray[np.uint8], window: Window | None = None) -> None:
        """Prepare a slice (`pixels` as read) and its mask (uint8 [H, W] of 0 and 1) unless that is there already.

        Raises `SliceError` where `prepare` does, and `OutputError`.
        """
        key = self._key(content, window)
        if key in self._index or self.find(content, window) is not None:
            return
        parts = (
            prepare(pixels, self._contract, window),
            prepare_mask(truth, self._contract),
            count_greys(to_display(pixels, window)).astype("<u4"),
            np.packbits(truth),
        )
        record = b"".join(part.tobytes() for part in parts)
        try:
            if self._file is None:
                self._file = self._open()
            start = self._file.tell()
            self._file.write(record)
        except OSError as error:
            raise self._refused(error) from error
        height, width = truth.shape
        self._index[key] = (start, len(record), height, width, hashlib.sha256(record).hexdigest())

    def _key(self, content: str, window: Window | None) -> str:
        return hashlib.sha256(json.dumps([self._preparation, content, window]).encode()).hexdigest()

    def _open(self) -> IO[bytes]:
        if self._folder is None:
            return tempfile.TemporaryFile()
        self._folder.mkdir(parents=True, exist_ok=True)
        return (self._folder / f".{uuid4().hex}.tmp").open("w+b")

    def _finish(self, file: IO[bytes]) -> None:
        """Write the index, give the file its name and map it."""
        index = json.dumps(self._index).encode()
        try:
            file.write(index + hashlib.sha256(index).digest() + len(index).to_bytes(8, "little") + MAGIC)
            file.flush()
            if self._folder is None:
                self._known |= _open_records(file, self._size)
                return
            os.fsync(file.fileno())
            file.close()
        except OSError as error:
            raise self._refused(error) from error
        path = self._folder / (hashlib.sha256(index).hexdigest()[:32] + ENDING)
        there = _open_records(path, self._size).values()
        if not there or not all(found.is_sound() for found in there):  # else another process wrote the same
            rename(Path(file.name), path, of_slice=False)
        self._known |= _open_records(path, self._size)

    def _refused(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self._folder or tempfile.gettempdir()}: prepared slices cannot be written ({error.strerror or error});"
            " --cache DIR may be on another disk"
        )


def count_greys(display: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how often each grey level occurs per channel in every fourth pixel of uint8 [H, W, 3]: [3, 256]."""
    sampled = display.reshape(-1, 3)[::COUNTED]
    return np.stack([np.bincount(sampled[:, channel], minlength=256) for channel in range(3)])


def _try_preparation(contract: ModelContract) -> str:
    """Return a hash of what `prepare` makes of noise, larger and smaller than the input, with a window and without."""
    rng, made = np.random.default_rng(0), hashlib.sha256()
    for side in (contract.input.size * 2 + 7, contract.input.size // 2 + 1):
        noise = rng.integers(0, 256, (side, side - 5, 3), np.uint8)
        made.update(prepare(noise, contract).tobytes())
        made.update(prepare(noise.astype(np.uint16), contract, ((10.0, 200.5),)).tobytes())
        made.update(prepare_mask(noise[..., 0] > 128, contract).tobytes())
    return made.hexdigest()


def _open_records(source: Path | IO[bytes], size: int) -> dict[str, CachedSlice]:
    """Return the records of a file by key, mapped; none where it is missing, cut, damaged or of another version."""
    try:
        data = np.asarray(np.memmap(source, np.uint8, "c"))  # "c": torch takes no array that is read-only
    except (OSError, ValueError):  # not there; empty
        return {}
    end = len(data) - len(MAGIC) - 40
    if end < 0 or data[end + 40 :].tobytes() != MAGIC:
        return {}
    length = int.from_bytes(data[end + 32 : end + 40].tobytes(), "little")
    index = data[max(end - length, 0) : end].tobytes()
    if hashlib.sha256(index).digest() != data[end : end + 32].tobytes():
        return {}
    return {
        key: CachedSlice(data[start : start + count], sha256, size, height, width)
        for key, (start, count, height, width, sha256) in json.loads(index).items()
    }


def _sweep(folder: Path) -> None:
    """Remove what writers that were killed have left; a file that is being written is younger."""
    for leftover in folder.glob(".*.tmp"):
        with suppress(OSError):  # another process removed it first
            if time.time() - leftover.stat().st_mtime > STALE:
                leftover.unlink()
