"""The ledger: what it says comes back, whatever happened to its file."""

import errno
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faults import Faults
from segport.entry import Entry, Found, Stamp
from segport.errors import OutputError
from segport.ledger import BLOCK, Ledger
from segport.regions import Regions
from segport.scoring import Agreement, Counts

FOUND = Found((48, 64), 12, 0.75, Regions(2, 7, (1, 2, 3, 4), (2.5, 3.5)), Agreement(Counts(3, 1, 2, 9), 1.414, 1))
FULL = Entry(
    "p/a",
    "/in/p/a.png",
    "written",
    message="not scored",
    read=Stamp(1, 2**62, "ab"),
    model="m",
    settings="s",
    volume="v",
    outputs={"_mask.png": Stamp(3, 4, "cd")},
    scored=True,
    truth=Stamp(5, 6, "ef"),
    found=FOUND,
    warnings=("too large", "nearly constant"),
    time="2026-01-01",
)


def write_ledger(folder: Path, *entries: Entry) -> bytes:
    ledger = Ledger(folder, writable=True)
    ledger.append(entries)
    ledger.close()
    return (folder / "ledger.jsonl").read_bytes()


def find(folder: Path, stem: str, *, writable: bool = True) -> Entry | None:
    ledger = Ledger(folder, writable=writable)
    try:
        return ledger.find(stem)
    finally:
        ledger.close()


def test_an_entry_comes_back_as_it_was(tmp_path: Path) -> None:
    write_ledger(tmp_path, FULL)
    assert find(tmp_path, "p/a") == FULL


