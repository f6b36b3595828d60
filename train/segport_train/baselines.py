"""What masks score that nobody computed from a picture: the empty one, and the neighbour's."""

from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segport.folders import natural_key
from segport.scoring import Agreement, Counts, compare_masks
from segport_train.dataset import SliceDataset
from segport_train.evaluation import Evaluation, SliceScore


def predict_nothing(one: Evaluation) -> Evaluation:
    """Return what empty masks score on the slices of an evaluation; distances are not measured."""
    counts = [Counts(fn=s.counts.tumour_pixels, tn=s.counts.pixels - s.counts.tumour_pixels) for s in one.slices]
    return Evaluation(tuple(replace(s, agreement=Agreement(c)) for s, c in zip(one.slices, counts, strict=True)))


def copy_neighbours(data: SliceDataset, train: SliceDataset) -> Evaluation | None:
    """Return what the true mask of the nearest training slice scores on each slice; None where nothing leaks.

    The nearest is the one of the same patient whose number is closest, the lower of two; slices without numbers are
    counted in the natural order of their names. Where the patient has no training slice the mask is empty. None when no
    patient of `data` has one. A split by slices leaks as much as this scores.
    """
    if not set(data.table.patient) & set(train.table.patient):
        return None
    slices = []
    for patient, rows in data.table.groupby("patient"):
        known = train.table[train.table.patient == patient]
        places = _places(pd.concat([known, rows], ignore_index=True))
        for row, place in zip(rows.index, places[len(known) :], strict=True):
            truth = data.truth(row)
            mask = np.zeros_like(truth)
            if len(known):
                nearest = known.index[np.lexsort((places[: len(known)], np.abs(places[: len(known)] - place)))[0]]
                size = (truth.shape[1], truth.shape[0])
                mask = np.asarray(cv2.resize(train.truth(nearest), size, interpolation=cv2.INTER_NEAREST), np.uint8)
            relative = str(data.table.relative[row])
            slices.append(SliceScore(int(row), relative, str(patient), "", compare_masks(mask, truth)))
    return Evaluation(tuple(sorted(slices, key=lambda s: s.row)))


def _places(rows: pd.DataFrame) -> NDArray[np.int64]:
    """Return where slices of a patient lie: their numbers, or where one has none, their places by name."""
    if rows.number.notna().all():
        return rows.number.to_numpy(np.int64)
    places = {name: place for place, name in enumerate(sorted(rows.relative, key=natural_key))}
    return rows.relative.map(places).to_numpy(np.int64)
