"""What a network was trained on, as the runtime compares slices with it: sizes, channel counts and grey levels."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segport.contract import Input, ModelContract, TrainingRange
from segport.preprocess import to_display
from segport.reading import read_slice
from segport.windows import PatientWindows
from segport_train.cache import SliceCache, count_greys
from segport_train.dataset import same_patient, table_slices
from segport_train.table import content


def training_range(table: pd.DataFrame, cache: SliceCache) -> TrainingRange:
    """Return sizes, channel counts and grey levels of the training slices; the cache has counted those of uint8.

    Levels: per channel the median over patients of percentiles 1, 50, 99 and 100 of every fourth pixel.
    """
    levels = [_percentiles(_greys_of_patient(rows, cache)) for _, rows in table.groupby("patient")]
    medians = np.median(levels, axis=0).round(1)
    sizes = table[["height", "width"]].drop_duplicates().sort_values(["height", "width"])
    return TrainingRange(
        sizes=tuple((int(h), int(w)) for h, w in sizes.itertuples(index=False)),
        channel_counts=tuple(sorted(int(c) for c in table.channels.unique())),
        intensity=tuple(tuple(float(v) for v in row) for row in medians),
    )


def _greys_of_patient(rows: pd.DataFrame, cache: SliceCache) -> NDArray[np.int64]:
    """Return how often each grey level occurs per channel in a patient's slices, [3, 256]."""
    slices = table_slices(rows)
    windows = PatientWindows(same_patient(rows), ModelContract(input=Input(8)))  # default levels; no size enters
    counts = np.zeros((3, 256), np.int64)
    for item, row in zip(slices, rows.to_dict("records"), strict=True):
        known = cache.find(content(row))
        if known is not None:
            counts += known.greys
        else:
            pixels = read_slice(item.path)
            counts += count_greys(to_display(pixels, windows.window_of(item, pixels)))
    return counts


def _percentiles(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return percentiles 1, 50, 99 and 100 of the pixels that were counted, [3, 4]."""
    greys = np.arange(256, dtype=np.uint8)
    return np.stack([np.percentile(np.repeat(greys, channel), (1, 50, 99, 100)) for channel in counts])
