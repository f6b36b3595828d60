import csv
import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segport.text import csv_safe, printable

anything = st.text(st.characters(exclude_categories=()))  # lone surrogates, too: file names hold them
BIDI = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("a\nfailed: b\r\tc", r"a\x0afailed: b\x0d\x09c"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("scan\u202egnp.exe", r"scan\u202egnp.exe"),
        ("\u2066x\u2069", r"\u2066x\u2069"),
        ("one\u2028two\u2029", r"one\u2028two\u2029"),
        ("M\udcfcller.png", r"M\udcfcller.png"),
    ],
)
def test_what_commands_a_terminal_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    "name", ["Müller 01.png", "脳/断層_1.tif", "سرطان.png", "a\\b", "👩\u200d⚕️.jpg", "e\u0301", " "]
)
def test_names_in_any_script_stay(name: str) -> None:
    assert printable(name) == name


def test_what_is_no_text_is_shown_as_text() -> None:
    assert printable(ValueError("a\x00b")) == r"a\x00b"
    assert printable(3) == "3"


@given(anything)
def test_nothing_harmful_is_left(text: str) -> None:
    shown = printable(text)
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert not BIDI & set(shown)
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")
    assert printable(shown) == shown


@given(st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp"))))
def test_harmless_text_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=cmd|' /c calc'!A1", "'=cmd|' /c calc'!A1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", r"'\x09=1"),
        ("\r=1", r"'\x0d=1"),
        ("\n=1", r"'\x0a=1"),
        ("  =1", "'  =1"),
        ("\u00a0\ufeff=1", "'\u00a0\ufeff=1"),
        ("\uff1d1", "'\uff1d1"),
        ("\uff0d1", "'\uff0d1"),
    ],
)
def test_a_formula_becomes_text(cell: str, written: str) -> None:
    assert csv_safe(cell) == written


@pytest.mark.parametrize("cell", [-1, -0.5, 0, 1e300, None, True, "a=b", "p-1.png", "", "'x", "1+1", "_-"])
def test_numbers_and_plain_text_stay(cell: object) -> None:
    assert csv_safe(cell) is cell or csv_safe(cell) == cell
    assert type(csv_safe(cell)) is type(cell)


@given(anything)
def test_a_cell_begins_like_no_formula_and_comes_back_from_csv(text: str) -> None:
    cell = csv_safe(text)
    assert isinstance(cell, str)
    assert not cell.strip().startswith(("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
    assert cell.removeprefix("'") == printable(text).removeprefix("'")
    assert csv_safe(cell) == cell
    file = io.StringIO()
    csv.writer(file).writerow([cell, 1])
    assert next(csv.reader([file.getvalue()])) == [cell, "1"]
