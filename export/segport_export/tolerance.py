"""What each precision may change: the constants that the gate holds measurements against, in one place.

They were fixed before the models quoted beside them were measured, and are not moved to let a model pass.
"""

from dataclasses import dataclass

BATCH_SIZES = (1, 2, 5, 11)  # 11: a prime above the default batch of 8
THREADS = (1, 2)
CALL_DIFFERENCE = 1e-3  # of a logit, with batch size or threads: other kernels may be chosen, the slice is the same
FOREGROUND = (0.005, 0.5)  # reference masks outside hold nothing that could differ


@dataclass(frozen=True)
class Tolerance:
    """Limits of one precision.

    `logit`: a pixel may flip only where the reference logit is at most this far from the threshold's logit.
    `difference`: largest difference of any logit; `mean`: of their mean (probabilities must stay, too). `flips`: share
    of pixels that may flip. `dice`: least Dice between the two sets of masks, pooled. `loss`: the Dice budget, the
    largest loss of Dice against the truth where masks are there (pooled, and mean per patient), unless --dice-budget
    says otherwise. `hostile`: whether constant, saturated and noise slices are held to the limits, or only reported.
    """

    logit: float
    difference: float
    mean: float
    flips: float
    dice: float
    loss: float
    hostile: bool = True


# fp32: the same arithmetic in another order; the first embedded model's float twin measured 2.5e-5 on 359 slices.
# fp16: 11 significant bits: a logit of 16 has steps of 1/64, and a few of them add up through 60 layers. The first
# embedded model's fp16 twin, on the CPU, measured 0.013 at most, and 22 flips, the farthest 0.007, on 364 slices.
# int8: 8-bit steps through 60 layers; a logit of 2 is probability 0.88, so farther flips are no rounding any more. The
# first model measured a farthest flip of 0.61, 0.007 % of the pixels, Dice 0.997 between the masks. Ranges are read
# from real slices, so activations of a white picture clip by construction (logits of the test suite's model moved by 15
# there; that model's farthest flip was 0.72): what is no slice is reported, not judged.
TOLERANCES = {
    "fp32": Tolerance(logit=1e-3, difference=1e-3, mean=1e-4, flips=1e-5, dice=0.9999, loss=1e-4),
    "fp16": Tolerance(logit=0.05, difference=0.2, mean=0.02, flips=2e-4, dice=0.999, loss=1e-3),
    "int8": Tolerance(logit=2.0, difference=float("inf"), mean=0.5, flips=2e-3, dice=0.97, loss=0.01, hostile=False),
}
