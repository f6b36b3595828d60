"""Which intensity window a slice gets: none for uint8, the user's, or the contract's percentile rule per patient."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Lock

import numpy as np

from segport.contract import ModelContract
from segport.entry import Stamp
from segport.errors import SliceError
from segport.limits import pixel_limit
from segport.preprocess import Pixels, Window, percentile_window, split_channels
from segport.reading import read_slice
from segport.sources import Slice

REMEMBERED = 1024  # patients; slices come patient by patient, so few are needed at a time


class PatientWindows:
    """Windows of the patients of one run, computed when first needed. Safe to use from threads.

    `slices_of_patient`: gives all slices of the patient that its argument belongs to. `read`: reads one of them.
    """

    def __init__(
        self,
        slices_of_patient: Callable[[Slice], Iterable[Slice]],
        contract: ModelContract,
        window: tuple[float, float] | None = None,
        read: Callable[[Path], Pixels] = read_slice,
    ) -> None:
        self._slices_of_patient, self._read = slices_of_patient, read
        self._contract = contract
        self._given: Window | None = (window,) if window is not None else None
        self._known: dict[tuple[str, int], Window] = {}
        self._facts: dict[str, str] = {}
        self._contents: dict[str, str] = {}
        self._lacking: set[str] = set()
        self._lock = Lock()

    def window_of(self, item: Slice, pixels: Pixels) -> Window | None:
        """Return the window for `pixels` read from `item`; None where they are uint8 and taken as stored.

        By the percentile rule every slice of the patient that is not uint8 and has as many channels counts;
        slices that cannot be read or used are left out (they fail on their own). Raises `SliceError` for `pixels` that
        no window can make usable.
        """
        if not self.follows_rule(pixels):
            return None if pixels.dtype == np.uint8 else self._given
        channels = split_channels(pixels).shape[2]
        with self._lock:
            if (item.patient, channels) not in self._known:
                if len(self._known) >= REMEMBERED:
                    self._known.clear()
                alike = self._read_alike(item, channels)
                self._known[item.patient, channels] = percentile_window(alike, self._contract)
            return self._known[item.patient, channels]

    def follows_rule(self, pixels: Pixels) -> bool:
        """Return whether the window of `pixels` depends on the patient's other slices."""
        return pixels.dtype != np.uint8 and self._given is None

    def state_of_patient(self, item: Slice) -> str:
        """Return two hashes over the patient's slices, of names, sizes and times, and of names and contents.

        While they stay, so does the window: see `is_unchanged`.
        """
        with self._lock:
            return f"{self._hash(item, self._facts, _facts_of)}-{self._hash(item, self._contents, _contents_of)}"

    def is_unchanged(self, item: Slice, state: str, *, verify: bool) -> bool:
        """Return whether the patient's slices are those of `state`: by sizes and times, or to `verify` by contents."""
        facts, _, contents = state.partition("-")
        with self._lock:
            if verify:
                return contents == self._hash(item, self._contents, _contents_of)
            return facts == self._hash(item, self._facts, _facts_of)

    def lacks_slices(self, item: Slice) -> bool:
        """Return whether a window of the patient lacks slices that are there but could not be read from the disk."""
        return item.patient in self._lacking

    def _hash(self, item: Slice, known: dict[str, str], facts_of: Callable[[Path], object]) -> str:
        if item.patient not in known:
            if len(known) >= REMEMBERED:
                known.clear()
            state = hashlib.sha256(str(pixel_limit()).encode())  # it decides which slices can be read
            for other in self._slices_of_patient(item):
                try:
                    state.update(repr((other.relative.as_posix(), facts_of(other.path))).encode())
                except OSError:
                    continue
            known[item.patient] = state.hexdigest()[:16]
        return known[item.patient]

    def _read_alike(self, item: Slice, channels: int) -> Iterator[Pixels]:
        for other in self._slices_of_patient(item):
            try:
                pixels = split_channels(self._read(other.path))
            except SliceError as error:
                if isinstance(error.__cause__, OSError):
                    self._lacking.add(item.patient)
                continue
            if pixels.dtype != np.uint8 and pixels.shape[2] == channels:
                yield pixels


def _facts_of(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


def _contents_of(path: Path) -> str:
    return Stamp.of(path).sha256
