"""The committed volumes of patient_1: the script writes them again, to the byte."""

import gzip
import subprocess
import sys
from pathlib import Path

from helpers import SAMPLE_DATA


def content(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data  # zlib's releases pack differently


def test_the_script_writes_the_committed_volumes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, SAMPLE_DATA / "make_volumes.py", "--out", tmp_path], check=True)
    made = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert len(made) == 4 + 3 * 12
    for relative in made:
        assert content(tmp_path / relative) == content(SAMPLE_DATA / relative), relative
    committed = [p for folder in ("nifti", "dicom") for p in (SAMPLE_DATA / folder).rglob("*") if p.is_file()]
    assert len(committed) == len(made)
