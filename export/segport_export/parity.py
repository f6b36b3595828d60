"""The gate: prove that the file on disk gives the same masks as the eager PyTorch module.

Reference: the eager module, float32, evaluation mode. Candidate: the file, loaded by the runtime's own `Segmenter`.
Both get the same prepared slices; masks are compared at the slices' own size.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from segport.golden import compare_logits
from segport.preprocess import prepare, restore, stack, to_mask
from segport.scoring import Counts, count_pixels
from segport.segmenter import Segmenter
from segport_train.model import SegmentationNetwork

BATCH_SIZES = (1, 2, 5, 11)  # 11: a prime above the default batch of 8
BATCH_DIFFERENCE = 1e-3  # of a logit, with the batch size: other kernels may be chosen, the slice is the same
FOREGROUND = (0.005, 0.5)  # reference masks outside hold nothing that could differ


@dataclass(frozen=True)
class Tolerance:
    """What a precision may change; fixed before anything was measured with it.

    `logit`: a pixel may flip only where the reference logit is at most this far from the threshold's logit.
    `difference`: largest difference of any logit. `flips`: share of pixels that may flip. `dice`: least Dice
    between the two sets of masks, pooled. `loss`: largest loss of Dice against the truth, where masks are there.
    """

    logit: float
    difference: float
    flips: float
    dice: float
    loss: float


# fp32: the same arithmetic in another order; the embedded model's float twin measured 2.5e-5 on 359 slices.
# int8: 8-bit steps through 60 layers; a logit of 2 is probability 0.88, so farther flips are no rounding any more. The
# embedded model measured a farthest flip of 0.61, 0.009 % of the pixels and Dice 0.996 between the masks.
TOLERANCES = {
    "fp32": Tolerance(logit=1e-3, difference=1e-3, flips=1e-5, dice=0.9999, loss=1e-4),
    "int8": Tolerance(logit=2.0, difference=float("inf"), flips=2e-3, dice=0.97, loss=0.01),
}


@dataclass(frozen=True)
class ParitySlice:
    """A slice to compare on: uint8 RGB [H, W, 3] at its own size, and its true mask (0/1 [H, W]) if there is one."""

    name: str
    display: NDArray[np.uint8]
    truth: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class ParityReport:
    """The measured figures, the tolerance they were held against, and in words what failed (empty: passed)."""

    precision: str
    slices: int
    pixels: int
    foreground: float
    max_difference: float
    mean_difference: float
    flips: int
    flip_share: float
    worst_flip: float
    dice_pooled: float
    worst_slice: str
    worst_slice_dice: float
    truth_dice_reference: float | None
    truth_dice_candidate: float | None
    batch_sizes: tuple[int, ...]
    tolerance: Tolerance
    failures: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the report with infinite values as null, ready for JSON; it names a slice."""
        document = asdict(self)
        document["tolerance"] = {k: v if np.isfinite(v) else None for k, v in document["tolerance"].items()}
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in document.items()}

    def for_contract(self) -> dict[str, Any]:
        """Return what may travel inside the model: all but the slice's name, which may name a patient."""
        return {k: v for k, v in self.as_json().items() if k != "worst_slice"}


def check_parity(
    network: SegmentationNetwork, model: Path, slices: Sequence[ParitySlice], precision: str
) -> ParityReport:
    """Compare the file `model` with the eager `network` on `slices`.

    Returns a report whose `failures` say what is out of tolerance; reference masks with less than 0.5 % or more
    than 50 % foreground are such a failure (nothing to prove). Raises `ModelError` when the file is refused.
    """
    segmenter = Segmenter(model, device="cpu")
    tolerance = TOLERANCES[precision]
    prepared = [prepare(s.display, segmenter.contract) for s in slices]
    expected = _eager_logits(network, prepared)
    found = np.concatenate([segmenter.logits(stack(prepared[i : i + 8])) for i in range(0, len(prepared), 8)])
    masks = _Masks(segmenter.contract.output.threshold, tolerance)
    for one, a, b in zip(slices, expected, found, strict=True):
        masks.add(one, a, b)
    agreement = _batch_difference(segmenter, prepared, found)
    return masks.report(precision, expected, found, agreement)


class _Masks:
    """Adds up what differs between two sets of masks at native size."""

    def __init__(self, threshold: float, tolerance: Tolerance) -> None:
        self.threshold, self.tolerance = threshold, tolerance
        self.pixels = self.foreground = self.flips = 0
        self.worst_flip = 0.0
        self.dice: dict[str, float] = {}
        self.counts: dict[str, Counts] = defaultdict(Counts)

    def add(self, one: ParitySlice, expected: NDArray[np.float32], found: NDArray[np.float32]) -> None:
        shape = (one.display.shape[0], one.display.shape[1])
        a, b = restore(expected, shape), restore(found, shape)
        flips = compare_logits(a, b, self.threshold, self.tolerance.logit, self.tolerance.flips)
        reference, candidate = to_mask(a, self.threshold), to_mask(b, self.threshold)
        between = count_pixels(candidate, reference)
        self.pixels += a.size
        self.foreground += between.tp + between.fn
        self.flips += flips.flips
        self.worst_flip = max(self.worst_flip, flips.worst_flip)
        self.dice[one.name] = between.dice
        self.counts["between"] += between
        if one.truth is not None:
            self.counts["reference"] += count_pixels(reference, one.truth)
            self.counts["candidate"] += count_pixels(candidate, one.truth)

    def report(
        self, precision: str, expected: NDArray[np.float32], found: NDArray[np.float32], batch_difference: float
    ) -> ParityReport:
        t = self.tolerance
        difference = np.abs(expected - found)
        largest = float(np.nan_to_num(difference, nan=np.inf).max())
        share, dice = self.flips / self.pixels, self.counts["between"].dice
        truth = {k: self.counts[k].dice for k in ("reference", "candidate") if k in self.counts}
        loss = truth["reference"] - truth["candidate"] if truth else 0.0
        foreground = self.foreground / self.pixels
        checks = [
            (
                FOREGROUND[0] <= foreground <= FOREGROUND[1],
                f"nothing to prove: the reference masks hold {foreground:.2%} foreground, expected {FOREGROUND[0]:.1%}"
                f" to {FOREGROUND[1]:.0%}; remedy: train longer, or --parity DATA with tumour slices",
            ),
            (largest <= t.difference, f"a logit differs by {largest:.4g}, at most {t.difference:g} is allowed"),
            (
                self.worst_flip <= t.logit,
                f"a mask pixel flips {self.worst_flip:.4g} from the threshold, at most {t.logit:g} is allowed",
            ),
            (share <= t.flips, f"{share:.3%} of the mask pixels flip, at most {t.flips:.3%} may"),
            (dice >= t.dice, f"Dice between the masks is {dice:.4f}, at least {t.dice} is needed"),
            (loss <= t.loss, f"Dice against the truth falls by {loss:.4f}, at most {t.loss} is allowed"),
            (
                batch_difference <= BATCH_DIFFERENCE,
                f"logits change by {batch_difference:.4g} with the batch size",
            ),
        ]
        worst = min(self.dice, key=self.dice.__getitem__)
        return ParityReport(
            precision=precision,
            slices=len(self.dice),
            pixels=self.pixels,
            foreground=foreground,
            max_difference=largest,
            mean_difference=float(difference.mean()),
            flips=self.flips,
            flip_share=share,
            worst_flip=self.worst_flip,
            dice_pooled=dice,
            worst_slice=worst,
            worst_slice_dice=self.dice[worst],
            truth_dice_reference=truth.get("reference"),
            truth_dice_candidate=truth.get("candidate"),
            batch_sizes=BATCH_SIZES,
            tolerance=t,
            failures=tuple(text for fine, text in checks if not fine),
        )


def _eager_logits(network: SegmentationNetwork, prepared: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Return float32 logits [N, size, size] of the eager module."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(prepared), 8):
            logits = cast(torch.Tensor, network(torch.from_numpy(stack(prepared[start : start + 8]))))
            parts.append(logits[:, 0].numpy())
    return np.concatenate(parts)


def _batch_difference(segmenter: Segmenter, prepared: Sequence[NDArray[np.uint8]], found: NDArray[np.float32]) -> float:
    """Return how far logits move when the same slices go in at other batch sizes; infinite if one is NaN."""
    worst = 0.0
    for size in BATCH_SIZES:
        rows = [i % len(prepared) for i in range(size)]
        difference = np.abs(segmenter.logits(stack([prepared[i] for i in rows])) - found[rows])
        worst = max(worst, float(np.nan_to_num(difference, nan=np.inf).max()))
    return worst
