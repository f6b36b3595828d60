"""The hidden folder in an output folder: the lock, files that are not yet whole, and which slices are being read."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from uuid import uuid4

from filelock import FileLock, Timeout

from segport.errors import OutputError
from segport.outputs import remove

WORKSPACE = ".segport"
LOCK, AT_WORK, DIED = "lock", "at-work", "died"
SLOT = 8192  # bytes; a path of 4,096 bytes, the longest that Linux takes, fits


class Workspace:
    """A locked output folder. `died`: what was being read when the last process here ended by force, by `died_at`."""

    def __init__(self, folder: Path, readers: int) -> None:
        self._folder = folder
        self._run, self._numbers = uuid4().hex, count()  # files of no other run, should the folder be moved away
        if _read_slots(folder / AT_WORK):
            (folder / AT_WORK).replace(folder / DIED)  # until the ledger has it
        self.died = _read_slots(folder / DIED)
        self.died_at = datetime.fromtimestamp((folder / DIED).stat().st_mtime if self.died else 0, UTC)
        self._sweep(LOCK, DIED)
        self._file = (folder / AT_WORK).open("wb", buffering=0)
        self._writing, self._taking = Lock(), Lock()
        self._readers = readers
        self._free: SimpleQueue[int] = SimpleQueue()
        for slot in range(readers):
            self._free.put(slot)

    def temporary(self) -> Path:
        """Return a new path for a file that is not yet whole; it is on the output's file system."""
        return self._folder / f"{self._run}-{next(self._numbers)}.tmp"

    @contextmanager
    def reading(self, source: str, *, alone: bool = False) -> Iterator[None]:
        """Note on the disk that a slice is being read; the note outlives a process that is killed by it.

        At most as many at a time as there are readers, and none beside one that is read `alone`: should the process
        end again, no other slice is blamed. Raises `OutputError`.
        """
        with self._taking:  # one at a time, or two that want all slots would wait for each other
            slot, *others = [self._free.get() for _ in range(self._readers if alone else 1)]
        name = source.encode("utf-8", "surrogatepass")[: SLOT - 2]
        try:
            self._note(slot, len(name).to_bytes(2, "little") + name)
            yield
        finally:
            with suppress(OutputError):  # a slot that stays is read as a death, and the slice is tried once more
                self._note(slot, b"\0\0")
            for free in (slot, *others):
                self._free.put(free)

    def forget_died(self) -> None:
        """Forget what `died` says: the ledger has it. Raises `OutputError`."""
        remove(self._folder / DIED)

    def close(self) -> None:
        """Remove everything but the lock, and deaths that are in no ledger yet, as far as that can be done."""
        with suppress(OSError):  # the folder vanished, say; what ended the run is what is reported
            self._file.close()
            self._sweep(LOCK, DIED)

    def _sweep(self, *kept: str) -> None:
        for leftover in self._folder.iterdir():
            if leftover.name not in kept:
                leftover.unlink()

    def _note(self, slot: int, data: bytes) -> None:
        try:
            with self._writing:
                self._file.seek(slot * SLOT)
                self._file.write(data)
        except OSError as error:
            raise OutputError(f"{self._folder / AT_WORK}: cannot be written ({error.strerror or error})") from error


@contextmanager
def open_workspace(out: Path, readers: int) -> Iterator[Workspace]:
    """Make and lock the output folder; the lock ends with the block, and with the process however that ends.

    Raises `OutputError` when another run holds the lock or the folder cannot be written.
    """
    with lock_folder(out, "seg-infer"):
        try:
            workspace = Workspace(out / WORKSPACE, readers)
        except OSError as error:
            raise _unusable(out, error) from error
        try:
            yield workspace
        finally:
            workspace.close()


@contextmanager
def lock_folder(out: Path, command: str) -> Iterator[None]:
    """Make an output folder and hold its lock until the block ends; raises as `open_workspace`."""
    lock = FileLock(out / WORKSPACE / LOCK, timeout=0, thread_local=False)
    try:
        (out / WORKSPACE).mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise OutputError(
            f"{out}: another run of {command} is writing there; remedy: wait until it ends, or another --out"
        ) from error
    except OSError as error:
        raise _unusable(out, error) from error
    try:
        yield
    finally:
        lock.release()


def _unusable(out: Path, error: OSError) -> OutputError:
    return OutputError(f"{out}: cannot be written ({error.strerror or error}); remedy: another --out")


def _read_slots(path: Path) -> list[str]:
    if not path.exists():
        return []
    data, stems = path.read_bytes(), []
    for start in range(0, len(data), SLOT):
        size = int.from_bytes(data[start : start + 2], "little")
        name = data[start + 2 : start + 2 + size]
        if size and len(name) == size:
            with suppress(UnicodeDecodeError):  # a damaged note
                stems.append(name.decode("utf-8", "surrogatepass"))
    return stems
