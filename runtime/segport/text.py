"""Text that other people chose (file names, and messages that hold them), made safe to show and to store."""

import re

# Control characters, among them those that begin a terminal's commands; line and paragraph separators; characters that
# reorder what stands beside them (Trojan Source, CVE-2021-42574); and surrogates, which stand for bytes of a file name
# that are not UTF-8 and which no stream can encode.
HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# OWASP's list for CSV injection, with the full-width forms that spreadsheets take for the ASCII ones; behind space,
# too, which some of them trim.
FORMULA = re.compile(r"[\s\u200b\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20\t\r\n]")


def printable(text: object) -> str:
    r"""Return `str(text)` with harmful characters written as \x1b or \u202e; other characters, in any script, stay.

    What is returned is one line, can be encoded as UTF-8, and comes back unchanged when given again. A backslash stays
    one backslash, so two names may look alike: the result is for reading, not for opening a file.
    """
    return HARMFUL.sub(_escape, str(text))


def printable_lines(text: str) -> str:
    """Return text of several lines, each made safe by `printable`."""
    return "\n".join(map(printable, text.split("\n")))


def csv_safe(cell: object) -> object:
    """Return what may go into a CSV: text that a spreadsheet would run as a formula gets a leading apostrophe.

    Harmful characters in text are written as by `printable`. Numbers, negative ones too, and all else that is not text
    stay as they are, and what is returned comes back unchanged when given again.
    """
    if not isinstance(cell, str):
        return cell
    safe = printable(cell)
    return f"'{safe}" if FORMULA.match(cell) else safe


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
