"""What a model's masks lose when the slices are not as it was trained: other brightness, other gamma, FLAIR alone.

    python benchmarks/intensities.py FOLDER --model MODEL.onnx [--every N]

`FOLDER` holds 8-bit RGB slices with masks, of patients that the model was not trained on; `--every 3` takes every third
of them. Prints Dice per patient and pooled for each change, and the difference from the slices as stored.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segport.reading import read_slice, read_truth
from segport.scoring import Counts, bootstrap_interval, count_pixels, score_patients
from segport.segmenter import Segmenter, default_model
from segport.sources import Slice, list_slices

Change = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

BATCH = 8
FACTORS, GAMMAS = (0.5, 0.7, 0.85, 1.2, 1.5, 2.0), (0.7, 1.4)


def main() -> int:
    """Measure, print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of 8-bit RGB slices with masks")
    parser.add_argument("--model", type=Path, default=default_model(), help="(the embedded one)")
    parser.add_argument("--every", type=int, default=1, help="take every N-th slice of the list (%(default)s)")
    args = parser.parse_args()
    slices = list_slices(args.folder).slices[:: args.every]
    segmenter = Segmenter(args.model, device="cpu")
    print(
        "| slices | Dice, mean per patient | Dice, pooled | difference per patient, 95 % interval |\n|---|---|---|---|"
    )
    stored: dict[str, Counts] = {}
    for name, change in CHANGES.items():
        counts = _score(segmenter, slices, change)
        stored = stored or counts
        scores = score_patients(counts, len(slices))
        differences = [counts[patient].dice - stored[patient].dice for patient in counts]
        low, high = bootstrap_interval(differences)
        print(
            f"| {name} | {scores.dice_mean_per_patient:.4f} | {scores.dice_pooled:.4f} |"
            f" {np.mean(differences):+.4f} ({low:+.4f} to {high:+.4f}) |",
            flush=True,
        )
    return 0


def _score(segmenter: Segmenter, slices: list[Slice], change: Change) -> dict[str, Counts]:
    """Return each patient's pixels; slices are read anew, so that memory holds a batch."""
    counts = defaultdict[str, Counts](Counts)
    for start in range(0, len(slices), BATCH):
        part = slices[start : start + BATCH]
        pixels = [read_slice(one.path) for one in part]
        masks = segmenter.predict([change(one) for one in pixels], batch_size=BATCH)
        for one, shown, mask in zip(part, pixels, masks, strict=True):
            counts[one.patient] += count_pixels(mask, read_truth(one, shown.shape))
    return dict(counts)


def _times(factor: float) -> Change:
    return _map_levels(lambda levels: factor * levels)


def _gamma(exponent: float) -> Change:
    return _map_levels(lambda levels: levels**exponent)


def _map_levels(change: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Change:
    """Return what changes grey levels, given and taken as shares of 255; above 1 they are cut."""
    levels = np.asarray(np.clip(np.round(255 * change(np.arange(256) / 255)), 0, 255), np.uint8)
    return lambda pixels: levels[pixels]


CHANGES: dict[str, Change] = {
    "as stored": lambda pixels: pixels,
    "FLAIR alone": lambda pixels: np.ascontiguousarray(pixels[..., 1]),
    **{f"times {f:g}": _times(f) for f in FACTORS},
    **{f"gamma {g:g}": _gamma(g) for g in GAMMAS},
}


if __name__ == "__main__":
    sys.exit(main())
