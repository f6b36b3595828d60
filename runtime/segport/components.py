"""Connected components of a stack of masks in three dimensions, found slice by slice."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Components:
    """The components of a stack; they touch at a face, an edge or a corner (26-connected).

    `pixels`: of each component, int64. `regions`: for each slice the component of each region of its mask, int64, in
    the order in which OpenCV numbers 8-connected regions (the first region is its 1).
    """

    pixels: NDArray[np.int64]
    regions: tuple[NDArray[np.int64], ...]

    def are_large(self, share: float) -> NDArray[np.bool_]:
        """Return for each component whether it has at least this `share` of the largest one's pixels."""
        return np.asarray(self.pixels >= share * self.pixels.max(initial=0), np.bool_)


def connect(masks: Iterable[Mask]) -> Components:
    """Return the components of masks of one shape, uint8 [H, W] of 0 and 255, each beside the next."""
    areas: list[int] = []
    firsts: list[int] = []
    links: list[tuple[int, int]] = []
    before, regions_before = np.empty(0, np.uint8), dict[int, int]()  # of the slice before
    for mask in masks:
        firsts.append(len(areas))
        regions = {}
        if mask.any():  # most slices have no tumour
            _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
            regions = dict(enumerate(_pixel_of_each(np.asarray(labels), len(stats)).tolist(), len(areas)))
            areas += stats[1:, cv2.CC_STAT_AREA].tolist()  # the first entry is the background
        if regions_before and regions:
            links += _links(before | mask, regions_before | regions)
        before, regions_before = mask, regions
    _, component = np.unique(_roots(len(areas), links), return_inverse=True)
    pixels = np.bincount(component, areas).astype(np.int64)
    return Components(pixels, tuple(np.split(component.astype(np.int64), firsts[1:])) if firsts else ())


def keep_regions(mask: Mask, kept: NDArray[np.bool_]) -> Mask:
    """Return a mask, uint8 [H, W], without the regions that are not `kept` (an entry each, in their order).

    Where all are kept it is the mask itself.
    """
    if kept.all():
        return mask
    _, labels = cv2.connectedComponents(mask, connectivity=8)
    return np.where(np.concatenate([[False], kept])[labels], mask, 0).astype(np.uint8)


def _pixel_of_each(labels: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Return the place of one pixel of each region, counted row by row; `count` has the background in it."""
    places = np.flatnonzero(labels)
    chosen = np.zeros(count, np.int64)
    chosen[labels.ravel()[places]] = places
    return chosen[1:]


def _links(both: Mask, regions: dict[int, int]) -> list[tuple[int, int]]:
    """Link the regions of two neighbours, one pixel of each, that are one region of `both` masks over each other.

    They are one exactly where they touch: from pixel to pixel of such a region one stays in a slice or changes it.
    """
    _, labels = cv2.connectedComponents(both, connectivity=8)
    label_at, standing = labels.ravel(), dict[int, int]()
    return [(region, standing.setdefault(int(label_at[place]), region)) for region, place in regions.items()]


def _roots(count: int, links: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """Return for each of `count` regions one region that stands for all it is linked with (union-find)."""
    parents = list(range(count))

    def root(region: int) -> int:
        while parents[region] != region:
            parents[region] = parents[parents[region]]
            region = parents[region]
        return region

    for one, other in links:
        parents[root(one)] = root(other)
    return np.array([root(region) for region in range(count)], np.int64)
