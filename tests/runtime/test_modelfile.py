import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import TINY
from segport.errors import ModelError
from segport.modelfile import read_contract
from segport.protobuf import ProtobufFile


def test_the_contract_is_read_without_the_graph() -> None:
    contract = read_contract(TINY)
    assert (contract.input.size, contract.origin.architecture) == (64, "tiny")


def refusal(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError) as error:
        read_contract(path)
    return str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nothing\.onnx: cannot be read"):
        read_contract(tmp_path / "nothing.onnx")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    assert "is empty (0 bytes)" in refusal(tmp_path, b"")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    data = TINY.read_bytes()
    assert "is not a whole ONNX file" in refusal(tmp_path, data[: int(len(data) * share)])


def test_a_model_of_somebody_else_is_refused_with_the_remedy(tmp_path: Path) -> None:
    assert "export it with seg-export" in refusal(tmp_path, b"\x08\x08")  # ir_version = 8, nothing else


def test_a_length_beyond_the_file_allocates_nothing(tmp_path: Path) -> None:
    huge = b"\x72" + b"\xff" * 8 + b"\x7f"  # field 14 of 2**62 bytes
    assert "bytes where" in refusal(tmp_path, huge)


def test_a_contract_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    head = b"\x0a\x10segport.contract\x12\x80\x80\x80\x18"  # a value of 48 MB, sparse
    with path.open("wb") as file:
        file.write(b"\x08\x08\x72" + b"\x97\x80\x80\x18" + head)
        file.seek(48 * 1024 * 1024 - 1, os.SEEK_CUR)
        file.write(b"\0")
    with pytest.raises(ModelError, match=r"a contract of 50331648 bytes, at most 33554432 are read"):
        read_contract(path)


def test_a_file_larger_than_any_model_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ModelError, match=r"found 1099511627776 bytes, at most 536870912 are read"):
        read_contract(path)


def test_wire_types_that_protobuf_does_not_know_are_refused(tmp_path: Path) -> None:
    assert "wire type 6" in refusal(tmp_path, b"\x0e")
    assert "number 0" in refusal(tmp_path, b"\x00\x00")
    assert "10 bytes" in refusal(tmp_path, b"\xff" * 11)
    assert "inside a number" in refusal(tmp_path, b"\x08\x88")


def test_a_field_number_that_protobuf_would_cut_to_32_bits_is_refused(tmp_path: Path) -> None:
    """Its parser takes this one for the graph, so stepping over it would hide the graph."""
    assert f"number {7 + 2**29}" in refusal(tmp_path, b"\xba\x80\x80\x80\x10\x00")


def test_a_file_that_becomes_shorter_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x0a\x80\x80\x08" + bytes(128 * 1024) + b"\x08\x08")
    with path.open("rb") as opened:
        file = ProtobufFile(opened, "model.onnx", 10)
        path.write_bytes(b"")
        with pytest.raises(ModelError, match="although it was longer when it was opened"):
            list(file.fields(0, file.size))


def test_fixed_width_fields_are_stepped_over(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x79" + struct.pack("<d", 1.0) + b"\x7d" + struct.pack("<f", 1.0) + TINY.read_bytes())
    assert read_contract(path).input.size == 64


def test_a_contract_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    entry = b"\x0a\x10segport.contract\x12\x02\xff\xfe"
    assert "not UTF-8" in refusal(tmp_path, b"\x72" + bytes([len(entry)]) + entry)


def test_an_endless_list_of_fields_is_refused(tmp_path: Path) -> None:
    assert "more than 100000 fields" in refusal(tmp_path, b"\x08\x08" * 100_001)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_and_never_crash(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError):
        read_contract(path)


def test_an_entry_of_metadata_without_a_key_and_a_long_one_are_stepped_over(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    far = b"\x72\x80\x80\x08\x12\xfc\xff\x07" + bytes(128 * 1024 - 4)  # a value alone, longer than the window
    path.write_bytes(b"\x08\x08" + far + TINY.read_bytes()[2:])
    assert read_contract(path).input.size == 64
