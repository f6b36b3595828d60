"""Readers that do what a reader must not: the harness has to find each of them."""

import os
import time
from pathlib import Path

import numpy as np

from segport.errors import SliceError


def crash(path: Path) -> np.ndarray:
    os.abort()


def hang(path: Path) -> np.ndarray:
    time.sleep(600)
    raise AssertionError("nobody waits that long")


def turn(path: Path) -> np.ndarray:
    return np.zeros((20, 24), np.uint8)  # the file is 24 high and 20 wide


def forget(path: Path) -> np.ndarray:
    return np.empty((200, 200), np.uint8)


def fail(path: Path) -> np.ndarray:
    raise ValueError("out of range")


def refuse_without_a_reason(path: Path) -> np.ndarray:
    raise SliceError("\n")


def take_memory(path: Path) -> np.ndarray:
    np.full(1_600_000_000, 1, np.uint8)
    raise SliceError("is too large")
