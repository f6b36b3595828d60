"""Whether probabilities mean what they say: of all pixels with probability 0.3 three of ten should be tumour."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segport.preprocess import sigmoid

FINE = 100  # bins of width 0.01: bounded memory, and a limit at any whole percent
COARSE = 10  # bins of a reliability curve, of width 0.1
NEAR = 0.01  # 98 % of the pixels of unseen LGG patients lie below: with them any error is small


@dataclass(frozen=True)
class Bin:
    """Pixels of a range of probabilities: how many, their mean probability, and the share that is tumour."""

    pixels: int
    probability: float
    tumour: float


@dataclass(frozen=True, eq=False)
class Calibration:
    """Pixels by their probability, in 100 bins of width 0.01. Calibrations of different slices add up.

    `pixels`, `tumour`: int64 [100], how many there are and how many are tumour. `probability`: float64 [100], the sum
    of their probabilities.
    """

    pixels: NDArray[np.int64]
    tumour: NDArray[np.int64]
    probability: NDArray[np.float64]

    @classmethod
    def empty(cls) -> "Calibration":
        """Return the calibration of no pixel."""
        return cls(np.zeros(FINE, np.int64), np.zeros(FINE, np.int64), np.zeros(FINE))

    @classmethod
    def of_slice(cls, logits: NDArray[np.float32], truth: NDArray[np.uint8]) -> "Calibration":
        """Return the calibration of a slice; `logits`: float32 [H, W], `truth`: uint8 [H, W], above 0 is tumour."""
        probability = sigmoid(logits).ravel()
        where = np.minimum((probability * FINE).astype(np.int64), FINE - 1)
        return cls(
            np.bincount(where, minlength=FINE),
            np.bincount(where[truth.ravel() > 0], minlength=FINE),
            np.bincount(where, probability, FINE).astype(np.float64),
        )

    def __add__(self, other: "Calibration") -> "Calibration":
        return Calibration(self.pixels + other.pixels, self.tumour + other.tumour, self.probability + other.probability)

    def curve(self, minimum: float = 0.0) -> list[Bin]:
        """Return the reliability curve of pixels with a probability from `minimum` (whole percents): 10 bins.

        Bins without pixels are left out.
        """
        first, width = round(minimum * FINE), FINE // COARSE
        bins = []
        for start in range(0, FINE, width):
            chosen = np.s_[max(start, first) : start + width]
            pixels = int(self.pixels[chosen].sum())
            if pixels:
                mean, share = self.probability[chosen].sum() / pixels, self.tumour[chosen].sum() / pixels
                bins.append(Bin(pixels, float(mean), float(share)))
        return bins

    def error(self, minimum: float = 0.0) -> float | None:
        """Return the expected calibration error (Naeini et al. 2015) of pixels with a probability from `minimum`.

        It is the mean over pixels of |mean probability - share of tumour| of their bin; None without pixels.
        """
        bins = self.curve(minimum)
        pixels = sum(b.pixels for b in bins)
        return sum(b.pixels * abs(b.probability - b.tumour) for b in bins) / pixels if pixels else None

    @property
    def unsuspected(self) -> float | None:
        """Share of the tumour's pixels with a probability below 0.01; None without tumour."""
        total = int(self.tumour.sum())
        return float(self.tumour[: round(NEAR * FINE)].sum() / total) if total else None
