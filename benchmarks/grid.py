"""Ask how good a mask can be that is drawn from a coarse grid of logits: the best Dice of each grid on true masks.

    python benchmarks/grid.py DATA [--masks N]

For each true mask, logits on the grid are fitted to it by gradient descent through the network's own enlargement (to
128 pixels, then to the slice's size); what is left is, as far as descent finds
the best, what no training can reach at that output stride. A grid of 16 is
that of output stride 8, one of 32 that of the decoder. The masks must be of one size.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from segport.preprocess import binarise
from segport.reading import read_slice

SIZE, STEPS = 128, 150


def main() -> None:
    """Print a row for each grid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with *_mask.tif in folders of patients")
    parser.add_argument("--masks", type=int, default=200, help="how many masks with tumour")
    args = parser.parse_args()
    truth = _masks(args.data, args.masks)
    areas = truth.sum((1, 2, 3))
    edges = torch.quantile(areas, torch.linspace(0, 1, 5))
    print(f"{len(truth)} masks of {edges[0]:.0f} to {edges[4]:.0f} pixels\n")
    print("| grid | pooled | mean | smallest quarter | second | third | largest |\n|---|---|---|---|---|---|---|")
    for grid in (8, 16, 32, 64):
        mask = _fit(truth, grid)
        shared = (mask * truth).sum((1, 2, 3))
        dice = 2 * shared / (mask.sum((1, 2, 3)) + areas)
        quarters = [dice[(areas >= low) & (areas <= high)].mean() for low, high in pairwise(edges)]
        pooled = 2 * shared.sum() / (mask.sum() + areas.sum())
        print(f"| {grid} x {grid} | " + " | ".join(f"{x:.3f}" for x in (pooled, dice.mean(), *quarters)) + " |")


def _masks(data: Path, count: int) -> torch.Tensor:
    """Return true masks that hold tumour, drawn from all, float [N, 1, H, W]."""
    paths, found = sorted(data.rglob("*_mask.tif")), []
    for index in np.random.default_rng(0).permutation(len(paths)):
        mask = binarise(read_slice(paths[index]))
        if mask.any():
            found.append(mask)
        if len(found) == count:
            break
    return torch.from_numpy(np.stack(found)).float().unsqueeze(1)


def _fit(truth: torch.Tensor, grid: int) -> torch.Tensor:
    """Return the masks of logits [N, 1, grid, grid] that were fitted to the true ones, by soft Dice of each slice."""
    logits = torch.full((len(truth), 1, grid, grid), -1.0, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(STEPS):
        large = interpolate(interpolate(logits, size=SIZE, mode="bilinear"), size=truth.shape[2:], mode="bilinear")
        p = torch.sigmoid(large)
        dice = (2 * (p * truth).sum((1, 2, 3)) + 1) / (p.sum((1, 2, 3)) + truth.sum((1, 2, 3)) + 1)
        loss = (1 - dice).sum() + 0.2 * len(truth) * binary_cross_entropy_with_logits(large, truth)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        optimizer.step()
    return (large.detach() > 0).float()


if __name__ == "__main__":
    main()
