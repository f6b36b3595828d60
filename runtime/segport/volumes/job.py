"""One volume to segment, and how the ledger knows it again."""

import errno
import hashlib
from dataclasses import dataclass
from pathlib import Path

from segport.entry import Entry, Stamp
from segport.folders import VOLUME_SHEET, typed_path
from segport.settings import RunSettings
from segport.volumes.case import Case
from segport.work import Work


@dataclass(frozen=True, slots=True)
class VolumeJob(Work):
    """A case and its outputs."""

    case: Case

    @property
    def name(self) -> str:
        """The stem as the ledger has it: a slice of the same stem has other outputs and another line."""
        return f"//volume/{self.stem.as_posix()}"

    @property
    def source(self) -> str:
        """What the case calls itself, and a hash of where it lies: paths of DICOM files can name patients."""
        place = str(typed_path(self.case.files[0])) if self.case.files else ""
        return f"{self.case.source} ({hashlib.sha256(place.encode('utf-8', 'surrogatepass')).hexdigest()[:16]})"

    @property
    def shown(self) -> str:
        """What the case calls itself: no patient's name stands in it unless the user allowed that."""
        return self.case.source

    @property
    def truth(self) -> Path | None:
        """The file of its true mask."""
        return self.case.truth_path

    @property
    def notes(self) -> tuple[str, ...]:
        """What the case guessed, or why it cannot be segmented."""
        return (*self.case.notes, *([self.case.problem] if self.case.problem else []))

    def endings(self, settings: RunSettings) -> list[str]:
        """Return the endings of the outputs that a run writes; the mask's is the last."""
        return [*([VOLUME_SHEET] if settings.overlay else []), *self.case.endings(settings)]

    def state(self) -> str:
        """Return a hash over roles, paths, sizes and times of its files; missing ones count as such."""
        state = hashlib.sha256(repr(sorted(self.case.roles)).encode())
        for path in self.case.files:
            try:
                facts = path.stat()
            except OSError:
                state.update(repr((str(path), None)).encode("utf-8", "surrogatepass"))
            else:
                state.update(repr((str(path), facts.st_size, facts.st_mtime_ns)).encode("utf-8", "surrogatepass"))
        return state.hexdigest()[:16]

    def stamp(self) -> Stamp:
        """Return size and SHA-256 of its roles and files together, in their order; raises `OSError`."""
        contents, size = hashlib.sha256(repr(sorted(self.case.roles)).encode()), 0
        for path in self.case.files:
            if not path.is_file():  # opening a pipe would wait for ever
                raise OSError(errno.EINVAL, "one of its files is not there, or no regular file")
            with path.open("rb") as file:
                hashlib.file_digest(file, lambda: contents)
                size += file.tell()
        return Stamp(size, 0, contents.hexdigest())

    def is_unchanged(self, entry: Entry, *, verify: bool) -> bool:
        """Return whether its files are those of the entry: by paths, sizes and times, else by contents."""
        if not verify and entry.volume == self.state():
            return True
        try:
            return entry.read is not None and entry.read.sha256 == self.stamp().sha256
        except OSError:
            return False
