"""Step through a model file, field by field, without reading more of it than is asked for.

Nothing that protobuf's own parser reads may be stepped over here, or a hostile file hides it there: field numbers that
the parser cuts to 32 bits, and groups, are refused.
"""

import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from segport.errors import ModelError

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # wire types
LARGEST_NUMBER = 2**29 - 1
WINDOW = 64 * 1024  # bytes in memory at once
NO_NUMBER = -1


class Field(NamedTuple):
    """One field: where its bytes are in the file, or the number it holds (NO_NUMBER for bytes)."""

    number: int
    start: int
    end: int
    value: int


class ProtobufFile:
    """An open file; `where` names it in messages, `budget` is how many fields may be read of it altogether.

    Every method raises `ModelError` for bytes that are not protobuf, and when the budget is spent.
    """

    def __init__(self, file: BinaryIO, where: str, budget: int) -> None:
        self.file, self.where, self.budget, self.left = file, where, budget, budget
        self.size = os.fstat(file.fileno()).st_size
        self.window, self.first = file.read(WINDOW), 0

    def fields(self, start: int, end: int, *, numbers: bool = False) -> Iterator[Field]:
        """Yield the fields that hold bytes, of the message from `start` to `end`; with `numbers`, varints, too."""
        at = start
        while at < end:
            self.left -= 1
            if self.left < 0:
                raise self.damaged(f"more than {self.budget} fields")
            tag, at = self._varint(at, end)
            number, wire = tag >> 3, tag & 7
            if not 1 <= number <= LARGEST_NUMBER:
                raise self.damaged(f"a field with number {number}")
            if wire == VARINT:
                value, at = self._varint(at, end)
                if numbers:
                    yield Field(number, at, at, value)
                continue
            if wire == LENGTH:
                length, at = self._varint(at, end)
            elif wire in (FIXED64, FIXED32):
                length = 8 if wire == FIXED64 else 4
            else:
                raise self.damaged(f"protobuf wire type {wire}")
            if length > end - at:
                raise self.damaged(f"a field of {length} bytes where {end - at} are left")
            if wire == LENGTH:
                yield Field(number, at, at + length, NO_NUMBER)
            at += length

    def read(self, field: Field, limit: int, what: str) -> bytes:
        """Return the bytes of a field; more than `limit` are refused, and `what` says of what."""
        length = field.end - field.start
        if length > limit:
            raise self.damaged(f"{what} of {length} bytes, at most {limit} are read")
        first = field.start - self.first
        if 0 <= first <= len(self.window) - length:
            return self.window[first : first + length]
        self.file.seek(field.start)
        return self.file.read(length)

    def damaged(self, found: str) -> ModelError:
        """Return the error for bytes that are no model."""
        return ModelError(f"{self.where}: is not a whole ONNX file (found {found}); copy or export the model again")

    def refused(self, found: str) -> ModelError:
        """Return the error for a model that is not seg-export's."""
        return ModelError(
            f"{self.where}: segport refuses the model: it holds {found}, which seg-export never writes;"
            " remedy: export it again with seg-export, or, if a newer one wrote it, pip install --upgrade segport"
        )

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """Return the number at `at`, and where the byte behind it is."""
        place = at - self.first
        if at < end and 0 <= place < len(self.window) and self.window[place] < 0x80:  # most; a third of all time saved
            return self.window[place], at + 1
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                raise self.damaged("the end of the file, or of a message, inside a number")
            place = at - self.first
            if not 0 <= place < len(self.window):
                self._load(at)
                place = 0
            byte = self.window[place]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise self.damaged("a number of more than 10 bytes")

    def _load(self, at: int) -> None:
        self.file.seek(at)
        self.window, self.first = self.file.read(WINDOW), at
        if not self.window:
            raise self.damaged("its end, although it was longer when it was opened")
