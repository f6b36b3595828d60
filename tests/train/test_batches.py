"""Batches come from threads: in order, with their errors, and without threads that stay."""

import threading
import time
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segport.errors import SliceError
from segport_train.batches import AHEAD, batches
from segport_train.dataset import SliceDataset


class Items:
    """A dataset of numbers that notes who asked for what; one row fails."""

    def __init__(self, broken: int = -1, seconds: float = 0.0) -> None:
        self.broken, self.seconds = broken, seconds
        self.asked: list[tuple[int, str]] = []

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked.append((key[1], threading.current_thread().name))
        time.sleep(self.seconds)
        if key[1] == self.broken:
            raise SliceError("cannot be read")
        return torch.full((2, 2, 3), key[1]), torch.full((2, 2), key[1])


def parts(count: int) -> list[NDArray[np.int64]]:
    return [np.array([2 * n, 2 * n + 1]) for n in range(count)]


def load(items: Items, count: int, workers: int, *, pinned: bool = False) -> list[int]:
    return [
        int(masks[0, 0, 0]) for _, masks in batches(cast(SliceDataset, items), 1, parts(count), workers, pinned=pinned)
    ]


def no_thread_is_left() -> bool:
    return not any(thread.name.startswith("batch") for thread in threading.enumerate())


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_order(workers: int) -> None:
    items = Items()
    assert load(items, 20, workers) == list(range(0, 40, 2))
    assert sorted(row for row, _ in items.asked) == list(range(40))
    assert no_thread_is_left()


@pytest.mark.parametrize("workers", [1, 3])
def test_items_are_changed_off_the_training_thread(workers: int) -> None:
    items = Items()
    load(items, 6, workers)
    assert threading.current_thread().name not in {name for _, name in items.asked}
    assert all(name.startswith("batch") for _, name in items.asked)


def test_without_workers_the_training_thread_does_all() -> None:
    items = Items()
    load(items, 6, 0)
    assert {name for _, name in items.asked} == {threading.current_thread().name}


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_in_a_thread_comes_out_after_the_batches_before_it(workers: int) -> None:
    items = Items(broken=9)
    loaded = batches(cast(SliceDataset, items), 1, parts(50), workers)
    for _ in range(4):
        next(loaded)
    with pytest.raises(SliceError, match="cannot be read"):
        next(loaded)
    assert no_thread_is_left()
    assert len(items.asked) < 100  # what waited was not begun


def test_an_epoch_that_ends_early_leaves_no_thread_and_begins_nothing_more() -> None:
    items = Items(seconds=0.01)
    loaded = batches(cast(SliceDataset, items), 1, parts(500), 2)
    next(loaded)
    loaded.close()  # type: ignore[attr-defined]  # a generator
    assert no_thread_is_left()
    assert len(items.asked) <= 2 * (1 + 2 * AHEAD)


def test_threads_run_a_few_batches_ahead_and_no_further() -> None:
    items = Items()
    loaded = batches(cast(SliceDataset, items), 1, parts(50), 2)
    next(loaded)
    time.sleep(0.2)
    assert 2 * AHEAD <= len(items.asked) <= 2 * (1 + 2 * AHEAD)
    loaded.close()  # type: ignore[attr-defined]


def test_batches_are_pinned_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[int] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.ndim) or tensor)
    assert load(Items(), 3, 1, pinned=True) == [0, 2, 4]
    assert pinned == [4, 3] * 3
    load(Items(), 3, 1)
    assert len(pinned) == 6
