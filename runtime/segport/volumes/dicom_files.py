"""Reading DICOM headers with pydicom, quietly: what it warns of quotes values, and those can be a patient's name."""

import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from segport.errors import SliceError
from segport.limits import MAX_BYTES

# What pydicom raises for files that are damaged, or made to be; their texts quote values, so none is passed on.
UNPARSABLE = (
    InvalidDicomError, BytesLengthException, EOFError, struct.error, zlib.error, AttributeError, KeyError, IndexError,
    LookupError, NotImplementedError, OverflowError, RecursionError, TypeError, ValueError,
)  # fmt: skip
DAMAGED = "cannot be parsed as DICOM; it is truncated or damaged; copy it again"
_DEFLATED = b"1.2.840.10008.1.2.1.99"  # inflated by pydicom as a whole, however large that is

_lock = threading.Lock()
_silence = ExitStack()
_depth = 0


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings from being shown, in all threads; the first that enters does it, the last that leaves undoes it."""
    global _depth  # noqa: PLW0603
    with _lock:
        if _depth == 0:
            _silence.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _silence.close()


@dataclass(frozen=True)
class SeriesFiles:
    """The files of a series in a fixed order. `named`: whether messages may show their names (`--keep-identity`)."""

    paths: Sequence[Path]
    named: bool = False

    def label(self, index: int) -> str:
        """Return what messages call a file: by default its place, as names of files hold names of patients."""
        place = f"file {index + 1} of {len(self.paths)}"
        return f"{place} ({self.paths[index].name})" if self.named else f"{place} (in the order of their paths)"


def read_header(path: Path, tags: Sequence[str]) -> FileDataset:
    """Return those `tags` (keywords) of a file that stand before its pixels; raises `SliceError`."""
    return _parse(lambda: pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(tags), force=True), path)


def read_whole(path: Path) -> FileDataset:
    """Return a file with its pixels, not decoded; raises `SliceError`."""
    return _parse(lambda: pydicom.dcmread(path, force=True), path)


def value(header: pydicom.Dataset, keyword: str) -> Any:
    """Return a tag's value, None where it is missing, empty or no valid value."""
    try:
        found = header.get(keyword)
        return None if found is None or found == "" else found
    except (*UNPARSABLE, OSError):  # OSError: pydicom's for a sequence that ends too early; no file is read here
        return None


def items(header: pydicom.Dataset, keyword: str) -> Sequence[pydicom.Dataset]:
    """Return the items of a sequence; none where it is missing or damaged."""
    found = value(header, keyword)
    return found if isinstance(found, pydicom.Sequence) else []


def first_item(header: pydicom.Dataset, keyword: str) -> pydicom.Dataset:
    """Return the first item of a sequence, an empty one where there is none."""
    return next(iter(items(header, keyword)), pydicom.Dataset())


def numbers(header: pydicom.Dataset, keyword: str) -> tuple[float, ...]:
    """Return a tag's numbers; none where it is missing or holds anything else."""
    found = value(header, keyword)
    try:
        several = [found] if isinstance(found, str) or not hasattr(found, "__iter__") else found
        return tuple(float(v) for v in several)
    except (TypeError, ValueError, OverflowError):
        return ()


def text(header: pydicom.Dataset, keyword: str) -> str:
    r"""Return a tag's text, several values joined by a backslash; empty where it is missing."""
    found = value(header, keyword)
    if found is None:
        return ""
    return "\\".join(map(str, found)) if isinstance(found, pydicom.multival.MultiValue) else str(found)


def _parse(parse: Callable[[], FileDataset], path: Path) -> FileDataset:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise SliceError("is not a regular file")
        if status.st_size > MAX_BYTES:
            raise SliceError(f"has {status.st_size:,} bytes; expected at most {MAX_BYTES:,}")
        with path.open("rb") as file:
            if _DEFLATED in file.read(1024):
                raise SliceError("is deflated, which can hide gigabytes; remedy: save it uncompressed")
        return parse()
    except OSError as error:
        raise SliceError(f"cannot be read ({error.strerror})" if error.strerror else DAMAGED) from error
    except UNPARSABLE as error:
        raise SliceError(DAMAGED) from error
