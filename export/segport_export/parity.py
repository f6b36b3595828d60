"""The gate: prove that the file on disk gives the same masks as the eager PyTorch module.

Reference: the eager module, float32, evaluation mode. Candidate: the file, loaded by the runtime's own `Segmenter`.
Both get the same prepared slices; masks are compared at the slices' own size.
"""

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from segport.contract import ModelContract
from segport.errors import GateError, ModelError
from segport.golden import self_test
from segport.preprocess import prepare, stack
from segport.segmenter import Segmenter
from segport_export.comparison import Comparison
from segport_export.report import Check, ParityReport
from segport_export.subjects import ParitySlice
from segport_export.tolerance import BATCH_SIZES, THREADS, TOLERANCES
from segport_train.model import SegmentationNetwork

CHUNK = 8


class Reference:
    """What the eager network says about slices, computed once, however many candidates are held against it."""

    def __init__(self, network: SegmentationNetwork, contract: ModelContract, slices: Sequence[ParitySlice]) -> None:
        self.network, self.contract, self.slices = network, contract, slices
        self.prepared = [prepare(s.display, contract) for s in slices]

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """Logits of the eager module, float32 [slices, size, size]."""
        parts = []
        with torch.inference_mode():
            for start in range(0, len(self.prepared), CHUNK):
                batch = torch.from_numpy(stack(self.prepared[start : start + CHUNK]))
                parts.append(cast(torch.Tensor, self.network(batch))[:, 0].numpy())
        return np.concatenate(parts)


def check_parity(reference: Reference, model: Path, precision: str, *, budget: float | None = None) -> ParityReport:
    """Compare the file `model` with the eager network's logits and masks.

    `budget`: Dice that may be lost against the truth (default: the precision's). Returns a report whose `failures` say
    what is out of tolerance; reference masks with less than 0.5 % or more than 50 % foreground are such a failure
    (nothing to prove). Raises `ModelError` when the file is refused, `GateError` when it gives no finite logits.
    """
    segmenter = Segmenter(model, device="cpu")
    prepared = reference.prepared
    try:
        parts = [segmenter.logits(stack(prepared[i : i + CHUNK])) for i in range(0, len(prepared), CHUNK)]
    except ModelError as error:
        raise GateError(f"the {precision} model fails on slices of the gate: {error}") from error
    found = np.concatenate(parts)
    masks = Comparison(reference.contract.output.threshold, TOLERANCES[precision])
    for one, a, b in zip(reference.slices, reference.logits, found, strict=True):
        masks.add(one, a, b)
    worst = max(call_difference(Segmenter(model, device="cpu", threads=n), prepared, found) for n in THREADS)
    return masks.report(precision, worst, budget, promises(reference.contract, segmenter))


def promises(contract: ModelContract, segmenter: Segmenter) -> list[Check]:
    """Return checks of what the file's own contract says against the checkpoint's, and of its golden logits."""
    found, wrong = segmenter.contract, list[str]()
    for part in ("input", "output"):
        pairs = zip(asdict(getattr(found, part)).items(), asdict(getattr(contract, part)).values(), strict=True)
        wrong += [f"{part}.{name} is {a}, the checkpoint's is {b}" for (name, a), b in pairs if a != b]
    if found.origin.weights_sha256 != contract.origin.weights_sha256:
        wrong.append("it was exported from other weights")
    checks = []
    if found.golden is not None:
        limits = TOLERANCES[found.export.precision if found.export else "fp32"]
        if found.golden.tolerance > limits.logit or found.golden.flip_share > limits.flips:
            wrong.append("its golden logits may differ by more than its precision allows")
        test = self_test(segmenter)
        text = (
            f"{test.flips} mask pixels flip against the golden logits in the file, the farthest {test.worst_flip:.4g}"
        )
        checks.append(Check("golden logits", test.passed, text))
    text = f"the file's contract differs: {'; '.join(wrong) or 'in nothing'}"
    return [Check("contract", not wrong, text), *checks]


def call_difference(segmenter: Segmenter, prepared: Sequence[NDArray[np.uint8]], found: NDArray[np.float32]) -> float:
    """Return how far logits move when slices go in at other batch sizes; infinite if one is NaN."""
    worst = 0.0
    for size in BATCH_SIZES:
        rows = [i % len(prepared) for i in range(size)]
        difference = np.abs(segmenter.logits(stack([prepared[i] for i in rows])) - found[rows])
        worst = max(worst, float(np.nan_to_num(difference, nan=np.inf).max()))
    return worst
