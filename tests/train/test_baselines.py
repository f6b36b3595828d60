"""The baselines, counted by hand."""

from typing import cast

import numpy as np
import pandas as pd

from scored import PIXELS, row, scored
from segport_train.baselines import copy_neighbours, predict_nothing
from segport_train.dataset import SliceDataset


class Masks:
    """Slices of which only names and true masks are known: (patient, number, tumour pixels)."""

    def __init__(self, *slices: tuple[str, int | None, int], pixels: int = PIXELS) -> None:
        rows = [(p, f"{p}/{p}_{n}" if n else f"{p}/{chr(97 + i)}", n) for i, (p, n, _) in enumerate(slices)]
        self.table = pd.DataFrame(rows, columns=["patient", "relative", "number"])
        self.tumour, self.pixels = [t for *_, t in slices], pixels

    def truth(self, index: int) -> np.ndarray:
        return row(self.tumour[index], pixels=self.pixels)


def copied(data: Masks, train: Masks):
    return copy_neighbours(cast(SliceDataset, data), cast(SliceDataset, train))


def test_predicting_nothing_is_right_on_the_background_alone() -> None:
    nothing = predict_nothing(scored(("a", row(4), row(3)), ("a", row(1), row(0)), ("b", row(2), row(0))))
    assert nothing.scores.accuracy == 27 / 30
    assert nothing.scores.dice_pooled == 0
    assert nothing.scores.dice_mean_per_patient == 0.5  # the patient without tumour counts as 1
    assert nothing.scores.hd95_mean_per_patient is None


def test_the_neighbours_mask_scores_what_was_counted_by_hand() -> None:
    train = Masks(("a", 1, 2), ("a", 5, 6), ("b", 1, 10))
    part = Masks(("a", 2, 4), ("a", 4, 6), ("a", 3, 3), ("b", 9, 5))
    result = copied(part, train)
    dice = [s.counts.dice for s in result.slices]
    # 2 takes 1's mask; 4 takes 5's; 3 is as far from both and takes 1's, the lower; 9 takes the only one
    assert dice == [2 * 2 / 6, 1, 2 * 2 / 5, 2 * 5 / 15]
    assert result.scores.dice_pooled == 2 * (2 + 6 + 2 + 5) / (6 + 12 + 5 + 15)
    assert result.scores.accuracy == 1 - (2 + 0 + 1 + 5) / 40


def test_a_patient_without_training_slices_gets_an_empty_mask() -> None:
    result = copied(Masks(("a", 1, 4), ("c", 1, 4)), Masks(("a", 2, 4)))
    assert [s.counts.dice for s in result.slices] == [1, 0]
    assert result.slices[1].counts.fn == 4


def test_where_no_patient_is_in_both_parts_nothing_is_copied() -> None:
    assert copied(Masks(("a", 1, 4)), Masks(("b", 1, 4))) is None


def test_slices_without_numbers_are_neighbours_by_name() -> None:
    train = Masks(("a", None, 1), ("a", None, 5))  # a/a and a/b
    part = Masks(("z", None, 1), ("z", None, 1), ("a", None, 5))  # a/c
    assert copied(part, train).slices[2].counts.dice == 1


def test_names_are_in_natural_order_whose_numbers_do_not_end_them() -> None:
    train, part = Masks(("a", None, 10), ("a", None, 2)), Masks(("a", None, 2))
    train.table["relative"], part.table["relative"] = ["a/10_flair.png", "a/2_flair.png"], ["a/1_flair.png"]
    assert copied(part, train).slices[0].counts.dice == 1  # the mask of 2, not of 10


def test_a_neighbour_of_another_size_is_scaled() -> None:
    result = copied(Masks(("a", 1, 4)), Masks(("a", 2, 8), pixels=20))
    assert result.slices[0].counts.dice == 1
