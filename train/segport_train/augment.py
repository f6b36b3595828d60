"""Random changes of a slice and its mask for training: a pure function of the generator that is passed in."""

import cv2
import numpy as np
from numpy.typing import NDArray

ROTATION = 20.0  # degrees, either way
SCALE = (0.85, 1.2)
SHIFT = 0.06  # share of the side
ELASTIC_CHANCE, ELASTIC_CELLS, ELASTIC_SIZE = 0.5, 5, 0.018  # control points a side, displacement as share of the side
GAMMA = (0.75, 1.35)
BRIGHTNESS = (0.8, 1.2)
NOISE_CHANCE, NOISE = 0.3, 6.0  # grey levels, standard deviation at most
BLUR_CHANCE, BLUR = 0.2, 1.0  # pixels, sigma at most
SEQUENCE_CHANCE = 0.1  # each of: pre alone, post alone replaced by FLAIR, as where a sequence is missing in LGG

Bytes = NDArray[np.uint8]


def augment(pixels: Bytes, mask: Bytes, rng: np.random.Generator, flair_only: float) -> tuple[Bytes, Bytes]:
    """Return a changed copy of a prepared slice, uint8 RGB [S, S, 3], and its mask, uint8 0/1 [S, S].

    Geometry (one resampling): rotation, scale, shift, flip, elastic deformation, outside is 0.
    Intensity: gamma and brightness per channel, Gaussian noise, blur. Sequences: pre or post replaced by FLAIR,
    both with the chance `flair_only`, at most 0.8.
    """
    columns, rows = _sampling_grid(mask.shape[0], rng)
    moved = cv2.remap(pixels, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    moved_mask = cv2.remap(mask * np.uint8(255), columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return _change_intensity(_drop_sequences(np.asarray(moved, np.uint8), rng, flair_only), rng), np.asarray(
        moved_mask >= 128, np.uint8
    )


def _sampling_grid(side: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return where each output pixel is read from (columns, rows), in pixels."""
    angle = np.deg2rad(rng.uniform(-ROTATION, ROTATION))
    scale = rng.uniform(*SCALE)
    shift = rng.uniform(-SHIFT, SHIFT, 2) * side
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    centre = (side - 1) / 2
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) - np.float32(centre)
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    columns = (mirror * (cos * x + sin * y) + centre + shift[0]).astype(np.float32)
    rows = (-sin * x + cos * y + centre + shift[1]).astype(np.float32)
    if rng.random() < ELASTIC_CHANCE:
        cells = rng.normal(0, ELASTIC_SIZE * side, (2, ELASTIC_CELLS, ELASTIC_CELLS)).astype(np.float32)
        columns += cv2.resize(cells[0], (side, side), interpolation=cv2.INTER_CUBIC)
        rows += cv2.resize(cells[1], (side, side), interpolation=cv2.INTER_CUBIC)
    return columns, rows


def _drop_sequences(pixels: Bytes, rng: np.random.Generator, flair_only: float) -> Bytes:
    choice = rng.random()
    replaced = pixels.copy()
    if choice < SEQUENCE_CHANCE + flair_only:
        replaced[..., 0] = pixels[..., 1]
    if SEQUENCE_CHANCE <= choice < 2 * SEQUENCE_CHANCE + flair_only:
        replaced[..., 2] = pixels[..., 1]
    return replaced


def _change_intensity(pixels: Bytes, rng: np.random.Generator) -> Bytes:
    """Apply one look-up table a channel, then noise and blur; brightness and gamma are shared, with small own parts."""
    gamma = rng.uniform(*GAMMA) * rng.uniform(0.9, 1.1, 3)
    brightness = rng.uniform(*BRIGHTNESS) * rng.uniform(0.95, 1.05, 3)
    ramp = np.linspace(0, 1, 256)[:, np.newaxis]
    tables = np.clip(255 * brightness * ramp**gamma, 0, 255).round().astype(np.uint8)
    changed = np.asarray(cv2.LUT(pixels, tables[:, np.newaxis]), np.uint8)
    if rng.random() < BLUR_CHANCE:
        changed = np.asarray(cv2.GaussianBlur(changed, (0, 0), rng.uniform(0.3, BLUR)), np.uint8)
    if rng.random() < NOISE_CHANCE:
        noise = rng.normal(0, rng.uniform(1, NOISE), changed.shape)
        changed = np.clip(changed + noise, 0, 255).round().astype(np.uint8)
    return changed
