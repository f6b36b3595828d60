"""What ends the process while it is read (a decoder that crashes, no memory): noted, tried with care, then left out.

Before a slice is decoded its path is noted on the disk, and struck out after. What a dead process left noted becomes a
"died" line of the ledger when the next one starts. After one death a slice is read in a child process first, then
alone; after two it is left out. A slice that was read well after all, or was saved anew, starts afresh. Volumes are
treated alike, but for the child.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

from segport.entry import Entry, Status
from segport.errors import SliceError
from segport.folders import typed_path
from segport.ledger import Ledger
from segport.preprocess import Pixels
from segport.reading import decode_slice, read_slice
from segport.workspace import Workspace

PREFIX = "//died/"  # no slice's stem begins so
PROBE = "import sys; from pathlib import Path; from segport.reading import read_slice; read_slice(Path(sys.argv[1]))"
PROBE_SECONDS = 60
MEND = "remedy: save it anew with another program, or --overwrite to try it again"
MEND_VOLUME = "remedy: a machine with more memory, or save it anew; --overwrite to try it again"


def record_deaths(ledger: Ledger, workspace: Workspace) -> None:
    """Enter the slices that were being read when the last process ended by force; raises `OutputError`."""
    ledger.append(_entry(source, "died", workspace.died_at) for source in workspace.died)
    workspace.forget_died()


class CarefulReader:
    """Reads slices with a note of it. `workspace`: None to ask for reasons alone. May be called from threads."""

    def __init__(self, ledger: Ledger, workspace: Workspace | None, *, overwrite: bool) -> None:
        """`overwrite`: try slices again, however often they killed the process."""
        self._ledger, self._workspace, self._overwrite = ledger, workspace, overwrite

    def why_not(self, path: Path) -> str:
        """Return why a slice must not be read in this process; an empty text where it may be."""
        deaths = 0 if self._overwrite else self._deaths(str(typed_path(path)), [path])
        if deaths > 1:
            return f"killed the process twice while it was read; {MEND}"
        problem = _kills_a_child(path) if deaths else ""
        return f"killed the process once, and {problem}; {MEND}" if problem else ""

    def why_not_volume(self, source: str, files: Sequence[Path]) -> str:
        """Return why a volume, `source` in the ledger, must not be read; an empty text where it may be."""
        if self._overwrite or self._deaths(source, files) < 2:
            return ""
        return f"killed the process twice while it was read; {MEND_VOLUME}"

    def read(self, path: Path) -> Pixels:
        """Return the slice as `read_slice` does; raises `SliceError` for one that must not be read as well."""
        if reason := self.why_not(path):
            raise SliceError(reason) from ChildProcessError(reason)
        with self._noted(path):
            return read_slice(path)

    def decode(self, path: Path, data: bytes) -> Pixels:
        """Return the picture in the bytes of a slice, of which `why_not` said nothing; errors as for `read_slice`."""
        with self._noted(path):
            return decode_slice(data, path.suffix)

    @contextmanager
    def noted(self, source: str, files: Sequence[Path]) -> Iterator[None]:
        """Note that `source`, of these files, is being read until the block ends; raises `OutputError`."""
        if self._workspace is None:
            yield
            return
        suspect = self._deaths(source, files) > 0
        with self._workspace.reading(source, alone=suspect):
            yield
        if suspect:
            self._ledger.append([_entry(source, "written", datetime.now(UTC))])

    def _noted(self, path: Path) -> AbstractContextManager[None]:
        return self.noted(str(typed_path(path)), [path])

    def _deaths(self, source: str, files: Sequence[Path]) -> int:
        """Return how often it was at work when a process died, since it was last read well or a file of it saved."""
        lines = takewhile(lambda entry: entry.status == "died", self._ledger.history(PREFIX + source))
        return sum(not any(_is_saved_since(file, entry.time) for file in files) for entry in lines)


def _entry(source: str, status: Status, time: datetime) -> Entry:
    return Entry(PREFIX + source, source, status, time=time.isoformat())


def _is_saved_since(path: Path, time: str) -> bool:
    try:
        return path.stat().st_mtime >= datetime.fromisoformat(time).timestamp()
    except (OSError, ValueError):
        return False


def _kills_a_child(path: Path) -> str:
    """Return how a child process ended that reads this slice, where that was not well; else an empty text."""
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-c", PROBE, str(path)], capture_output=True, check=False, timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"a second process that read it did not end within {PROBE_SECONDS} seconds"
    # 1 is a Python error, which the run itself will report
    return f"a second process that read it ended with {child.returncode}" if child.returncode not in (0, 1) else ""
