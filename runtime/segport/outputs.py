"""Writing results: every file appears whole or not at all."""

import csv
import errno
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import numpy as np
from numpy.typing import NDArray

from segport.entry import Stamp
from segport.errors import OutputError, SliceError
from segport.text import csv_safe

BROKEN_NAMES = "backslashreplace"  # file names that are not UTF-8 come as lone surrogates
BAD_NAMES_OF_WINDOWS = {3, 206}  # path not found, which a path above 260 characters gives, and name too long
BAD_NAMES = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.EINVAL, errno.EILSEQ}


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` when the block ends well, else delete it.

    Creates missing parent folders. Raises `OutputError` when the operating system refuses.
    """
    temporary = path.with_name(f".{uuid4().hex}.tmp")  # unique: threads write at the same time, names may be long
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole; errors as for `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_png(path: Path, picture: NDArray[Any]) -> None:
    """Write a picture as `encode_png` takes it; errors as for `atomic_path`."""
    write_bytes(path, encode_png(picture))


def encode_png(picture: NDArray[Any]) -> bytes:
    """Return a mask (uint8 [H, W]), RGB picture (uint8 [H, W, 3]) or 16-bit map (uint16 [H, W]) as a PNG file.

    Raises `OutputError` for what is none of them.
    """
    ordered = picture[..., ::-1] if picture.ndim == 3 else picture
    try:
        return bytes(cv2.imencode(".png", np.ascontiguousarray(ordered), _png_options(picture))[1])
    except cv2.error as error:
        found = f"shape {picture.shape}, dtype {picture.dtype}"
        raise OutputError(f"OpenCV cannot encode {found} as PNG ({error.err})") from error


def _png_options(picture: NDArray[Any]) -> list[int]:
    """Leave out the filter for masks: a third less time, and a third of the bytes (200 masks of LGG slices)."""
    plain = picture.ndim == 2 and picture.dtype == np.uint8
    return [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE] if plain else []


def stage_bytes(path: Path, data: bytes) -> Stamp:
    """Write a file that gets its name later (`rename`), and wait until it is on the disk; raises `OutputError`."""
    try:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            mtime = os.fstat(file.fileno()).st_mtime_ns
    except OSError as error:
        raise _refused(path, error) from error
    return Stamp(len(data), mtime, hashlib.sha256(data).hexdigest())


def rename(temporary: Path, path: Path, *, of_slice: bool = True) -> None:
    """Give a staged file its name, replacing what has it, and create missing folders.

    Raises `SliceError` where the name of a slice's output cannot be (too long, a folder has it), else `OutputError`.
    """
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(path)
    except OSError as error:
        bad = error.errno in BAD_NAMES or getattr(error, "winerror", None) in BAD_NAMES_OF_WINDOWS
        if of_slice and bad:
            raise SliceError(
                f"its output cannot be named {path} ({error.strerror}); remedy: rename the slice"
            ) from error
        raise _refused(path, error) from error


def remove(path: Path) -> None:
    """Remove an output that is no longer true, if it is there; raises `OutputError`."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # a file of such a name cannot be there
            raise _refused(path, error) from error


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write an object as indented JSON."""
    write_bytes(path, encode_json(document))


def encode_json(document: Mapping[str, Any]) -> bytes:
    """Return an object as indented JSON in UTF-8; names that are not UTF-8 are escaped."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8", BROKEN_NAMES)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table as UTF-8 CSV; text is made safe for spreadsheets (`csv_safe`)."""
    write_bytes(path, b"".join(csv_line(row) for row in [header, *rows]))


def csv_line(row: Sequence[object]) -> bytes:
    """Return one line of a table, as `write_csv` writes it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([csv_safe(cell) for cell in row])
    return text.getvalue().encode("utf-8", BROKEN_NAMES)


def _refused(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be written ({error.strerror or error})")
