"""What tests of all rooms share; nothing here needs torch."""

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segport.cli import main

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "data" / "tiny.onnx"
RULED = ROOT / "tests" / "data" / "ruled.onnx"  # the same, but leaves out small components
SAMPLE_DATA = ROOT / "sample_data"


def square(side: int = 64, *, low: int = 16, high: int = 48, value: int = 200) -> NDArray[np.uint8]:
    """Return an RGB slice whose FLAIR alone holds a bright square."""
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[low:high, low:high, 1] = value
    return pixels


def write(path: Path, pixels: NDArray[Any]) -> Path:
    """Write an RGB or grey picture under any name, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    fine, encoded = cv2.imencode(path.suffix, np.ascontiguousarray(data))
    assert fine
    encoded.tofile(path)
    return path


def read(path: Path) -> NDArray[Any]:
    """Read a picture as OpenCV stores it (BGR)."""
    return np.asarray(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED))


def infer(*arguments: object) -> int:
    """Run seg-infer with the tiny model (or one that is named) on the CPU; return its exit code."""
    return main(["--model", str(TINY), "--device", "cpu", "--quiet", *map(str, arguments)])


def rows(out: Path) -> list[dict[str, str]]:
    """Return the rows of a run's summary.csv."""
    with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
