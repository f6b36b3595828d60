"""Which intensity window a slice gets: none for uint8, the user's, or the contract's percentile rule per patient."""

from collections.abc import Iterator, Sequence
from threading import Lock

import numpy as np

from segport.contract import ModelContract
from segport.errors import SliceError
from segport.preprocess import Pixels, Window, percentile_window, split_channels
from segport.reading import read_slice
from segport.sources import Slice, group_patients


class PatientWindows:
    """Windows of the patients of one run, computed when first needed and then kept. Safe to use from threads."""

    def __init__(
        self, slices: Sequence[Slice], contract: ModelContract, window: tuple[float, float] | None = None
    ) -> None:
        self._patients = group_patients(slices)
        self._contract = contract
        self._given: Window | None = (window,) if window is not None else None
        self._known: dict[tuple[str, int], Window] = {}
        self._lock = Lock()

    def window_of(self, item: Slice, pixels: Pixels) -> Window | None:
        """Return the window for `pixels` read from `item`; None where they are uint8 and taken as stored.

        By the percentile rule every slice of the patient that is not uint8 and has as many channels counts;
        slices that cannot be read or used are left out (they fail on their own). Raises `SliceError` for `pixels` that
        no window can make usable.
        """
        if pixels.dtype == np.uint8 or self._given is not None:
            return None if pixels.dtype == np.uint8 else self._given
        channels = split_channels(pixels).shape[2]
        with self._lock:
            if (item.patient, channels) not in self._known:
                alike = self._read_alike(item.patient, channels)
                self._known[item.patient, channels] = percentile_window(alike, self._contract)
            return self._known[item.patient, channels]

    def _read_alike(self, patient: str, channels: int) -> Iterator[Pixels]:
        for item in self._patients[patient]:
            try:
                pixels = split_channels(read_slice(item.path))
            except SliceError:
                continue
            if pixels.dtype != np.uint8 and pixels.shape[2] == channels:
                yield pixels
