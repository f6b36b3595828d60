"""Read the contract out of an .onnx file without loading its graph.

An ONNX file is one protobuf message (ModelProto, onnx/onnx.proto). Its `metadata_props` entries are field 14, each a
message with `key` (field 1) and `value` (field 2). The walk below steps over every other field by its stated
length, so a 40 MB graph costs a few seeks, and a hostile length never allocates more than `MAX_CONTRACT` bytes.
"""

import hashlib
import io
import os
from pathlib import Path
from typing import BinaryIO

from segport.contract import KEY, ModelContract
from segport.errors import ModelError

METADATA_PROPS = 14
MAX_CONTRACT = 16 * 1024 * 1024  # bytes; a contract with goldens is about 0.3 MB
MAX_FIELDS = 10_000  # top-level fields of a ModelProto; real files hold about 20
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # protobuf wire types


def read_contract(path: Path) -> ModelContract:
    """Return the contract inside the model file `path`.

    Raises `ModelError` when the file is missing, not ONNX, truncated, or carries no contract.
    """
    try:
        with path.open("rb") as file:
            text = _find_property(file, KEY, str(path))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); is the path right?") from error
    if text is None:
        raise ModelError(
            f"{path}: holds no segport contract, so nothing says how its pixels must be prepared;"
            " remedy: export it with seg-export"
        )
    return ModelContract.from_json(text, str(path))


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of the file's bytes as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find_property(file: BinaryIO, key: str, where: str) -> str | None:
    end = os.fstat(file.fileno()).st_size
    if end == 0:
        raise ModelError(f"{where}: is empty (0 bytes); copy or export the model again")
    found: str | None = None
    for _ in range(MAX_FIELDS):
        if file.tell() == end:
            return found
        number, wire = _read_tag(file, where)
        length = _skip_length(file, wire, where)
        if length > end - file.tell():
            raise _damaged(where, f"a field of {length} bytes where {end - file.tell()} are left")
        if number == METADATA_PROPS and wire == LENGTH and length <= MAX_CONTRACT:
            entry = _read_entry(file.read(length), where)
            if entry.get(1) == key.encode():
                found = _decode(entry.get(2, b""), where)
        elif number == METADATA_PROPS:
            raise _damaged(where, f"a metadata entry of {length} bytes, at most {MAX_CONTRACT} are read")
        elif wire != VARINT:
            file.seek(length, os.SEEK_CUR)
    raise _damaged(where, f"more than {MAX_FIELDS} top-level fields")


def _skip_length(file: BinaryIO, wire: int, where: str) -> int:
    """Return how many bytes of the field are still to come; a varint is read here and leaves none."""
    if wire == VARINT:
        _read_varint(file, where)
        return 0
    if wire == LENGTH:
        return _read_varint(file, where)
    if wire in (FIXED64, FIXED32):
        return 8 if wire == FIXED64 else 4
    raise _damaged(where, f"protobuf wire type {wire}")


def _read_tag(file: BinaryIO, where: str) -> tuple[int, int]:
    tag = _read_varint(file, where)
    if tag >> 3 == 0:
        raise _damaged(where, "a field with number 0")
    return tag >> 3, tag & 7


def _read_varint(file: BinaryIO, where: str) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise _damaged(where, "the end of the file inside a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _damaged(where, "a number of more than 10 bytes")


def _read_entry(data: bytes, where: str) -> dict[int, bytes]:
    """Return the length-delimited fields of one StringStringEntryProto by number."""
    file, entry = io.BytesIO(data), {}
    while file.tell() < len(data):
        number, wire = _read_tag(file, where)
        if wire != LENGTH:
            raise _damaged(where, f"a metadata entry with wire type {wire}")
        length = _read_varint(file, where)
        if length > len(data) - file.tell():
            raise _damaged(where, "a metadata entry longer than its message")
        entry[number] = file.read(length)
    return entry


def _decode(value: bytes, where: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(where, "a contract that is not UTF-8") from error


def _damaged(where: str, found: str) -> ModelError:
    return ModelError(f"{where}: is not a whole ONNX file (found {found}); copy or export the model again")
