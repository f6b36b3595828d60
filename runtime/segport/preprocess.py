"""The only pixel maths in the project: slice to network input, logits back to slice, slice to display.

The training Dataset, the parity gate and the runtime all call these functions. None changes its argument.
"""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from segport.contract import ModelContract
from segport.errors import SliceError

Pixels = NDArray[np.generic]
Spacing = tuple[float, float]
"""Height and width of a pixel, in millimetres."""

SQUARE: Spacing = (1.0, 1.0)
Window = tuple[tuple[float, float], ...]
"""Per channel (or once for all channels) the intensities that become 0 and 255."""


def prepare(
    pixels: Pixels, contract: ModelContract, window: Window | None = None, spacing: Spacing = SQUARE
) -> NDArray[np.uint8]:
    """Return a slice as the network's input: uint8 [size, size, 3] in the contract's channel order (RGB).

    `pixels`: [H, W], [H, W, 1] or [H, W, 3], any real dtype; one channel stands for all three.
    uint8 is taken as stored; any other dtype needs `window`. A constant slice is ordinary input. Where pixels are not
    square by their `spacing`, the slice is enlarged until they are.
    Raises `SliceError` for other shapes, for values that are not finite, and for a missing window.
    """
    display = to_display(pixels, window)
    return _resize(_pad_to_square(_enlarge(display, spacing)), contract.input.size)


def prepare_mask(mask: Pixels, contract: ModelContract) -> NDArray[np.uint8]:
    """Return a mask (anything above 0 is tumour) as uint8 [size, size] of 0 and 1, fitted as `prepare` fits slices.

    A pixel of the small mask is tumour when at least half of the area it covers is.
    """
    square = _pad_to_square(binarise(mask) * np.uint8(255))
    return (_resize(square, contract.input.size) >= 128).astype(np.uint8)


def binarise(mask: Pixels) -> NDArray[np.uint8]:
    """Return a mask as uint8 [H, W] of 0 and 1; several equal channels count as one.

    Raises `SliceError` when its channels differ: then it is a picture, not a mask.
    """
    if mask.ndim == 3:
        if not (mask == mask[..., :1]).all():
            raise SliceError("the mask has channels that differ; expected one channel of 0 and 255")
        mask = mask[..., 0]
    return np.asarray(mask.astype(np.float64) > 0, np.uint8)


def restore(logits: NDArray[np.float32], shape: tuple[int, int], spacing: Spacing = SQUARE) -> NDArray[np.float32]:
    """Return float32 logits [size, size] at the slice's own `shape` (height, width), padding cut off.

    Logits are resized, not masks: thresholding after the resize keeps edges at subpixel accuracy. `spacing`: as
    `prepare` had it.
    """
    height, width = square_shape(shape, spacing)
    side = max(height, width)
    square = cv2.resize(logits, (side, side), interpolation=cv2.INTER_LINEAR)
    top, left = (side - height) // 2, (side - width) // 2
    cut = np.ascontiguousarray(square[top : top + height, left : left + width], np.float32)
    if cut.shape == shape:
        return cut
    return np.asarray(cv2.resize(cut, shape[::-1], interpolation=cv2.INTER_AREA), np.float32)


