"""Writing results: every file appears whole or not at all."""

import csv
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

from segport.errors import OutputError

BROKEN_NAMES = "backslashreplace"  # file names that are not UTF-8 come as lone surrogates
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


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
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole; errors as for `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_png(path: Path, picture: NDArray[Any]) -> None:
    """Write a mask (uint8 [H, W]), RGB picture (uint8 [H, W, 3]) or 16-bit map (uint16 [H, W]) as PNG."""
    ordered = picture[..., ::-1] if picture.ndim == 3 else picture
    try:
        _, data = cv2.imencode(".png", np.ascontiguousarray(ordered))
    except cv2.error as error:
        found = f"shape {picture.shape}, dtype {picture.dtype}"
        raise OutputError(f"{path}: OpenCV cannot encode {found} as PNG ({error.err})") from error
    write_bytes(path, data.tobytes())


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write an object as indented JSON."""
    write_bytes(path, (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8", BROKEN_NAMES))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table as UTF-8 CSV; text that a spreadsheet would run as a formula gets a leading apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_safe(cell) for cell in row] for row in rows)
    write_bytes(path, text.getvalue().encode("utf-8", BROKEN_NAMES))


def _safe(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell
