"""Does a slice look like those the model was trained on? Short fixed reasons that a run can count.

Every number was chosen on the 3,179 slices of 88 patients of the LGG data set, with the first embedded model's
contract (128 pixels).
22 of them (0.7 %) get a reason, none of them with tumour: 6 as nearly constant and 16 as much darker, 3 of which hold
the pre-contrast channel alone and the others little more than noise, near the end of a volume. Of every fourth slice
divided by 8, 93 % get one; times 3, 85 %; inverted, all. What grey levels cannot tell apart from honest slices gets
none: noise as dark as tissue, swapped channels, other anatomy, intensities off by less than about a factor of 2, one
channel saved as three (300 of the LGG slices are), empty slices in a wrong scale.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from segport.contract import ModelContract
from segport.preprocess import SQUARE, Pixels, Spacing, square_shape

CONSTANT = "nearly constant"
TWO_LEVELS = "only two grey levels, like a mask"
INVERTED = "bright background, as if inverted"
BRIGHTER = "much brighter than training slices"
DARKER = "much darker than training slices"
SMALLER = "much smaller than training slices"
LARGER = "much larger than training slices"

# Below half of the smallest training side, a slice holds less detail than the network was shown (LGG: 256 pixels,
# made 128); matrices of MRI scanners reach 1024 with interpolation, four times LGG's, and hardly more.
SMALLEST, LARGEST = 0.5, 4
# Grey levels as shares of the training slices' 99th percentile (LGG: 130):
VISIBLE = 0.015  # 2; 6 of the LGG slices have less between their percentiles 1 and 99
MEDIAN = 0.75  # 97; LGG slices reach 64, inverted ones start at 191
BRIGHT = 0.9  # share of training's maximum (242), so 218; LGG slices' 99th percentile reaches 209
DARK = 0.2  # 26; LGG slices have 116, and 14 when divided by 8. Empty slices of an honest volume are as dark: a
# slice counts as dark only where a head is, that is where its centre is visibly brighter than its frame


def unlike_training(
    pixels: Pixels, prepared: NDArray[np.uint8], contract: ModelContract, spacing: Spacing = SQUARE
) -> tuple[str, ...]:
    """Return why a slice leaves the contract's training range, as short fixed words; usually nothing.

    `pixels`: the slice as read, [H, W] or [H, W, C], any dtype. `prepared`: the same slice as `prepare` gives it,
    uint8 [size, size, 3], and `spacing` as it had it. At most one reason each for size, channels and grey levels; a
    contract that does not state a range gives none for it.
    """
    known, reasons = contract.training_range, list[str]()
    side = max(pixels.shape[:2])
    if known.sizes and side < SMALLEST * min(map(max, known.sizes)):
        reasons.append(SMALLER)
    elif known.sizes and side > LARGEST * max(map(max, known.sizes)):
        reasons.append(LARGER)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if known.channel_counts and channels not in known.channel_counts:
        expected = " or ".join(map(str, known.channel_counts))
        reasons.append(f"{channels} channel{'s' * (channels > 1)}, trained with {expected}")
    if known.intensity:
        _, _, high, brightest = (sum(levels) / len(levels) for levels in zip(*known.intensity, strict=True))
        look = (
            TWO_LEVELS
            if _has_two_levels(pixels)
            else _judge(_unpad(prepared, square_shape(pixels.shape, spacing)), high, brightest)
        )
        reasons += [look] if look else []
    return tuple(reasons)


def _judge(shown: NDArray[np.uint8], typical: float, brightest: float) -> str:
    """Return what is wrong with grey levels, or "". `typical`, `brightest`: training's 99th percentile and maximum.

    Channels are judged as one grey picture, so that one odd channel is no reason: LGG has patients with a missing
    sequence, one of them with a grey background of 103 in its place.
    """
    grey = cv2.cvtColor(shown, cv2.COLOR_RGB2GRAY)
    counts = cv2.calcHist([grey], [0], None, [256], [0, 256]).cumsum()
    low, median, high = np.searchsorted(counts, counts[-1] * np.array((0.01, 0.5, 0.99)))
    if high - low < VISIBLE * typical:
        return CONSTANT
    blocks = cv2.resize(grey, (8, 8), interpolation=cv2.INTER_AREA).astype(np.float64)
    centre, frame = blocks[2:6, 2:6].mean(), (blocks.sum() - blocks[1:7, 1:7].sum()) / 28
    if frame >= typical and frame > centre:  # LGG slices have a frame of 53 at most, inverted ones of 201 at least
        return INVERTED
    if median >= MEDIAN * typical or high >= BRIGHT * brightest:
        return BRIGHTER
    if high < DARK * typical and centre - frame >= VISIBLE * typical:
        return DARKER
    return ""


def _has_two_levels(pixels: Pixels) -> bool:
    low, high = pixels.min(), pixels.max()
    parts = (pixels[len(pixels) // 2], pixels)  # its middle row settles it for nearly every slice
    return bool(low != high) and not any(((low < part) & (part < high)).any() for part in parts)


def _unpad(prepared: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return what `prepare` made of a slice of this height and width, without the padding to a square."""
    size, (height, width) = len(prepared), shape
    rows, columns = (max(1, round(size * n / max(height, width))) for n in (height, width))
    top, left = (size - rows) // 2, (size - columns) // 2
    return prepared[top : top + rows, left : left + columns]
