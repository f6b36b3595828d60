"""Read the contract out of an .onnx file; refuse what seg-export cannot have written, before an engine opens it.

An ONNX file is one protobuf message (ModelProto, onnx/onnx.proto). Its `metadata_props` entries are field 14, each a
message with `key` (field 1) and `value` (field 2). Weights are stepped over by their length, so the 32 MB of the
embedded model take 15 ms.
"""

import hashlib
import stat
from collections.abc import Sequence
from pathlib import Path

from segport.contract import KEY, ModelContract
from segport.errors import ModelError
from segport.modelgraph import check_graph
from segport.protobuf import WINDOW, Field, ProtobufFile

METADATA_PROPS, ENTRY_KEY, ENTRY_VALUE = 14, 1, 2
MAX_BYTES = 512 * 1024 * 1024  # three times the largest that seg-export writes (fp32, not rewritten)
MAX_CONTRACT = 32 * 1024 * 1024  # bytes; goldens take 0.2 MB at 128 pixels, 17 MB at contract.MAX_SIZE
MAX_FIELDS = 100_000  # the embedded model has 9,400


def read_contract(path: Path) -> ModelContract:
    """Return the contract inside the model file `path`.

    Raises `ModelError` when the file is missing, not ONNX, truncated, carries no contract, or holds what seg-export
    never writes: weights in other files, other operators, more constants than a network needs.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
            raise ModelError(f"{path}: is not a file, expected the .onnx that seg-export wrote")
        with path.open("rb") as opened:
            file = ProtobufFile(opened, str(path), MAX_FIELDS)
            if file.size == 0:
                raise ModelError(f"{path}: is empty (0 bytes); copy or export the model again")
            if file.size > MAX_BYTES:
                raise file.damaged(f"{file.size} bytes, at most {MAX_BYTES} are read")
            head = file.window
            top = list(file.fields(0, file.size))
            contract = ModelContract.from_json(_find_contract(file, top), str(path))
            check_graph(file, top)
            _check_format(file, path, head)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); is the path right?") from error
    return contract


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of the file's bytes as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_format(file: ProtobufFile, path: Path, head: bytes) -> None:
    """Refuse what an engine would not read as ONNX: it would run another graph than the one that is checked here.

    ONNX Runtime takes a file for its own format by its ending. OpenVINO (2026.4) takes any for its own that holds this
    element before the first zero byte; in seg-export's files that byte belongs to the first operator.
    """
    text = head.split(b"\0", 1)[0]
    if path.suffix.lower() == ".ort" or b"<net" in text or len(text) == WINDOW:
        raise file.refused("ONNX Runtime's or OpenVINO's own format")


def _find_contract(file: ProtobufFile, top: Sequence[Field]) -> str:
    found: list[bytes] = []
    for entry in (field for field in top if field.number == METADATA_PROPS):
        pair = {field.number: field for field in file.fields(entry.start, entry.end)}
        if ENTRY_KEY in pair and file.read(pair[ENTRY_KEY], MAX_CONTRACT, "a metadata key") == KEY.encode():
            value = pair.get(ENTRY_VALUE)
            found.append(b"" if value is None else file.read(value, MAX_CONTRACT, "a contract"))
    if not found:
        raise ModelError(
            f"{file.where}: holds no segport contract, so nothing says how its pixels must be prepared;"
            " remedy: export it with seg-export"
        )
    if len(found) > 1:
        raise file.refused(f"{len(found)} contracts")
    try:
        return found[0].decode("utf-8")
    except UnicodeDecodeError as error:
        raise file.damaged("a contract that is not UTF-8") from error
