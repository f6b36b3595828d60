"""Model files that somebody made to do harm: refused with a reason, quickly, in little memory, before an engine."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from helpers import TINY
from segport import golden
from segport.contract import KEY, Export, Golden, Input, ModelContract, Origin
from segport.errors import ModelError
from segport.modelfile import read_contract
from segport.segmenter import Segmenter
from segport.settings import ENGINES, Engine

CONTRACT = ModelContract(Input(64), origin=Origin("tiny", 1), export=Export(17, "by hand", "fp32")).to_json()
MEGABYTES = 200
SECONDS = 120  # a test that hangs must end, too


def number(value: int) -> bytes:
    """Encode a varint."""
    data = b""
    while value > 0x7F:
        data, value = data + bytes([value & 0x7F | 0x80]), value >> 7
    return data + bytes([value])


def field(key: int, value: int | str | bytes) -> bytes:
    """Encode one protobuf field."""
    if isinstance(value, int):
        return number(key << 3) + number(value)
    data = value.encode() if isinstance(value, str) else value
    return number(key << 3 | 2) + number(len(data)) + data


def tensor(name: str, dims: list[int], data: bytes, *more: bytes) -> bytes:
    """Encode a TensorProto of float32."""
    return b"".join([*(field(1, d) for d in dims), field(2, 1), field(8, name), field(9, data), *more])


def node(operator: str, inputs: str, outputs: str, *attributes: bytes, domain: str = "") -> bytes:
    """Encode a NodeProto as a field of a graph; names are separated by spaces."""
    names = [field(1, n) for n in inputs.split()] + [field(2, n) for n in outputs.split()]
    return field(1, b"".join([*names, field(4, operator), *(field(5, a) for a in attributes), field(7, domain)]))


def integers(name: str, *values: int) -> bytes:
    """Encode an AttributeProto; one integer is no list."""
    if len(values) == 1:
        return field(1, name) + field(3, values[0]) + field(20, 2)
    return field(1, name) + b"".join(field(8, v) for v in values) + field(20, 7)


def port(name: str, kind: int, dims: list[int | str | bytes]) -> bytes:
    """Encode a ValueInfoProto."""
    shape = b"".join(field(1, field(1 if isinstance(d, int) else 2, d)) for d in dims)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, shape)))


def model(*graph: bytes, more: bytes = b"", contract: str | bytes | None = CONTRACT) -> bytes:
    """Encode a ModelProto: tiny.onnx with `graph` put before its operators and `more` before its contract."""
    parts = [
        *graph,
        node("Transpose", "pixels", "nchw", integers("perm", 0, 3, 1, 2)),
        node("Cast", "nchw", "float", integers("to", 1)),
        node("Conv", "float weight bias", "logits"),
        field(2, "tiny"),
        field(5, tensor("weight", [1, 3, 1, 1], bytes(12))),
        field(5, tensor("bias", [1], bytes(4))),
        field(11, port("pixels", 2, ["batch", 64, 64, 3])),
        field(12, port("logits", 1, ["batch", 1, 64, 64])),
    ]
    entry = b"" if contract is None else field(14, field(1, KEY) + field(2, contract))
    return b"".join([field(1, 8), field(7, b"".join(parts)), field(8, field(2, 17)), more, entry])


def stored(*dims: int, name: str = "c", data: bytes | None = None, more: bytes = b"") -> bytes:
    """Encode an initializer as a field of a graph."""
    return field(5, tensor(name, [*dims], bytes(4 * math.prod(dims)) if data is None else data, more))


def elsewhere(path: str) -> bytes:
    return field(13, field(1, "location") + field(2, path)) + field(14, 1)


DOUBLED = b"".join(node("Concat", f"d{k} d{k}", f"d{k + 1}", integers("axis", 0)) for k in range(40))
SHAPE = stored(2, data=(2**40).to_bytes(8, "little") * 2, more=field(2, 7))

HOSTILE: dict[str, tuple[bytes | Callable[[Path], None], str]] = {
    # weights in other files
    "relative": (model(stored(1, more=elsewhere("weights.bin"))), "lies in another file"),
    "traversal": (model(stored(1, more=elsewhere("../../../../etc/passwd"))), "tensor 'c' that lies in another file"),
    "absolute": (model(stored(1, more=elsewhere("/dev/zero"))), "lies in another file"),
    "no location": (model(stored(1, more=field(13, field(1, "offset") + field(2, "0")))), "lies in another file"),
    "cut to 1": (model(stored(1, more=field(14, 2**32 + 1))), "lies in another file"),
    "attribute": (
        model(node("Constant", "", "k", field(1, "value") + field(5, tensor("t", [1], b"", elsewhere("x"))))),
        "lies in another file",
    ),
    "sparse": (model(field(15, field(1, tensor("s", [1], b"", elsewhere("x"))))), "sparse tensors"),
    "sparse attribute": (
        model(node("Constant", "", "k", field(22, field(1, tensor("s", [1], b""))))),
        "attribute with",
    ),
    "list": (model(node("Constant", "", "k", field(10, tensor("t", [1], b"")))), "attribute with a graph"),
    "branch": (model(node("Relu", "pixels", "k", field(6, stored(1, more=elsewhere("x"))))), "attribute with a graph"),
    "branches": (model(node("Relu", "pixels", "k", field(11, stored(1)))), "attribute with a graph"),
    "function": (model(more=field(25, field(1, "f") + node("Relu", "a", "b"))), "functions or a training graph"),
    "training": (model(more=field(20, field(1, stored(1, more=elsewhere("x"))))), "functions or a training graph"),
    "second graph": (model(more=field(7, stored(1, more=elsewhere("x")))), "lies in another file"),
    # crashes
    "no weights": (model(node("Conv", "pixels", "k")), "an operator 'Conv' that reads 1 values and makes 1"),
    "empty name": (
        model(field(1, field(1, "pixels") + field(1, b"") + field(2, "k") + field(4, "Conv"))),
        "an operator 'Conv' that reads 1 values and makes 1",
    ),
    "no result": (model(node("Relu", "pixels", "")), "an operator 'Relu' that reads 1 values and makes 0"),
    "name of a size": (model(field(12, port("x", 1, [b"\xff"]))), "whose name is not UTF-8"),
    "name of an input": (model(field(11, field(1, b"\xc3") + port("", 1, []))), "whose name is not UTF-8"),
    # memory
    **{
        operator: (model(SHAPE, node(operator, "c", "k")), f"the operator '{operator}', which seg-export never writes")
        for operator in ("ConstantOfShape", "Expand", "Tile", "Range", "RandomNormal", "Loop", "Shape", "relu")
    },
    "custom": (model(node("Conv", "pixels", "k", domain="com.microsoft")), "the operator 'com.microsoft.Conv'"),
    "no name": (model(field(1, b"")), "the operator ''"),
    "doubled": (model(stored(64, name="d0"), DOUBLED), "more than 536870912 numbers"),
    "broadcast": (
        model(stored(10**5, 1), stored(1, 10**5, name="d"), node("Add", "c d", "k")),
        "an operator 'Add' that reads nothing but constants",
    ),
    "resized": (model(stored(1, 1, 1, 1), SHAPE, node("Resize", "c c c", "k")), "'Resize' that reads nothing but"),
    "padded": (model(stored(1), SHAPE, node("Pad", "c c", "k")), "'Pad' that reads nothing but constants"),
    "no order": (model(node("Concat", "later pixels", "k")), "'Concat' that reads what no operator before it makes"),
    "promised": (model(stored(10**6, 10**6, data=b"")), "of shape [1000000, 1000000] in"),
    "negative": (model(stored(2**64 - 1, data=b"")), "of shape [18446744073709551615]"),
    "packed": (model(field(5, field(1, number(2) * 2) + field(8, "c"))), "of shape [-1]"),
    "rank": (model(stored(*[1] * 5000)), "of shape [1, 1, 1, 1, 1, 1, 1, 1] in"),
    "long name": (model(node("Relu", "x" * 10**6, "k")), "a name of 1000000 bytes"),
    "many operators": (model(*[node("Relu", "pixels", "k")] * 20_000), "more than 100000 fields"),
    "nested": (model(node("Relu", "pixels", "k", field(6, b"\x0a\x80" * 10**5))), "attribute with a graph"),
    # contracts
    "no contract": (model(contract=None), "holds no segport contract"),
    "key alone": (model(contract=None, more=field(14, field(1, KEY))), "not valid JSON"),
    "two contracts": (model(more=field(14, field(1, KEY) + field(2, CONTRACT))), "holds 2 contracts"),
    "deep": (model(contract="[" * 90_000), "not valid JSON"),
    "wide": (model(contract="[" + "[]," * 5_000_000), "entries, at most 100000 are read"),
    "size": (model(contract=CONTRACT.replace('"size":64', '"size":1000000000')), "expected 8 to 2048"),
    "digits": (model(contract=CONTRACT.replace('"size":64', '"size":' + "9" * 10**7)), "is not a number"),
    "much base64": (model(contract=b"A" * 100_000_000), "a contract of 100000000 bytes"),
    # no models
    "text": (b"A model, honestly.\n" * 50, "is not a whole ONNX file"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(500), "is not a whole ONNX file"),
    "zeros": (bytes(10**6), "a field with number 0"),
    "ones": (b"\xff" * 10**6, "a number of more than 10 bytes"),
    "lengths": (b"\x3a\xff\xff\xff\xff\x07" * 1000, "a field of 2147483647 bytes where"),
    "nothing": (b"", "is empty (0 bytes)"),
    "folder": (Path.mkdir, "is not a file, expected the .onnx"),
    "device": (lambda path: path.symlink_to(os.devnull), "is not a file, expected the .onnx"),
    "pipe": (os.mkfifo, "is not a file, expected the .onnx"),
    # formats that an engine would take for its own
    "openvino": (field(1, 8) + field(2, "<net name='n' version='11'></net>") + model()[2:], "OpenVINO's own format"),
    "long text": (field(1, 8) + field(2, " " * 70_000 + "<net>") + model()[2:], "OpenVINO's own format"),
}

CHILD = """
import json, sys, tracemalloc
from pathlib import Path
from segport.errors import ModelError
from segport.segmenter import Segmenter