@given(stem=st.text(st.characters(codec=None), min_size=1), other=st.text(st.characters(codec=None)))
@settings(max_examples=100, deadline=None)
def test_stems_of_any_characters_are_kept_apart(
    tmp_path_factory: pytest.TempPathFactory, stem: str, other: str
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    write_ledger(folder, replace(FULL, stem=stem), replace(FULL, stem=stem + "x"), replace(FULL, stem="\udce9\ud800"))
    assert find(folder, stem) == replace(FULL, stem=stem)
    assert find(folder, "\udce9\ud800") == replace(FULL, stem="\udce9\ud800")
    if other not in (stem, stem + "x", "\udce9\ud800"):
        assert find(folder, other) is None


def test_a_last_line_cut_at_any_byte_is_mended_and_the_others_stay(tmp_path: Path) -> None:
    first = replace(FULL, message="é\n\0" * 3)
    one = len(write_ledger(tmp_path, first))
    whole = write_ledger(tmp_path, replace(FULL, stem="b"), replace(FULL, message="second"))
    start = whole.rindex(b"\n", 0, -1) + 1
    for end in range(start, len(whole)):
        (tmp_path / "ledger.jsonl").write_bytes(whole[:end])
        if end < len(whole) - 1:
            assert find(tmp_path, "p/a", writable=False) == first  # reading alone does not mend
        assert (tmp_path / "ledger.jsonl").stat().st_size == end
        write_ledger(tmp_path, replace(FULL, stem="c"))
        assert find(tmp_path, "p/a") == first
        assert find(tmp_path, "b") == replace(FULL, stem="b")
        assert find(tmp_path, "c") == replace(FULL, stem="c")
    assert one < start


@pytest.mark.parametrize("tail", [b"\0" * 10, b"\0" * 5 * BLOCK, b'{"stem":"' + b"x" * BLOCK, b"\xff\xfe\x80"])
def test_a_tail_without_an_end_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    whole = write_ledger(tmp_path, FULL)
    (tmp_path / "ledger.jsonl").write_bytes(whole + tail)
    assert find(tmp_path, "p/a") == FULL
    assert (tmp_path / "ledger.jsonl").read_bytes() == whole


@pytest.mark.parametrize("content", [b"", b"\0" * (BLOCK + 1), b"no line at all"])
def test_a_file_without_a_line_is_an_empty_ledger(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledger.jsonl").write_bytes(content)
    assert find(tmp_path, "p/a") is None
    assert (tmp_path / "ledger.jsonl").read_bytes() == b""
    write_ledger(tmp_path, FULL)
    assert find(tmp_path, "p/a") == FULL


DAMAGED = [
    b"\0" * 40,
    b"\xff\xff",
    b"[" * 100_000,
    b"[1]",
    b"null",
    b"1e999",
    b"9" * 5000,
    b'{"stem"',
    b"{}",
    b"",
    b'{"run": "in"}',
    b'{"stem": {"p/a": 1}}',
]


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_line_in_the_middle_is_passed_over(tmp_path: Path, line: bytes) -> None:
    first = write_ledger(tmp_path, FULL)
    second = (replace(FULL, stem="b").to_json() + "\n").encode()
    (tmp_path / "ledger.jsonl").write_bytes(first + line + b"\n" + second)
    ledger = Ledger(tmp_path, writable=True)
    assert ledger.find("p/a") == FULL
    assert ledger.find("b") == replace(FULL, stem="b")
    assert ledger.unusable == (line != b'{"stem": {"p/a": 1}}')
    assert ledger.inputs is None
    ledger.close()


MISFIT = [
    {"colour": "red"},
    {"read": {"size": 1, "mtime_ns": 2, "sha256": "x", "inode": 3}},
    {"read": 7},
    {"outputs": [1]},
    {"outputs": {"_mask.png": {}}},
    {"found": {"shape": [1, 2]}},
    {"found": "pixels"},
    {"warnings": 5},
    {"warnings": [5]},
    {"message": 5},
    {"time": None},
    {"status": "paused"},
    {"outputs": {"/../../_mask.png": {"size": 1, "mtime_ns": 2, "sha256": "x"}}},
]


@pytest.mark.parametrize("change", MISFIT, ids=range(len(MISFIT)))
def test_a_line_of_another_version_is_no_entry(tmp_path: Path, change: dict[str, object]) -> None:
    document = json.loads(FULL.to_json()) | change
    (tmp_path / "ledger.jsonl").write_text(json.dumps(document) + "\n")
    assert find(tmp_path, "p/a") is None


def test_a_line_without_what_may_be_missing_is_an_entry(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_text('{"stem":"a","source":"/a.png","status":"failed"}\n{"stem":"b"}\n')
    assert find(tmp_path, "a") == Entry("a", "/a.png", "failed")
    assert find(tmp_path, "b") is None


def test_the_last_of_many_lines_counts_and_little_is_kept_of_them(tmp_path: Path) -> None:
    lines = [replace(FULL, stem=f"p/{n % 7000}", message=str(n)).to_json() for n in range(20_000)]
    (tmp_path / "ledger.jsonl").write_text("\n".join(lines) + "\n")
    ledger = Ledger(tmp_path, writable=True)
    for n in (0, 5_999, 6_000, 6_999):
        last = n + (14_000 if n < 6_000 else 7_000)
        assert [e.message for e in ledger.history(f"p/{n}")] == [str(i) for i in range(last, -1, -7000)]
    kept = [value for value in vars(ledger).values() if sys.getsizeof(value) > 10_000 or hasattr(value, "nbytes")]
    assert sum(array.nbytes for array in kept) == 16 * 20_000  # two numbers a line, no entry
    ledger.close()


@pytest.mark.parametrize("step", ["ledger write", "ledger fsync"])
@pytest.mark.parametrize("when", ["before", "half", "after"])
def test_what_cannot_be_appended_whole_is_not_appended(tmp_path: Path, step: str, when: str) -> None:
    before = write_ledger(tmp_path, FULL)
    with Faults(step, errno.ENOSPC, when=when).patched():
        ledger = Ledger(tmp_path, writable=True)
        with pytest.raises(OutputError, match=r"ledger.jsonl: cannot be read or written \(No space left on device\)"):
            ledger.append([replace(FULL, stem="b"), replace(FULL, stem="c")])
        assert (tmp_path / "ledger.jsonl").read_bytes() == before
        ledger.append([replace(FULL, stem="d")])
        ledger.close()
    assert find(tmp_path, "b") is None
    assert find(tmp_path, "d") == replace(FULL, stem="d")


def test_a_half_line_that_cannot_be_taken_back_is_mended_later(tmp_path: Path) -> None:
    write_ledger(tmp_path, FULL)
    write = Faults("ledger write", errno.ENOSPC, when="half")
    with Faults("ledger truncate", errno.EIO).patched(), write.patched():
        ledger = Ledger(tmp_path, writable=True)
        with pytest.raises(OutputError, match="cannot be read or written"):
            ledger.append([replace(FULL, stem="b")])
        ledger.close()
    assert not (tmp_path / "ledger.jsonl").read_bytes().endswith(b"\n")
    assert find(tmp_path, "p/a") == FULL
    assert find(tmp_path, "b") is None


def test_a_ledger_that_cannot_be_opened_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"ledger.jsonl: cannot be read or written \(Is a directory\)"):
        Ledger(tmp_path, writable=True)


def test_a_ledger_that_is_only_read_is_not_made(tmp_path: Path) -> None:
    assert find(tmp_path, "a", writable=False) is None
    assert list(tmp_path.iterdir()) == []


def test_the_inputs_of_the_last_run_are_known(tmp_path: Path) -> None:
    for inputs in (["a", "b"], ["c\udce9"]):
        ledger = Ledger(tmp_path, writable=True)
        ledger.begin_run(inputs)
        ledger.close()
        ledger = Ledger(tmp_path, writable=True)
        assert ledger.inputs == inputs
        ledger.close()