def to_mask(logits: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Return the mask, uint8 of 0 and 255: 255 where sigmoid(logit) >= `threshold` (0 < threshold < 1)."""
    return (logits >= logit(threshold)).view(np.uint8) * np.uint8(255)


def logit(probability: float) -> float:
    """Return log(p / (1 - p)), the inverse of the sigmoid."""
    return float(np.log(probability / (1 - probability)))


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities in 0..1, without overflow for large negative logits."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), np.float32)


def to_display(pixels: Pixels, window: Window | None = None) -> NDArray[np.uint8]:
    """Return a slice as uint8 [H, W, 3] at its own size; arguments and errors as for `prepare`."""
    channels = split_channels(pixels)
    shown = np.array(channels, np.uint8) if channels.dtype == np.uint8 else _apply_window(channels, window)
    return np.repeat(shown, 3, axis=2) if shown.shape[2] == 1 else shown


def percentile_window(slices: Iterable[Pixels], contract: ModelContract) -> Window:
    """Return the window of one patient by the contract's percentile rule, per channel.

    The rule (see `contract.Input`): percentiles (p_low, p_high) of the patient's pixels land on the training patients'
    grey levels (l_low, l_high). Every slice gives at most 65,536 evenly spaced pixels, in its own dtype: 0.4 MB of
    memory for RGB of 16 bits. A patient whose percentiles coincide (constant volume) gets a window one intensity wide.
    """
    samples: list[Pixels] = []
    for pixels in slices:
        flat = split_channels(pixels)
        flat = flat.reshape(-1, flat.shape[2])
        samples.append(flat[:: -(-len(flat) // 65_536)].copy())  # a view would keep the whole slice
    counts = {s.shape[1] for s in samples}  # at least one slice: the one that asks for the window
    if len(counts) != 1:
        raise SliceError(f"the patient's slices have {sorted(counts)} channels; expected the same number in each")
    columns = (np.concatenate([s[:, k] for s in samples]).astype(np.float64) for k in range(counts.pop()))
    low, high = np.transpose([np.percentile(column, contract.input.percentiles) for column in columns])
    level_low, level_high = contract.input.levels
    step = np.where(high > low, high - low, level_high - level_low) / (level_high - level_low)
    zero = low - level_low * step
    return tuple((float(z), float(z + 255 * s)) for z, s in zip(zero, step, strict=True))


def split_channels(pixels: Pixels) -> Pixels:
    """Return a slice as [H, W, 1] or [H, W, 3]; raises `SliceError` for what `prepare` refuses in any window."""
    shaped = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
    if shaped.ndim != 3 or 0 in shaped.shape:
        raise SliceError(f"the slice has shape {pixels.shape}; expected [height, width] or [height, width, channels]")
    if shaped.shape[2] not in (1, 3):
        raise SliceError(
            f"the slice has {shaped.shape[2]} channels; expected 1 (FLAIR) or 3 (pre-contrast, FLAIR, post-contrast);"
            " remedy: save it as grey or RGB without an alpha channel"
        )
    if shaped.dtype.kind not in "uif":
        raise SliceError(f"the slice has dtype {shaped.dtype}; expected integers or floats")
    if shaped.dtype.kind == "f" and not np.isfinite(shaped).all():
        raise SliceError("the slice holds NaN or infinity; expected finite intensities")
    return shaped


def _apply_window(channels: Pixels, window: Window | None) -> NDArray[np.uint8]:
    if window is None:
        raise SliceError(f"the slice is {channels.dtype}, not uint8: it needs a window (--window LO HI)")
    low, high = np.asarray(window, np.float64).T
    if len(window) not in (1, channels.shape[2]) or not (high > low).all() or not np.isfinite(window).all():
        raise SliceError(
            f"the window is {window}; expected finite LO < HI once, or for each of {channels.shape[2]} channels"
        )
    share = np.clip((channels.astype(np.float64) - low) / (high - low), 0, 1)
    return np.asarray(np.rint(share * 255), np.uint8)


def square_shape(shape: tuple[int, ...], spacing: Spacing) -> tuple[int, int]:
    """Return the height and width of a slice once its longer pixel sides are divided until pixels are square."""
    (height, width), (tall, wide) = shape[:2], spacing
    return round(height * max(1.0, tall / wide)), round(width * max(1.0, wide / tall))


def _enlarge(pixels: NDArray[np.uint8], spacing: Spacing) -> NDArray[np.uint8]:
    height, width = square_shape(pixels.shape, spacing)
    if (height, width) == pixels.shape[:2]:
        return pixels
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _pad_to_square(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    if height == width:
        return pixels
    side = max(height, width)
    square = np.zeros((side, side, *pixels.shape[2:]), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square


def _resize(square: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Average over areas when shrinking (no aliasing), interpolate linearly when enlarging."""
    how = cv2.INTER_AREA if square.shape[0] > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (size, size), interpolation=how), np.uint8)


def stack(prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return prepared slices as one batch, uint8 [N, size, size, 3], contiguous."""
    return np.ascontiguousarray(np.stack(prepared))
