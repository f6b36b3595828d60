"""Which files are taken for DICOM; that is told without pydicom, which may be missing."""

from pathlib import Path

ENDINGS = (".dcm", ".dicom", ".ima")
_MARK, _MARK_AT = b"DICM", 128


def is_dicom(path: Path) -> bool:
    """Return whether a file says that it is DICOM, by its ending or else by its mark; False if it cannot be read."""
    if path.suffix.lower() in ENDINGS:
        return True
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return False
        with path.open("rb") as file:
            return file.read(_MARK_AT + len(_MARK))[_MARK_AT:] == _MARK
    except OSError:
        return False
