"""Broken pictures are read or refused: never a crash, a hang, another exception or memory without bound."""

import struct
import sys
from pathlib import Path

import pytest

from fuzz.harness import main, run_all, run_cases, summarise
from fuzz.mutate import FORMATS, make
from fuzz.sizes import claimed_size

PER_FORMAT = 200
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="memory is watched by means of Linux")


def test_broken_pictures_of_every_format_are_read_or_refused() -> None:
    outcomes = run_all(PER_FORMAT)
    failed = [str(o) for o in outcomes if o.verdict == "failed"]
    assert not failed, "\n".join(failed)
    print(summarise(outcomes))
    verdicts = [o.verdict for o in outcomes]
    assert len(outcomes) == PER_FORMAT * len(FORMATS) >= 5000
    assert verdicts.count("read") > 1000, "cases that are all refused at once prove little"
    assert verdicts.count("refused") > 1000


def test_a_case_is_the_same_every_time() -> None:
    assert make("tif-lzw", 3) == make("tif-lzw", 3) != make("tif-lzw", 4)


@pytest.mark.parametrize(
    ("reader", "why"),
    [
        ("crash", "the process died"),
        ("hang", "no answer after 3 seconds"),
        ("turn", "size is (20, 24), expected (24, 20)"),
        ("fail", "ValueError: out of range"),
        ("refuse_without_a_reason", "the message is not one line of text"),
        pytest.param("forget", "two readings differ", marks=LINUX),
        pytest.param("take_memory", "bytes of memory", marks=LINUX),
    ],
)
def test_a_reader_that_fails_is_found_with_its_case(reader: str, why: str) -> None:
    cases = [("tif", seed) for seed in range(50) if _keeps_its_size(make("tif", seed))][:2]
    outcomes = run_cases(cases, reader=f"fuzz.bad_readers:{reader}", patience=3 if reader == "hang" else 20)
    assert [(o.case, o.seed, o.verdict) for o in outcomes] == [(*case, "failed") for case in cases]
    assert [o.why for o in outcomes if why not in o.why] == []
    assert f"--case tif {cases[1][1]}" in str(outcomes[1])


def _keeps_its_size(data: bytes) -> bool:
    try:
        return claimed_size(data) == (24, 20)
    except (struct.error, KeyError):
        return False


def test_one_case_can_be_run_again_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--case", "png-rgb", "5", "--keep", f"{tmp_path}/a.png"]) == 0
    assert (tmp_path / "a.png").read_bytes() == make("png-rgb", 5)
    assert "png-rgb 5: " in capsys.readouterr().out