tracemalloc.start()
for path in sorted(Path(sys.argv[1]).iterdir()):
    tracemalloc.reset_peak()
    try:
        Segmenter(path, device="cpu")
        said = "accepted"
    except ModelError as error:
        said = str(error)
    print(json.dumps([path.stem, said, tracemalloc.get_traced_memory()[1] / 1e6, "onnxruntime" in sys.modules]))
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all hostile files."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no pipes with names")
    folder = tmp_path_factory.mktemp("hostile")
    for name, (content, _) in HOSTILE.items():
        path = folder / f"{name}.onnx"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content(path)
    return folder


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_a_reason(hostile: Path, name: str) -> None:
    with pytest.raises(ModelError) as refusal:
        read_contract(hostile / f"{name}.onnx")
    assert str(refusal.value).startswith(str(hostile / f"{name}.onnx: "))
    assert HOSTILE[name][1] in str(refusal.value)
    assert len(str(refusal.value)) < len(str(hostile)) + 500


def test_hostile_files_take_little_memory_and_reach_no_engine(hostile: Path) -> None:
    arguments = [sys.executable, "-c", CHILD, str(hostile)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    outcomes = list(map(json.loads, done.stdout.splitlines()))
    assert {name for name, *_ in outcomes} == set(HOSTILE)
    for name, said, megabytes, engine_imported in outcomes:
        assert HOSTILE[name][1] in said
        assert (name, megabytes) < (name, MEGABYTES)
        assert not engine_imported


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_bytes_without_harm_are_accepted(tmp_path: Path, engine: Engine) -> None:
    """The files above are refused for what they say, not for how they are built here."""
    harmless = [
        stored(64, name="d0"),
        node("Concat", "d0 d0", "d1", integers("axis", 0)),
        node("Constant", "", "k", field(1, "value") + field(5, tensor("t", [1], bytes(4))) + field(20, 4)),
    ]
    (tmp_path / "m.onnx").write_bytes(model(*harmless))
    segmenter = Segmenter(tmp_path / "m.onnx", engine=engine, device="cpu")
    assert segmenter.contract == read_contract(tmp_path / "m.onnx")


@pytest.mark.parametrize("engine", ENGINES)
def test_what_only_an_engine_can_know_is_refused_by_it(tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "m.onnx").write_bytes(TINY.read_bytes().replace(b"perm", b"prem"))
    with pytest.raises(ModelError, match=r"m\.onnx: (ONNX Runtime|OpenVINO) refuses the model"):
        Segmenter(tmp_path / "m.onnx", engine=engine, device="cpu")


def test_a_name_that_means_another_format_to_onnx_runtime_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.ORT").write_bytes(TINY.read_bytes())
    with pytest.raises(ModelError, match="ONNX Runtime's or OpenVINO's own format"):
        read_contract(tmp_path / "m.ORT")


@pytest.mark.parametrize("length", [*range(1, 400, 7), *range(400, TINY.stat().st_size, 2000)])
def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, length: int) -> None:
    (tmp_path / "m.onnx").write_bytes(TINY.read_bytes()[:length])
    with pytest.raises(ModelError, match=r"m\.onnx"):
        read_contract(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("../../../etc/passwd",), r"the golden slice '\.\./\.\./\.\./etc/passwd', which this segport does not ship"),
        (("golden_1_mask.png",), "does not ship"),
        (("/dev/zero",), "does not ship"),
        (golden.NAMES * 10_000, "names a golden slice twice"),
    ],
)
def test_golden_names_that_are_not_the_shipped_ones_are_refused(
    tiny: Segmenter, names: tuple[str, ...], message: str
) -> None:
    hostile = Segmenter.__new__(Segmenter)
    hostile.__dict__.update(vars(tiny))
    hostile.contract = replace(tiny.contract, golden=Golden(names, "AAAA", 1.0, 1.0))
    with pytest.raises(ModelError, match=message):
        golden.self_test(hostile)


