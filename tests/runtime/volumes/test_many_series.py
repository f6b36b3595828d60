"""A folder of 200 DICOM series, five of them broken: the others get masks, memory stays flat, a run goes on."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pydicom

from dicom_phantoms import phantom, save, series, uid
from helpers import TINY, rows

SERIES = 200
BROKEN = {
    20: "less pixel data than its header says",
    60: "ImageOrientationPatient",
    100: "JPEG Lossless",
    140: "colours or a palette",
    180: "PixelSpacing",
}


def make(root: Path, number: int) -> None:
    kinds = {60: {"ImageOrientationPatient": None}, 140: {"SamplesPerPixel": 3}, 180: {"PixelSpacing": None}}
    own = {"SeriesInstanceUID": uid("many", number), "StudyInstanceUID": uid("many studies", number)}
    slices = series(phantom(3, 16, 16), **own, **kinds.get(number, {}))
    paths = save(root / f"{number % 7}" / f"{number}", slices, "IM{:04}")
    if number == 20:
        paths[1].write_bytes(paths[1].read_bytes()[:-100])
    if number == 100:
        ds = pydicom.dcmread(paths[0])
        ds.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
        ds.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
        ds.save_as(paths[0])


def run(*arguments: object) -> tuple[int, str, int]:
    """Run seg-infer in a process of its own; return its exit code, what it printed, and its largest size in kB."""
    code = "import sys; from segport.cli import main; sys.exit(main())"
    options = ["--model", str(TINY), "--device", "cpu", "--quiet"]
    command = [sys.executable, "-c", code, *map(str, arguments), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, said, usage.ru_maxrss


def test_200_series_of_which_five_are_broken(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for number in range(40):
        make(source, number)
    code, said, few = run(source, "--out", out)
    assert code == 1
    assert "39 masks in" in said
    for number in range(40, SERIES):
        make(source, number)
    (source / "DICOMDIR").write_bytes(b"x")
    (source / "readme.txt").write_text("stray")
    code, said, many = run(source, "--out", out)
    assert code == 1
    assert "195 masks in" in said
    assert "39 of them up to date before (5 failed" in said
    assert many < 1.1 * few  # of five times the series
    table = rows(out)
    assert Counter(row["status"] for row in table) == {"written": 3 * 195, "failed": 5}
    failed = [row["message"] for row in table if row["status"] == "failed"]
    for reason in BROKEN.values():
        assert sum(reason in message for message in failed) == 1, (reason, failed)
    assert len(list(out.rglob("*_mask.dcm"))) == 195