FUZZ = """
import faulthandler, random, sys
from pathlib import Path
from segport.errors import ModelError
from segport.segmenter import Segmenter

faulthandler.enable()
original, path, cases = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), int(sys.argv[3])
graph = original.index(b"segport.contract")  # the contract behind it is most of the file

def mutate(data, chance):
    data = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        end = graph if chance.random() < 0.8 else len(data)
        at, other, length = chance.randrange(end), chance.randrange(end), chance.choice((1, 2, 8, 30))
        part = data[other : other + length]
        kind = chance.randrange(5)
        if kind == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            data[at : at + len(part)] = part
        elif kind == 3:
            data[at:at] = part
        else:
            del data[at : at + length]
    return bytes(data)

loaded = engine = 0
for seed in range(cases):
    print(f"case {seed}", file=sys.stderr, flush=True)
    path.write_bytes(mutate(original, random.Random(seed)))
    try:
        Segmenter(path, device="cpu", threads=1)
        loaded += 1
    except ModelError as error:
        engine += "ONNX Runtime refuses" in str(error)
print(loaded, engine)
"""


def test_mutations_of_a_model_load_or_are_refused_and_nothing_else(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", FUZZ, str(TINY), str(tmp_path / "m.onnx"), "400"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    loaded, refused_by_engine = map(int, done.stdout.split())
    assert loaded > 20  # otherwise these are no mutations but noise
    assert refused_by_engine > 5
