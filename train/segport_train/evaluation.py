"""What a network does on a part of the data, at the slices' own size, through the runtime's pixel maths."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from segport.errors import SegportError
from segport.preprocess import restore, to_mask
from segport.scoring import Agreement, Counts, Scores, compare_masks, count_pixels, score_patients
from segport_train.calibration import Calibration
from segport_train.dataset import SliceDataset
from segport_train.hardware import Hardware
from segport_train.losses import segmentation_loss
from segport_train.model import SegmentationNetwork
from segport_train.settings import Loss

PROBABILITY = 0.5  # accuracy and Dice are reported at this probability, the published method's own


@dataclass(frozen=True, slots=True)
class SliceScore:
    """How the mask of a slice agrees with its truth. `row`: of the part's table; `site`: "" where none is known."""

    row: int
    relative: str
    patient: str
    site: str
    agreement: Agreement

    @property
    def counts(self) -> Counts:
        """The slice's pixels."""
        return self.agreement.counts


@dataclass(frozen=True)
class Evaluation:
    """What a network, or a baseline, does on slices; evaluations of different slices of a part add up to the whole's.

    Loss is a mean per slice at the network's size, from the mean of each batch: processes that share a part's batches
    (`evaluate`'s `share`) add up to what one alone measures. All else is at native size. Distances and calibration
    are there where they were asked for.
    """

    slices: tuple[SliceScore, ...]
    loss_sum: float = 0.0
    calibration: Calibration | None = None

    def __add__(self, other: "Evaluation") -> "Evaluation":
        both = (self.calibration, other.calibration)
        calibrations = [c for c in both if c is not None]
        return Evaluation(
            tuple(sorted(self.slices + other.slices, key=lambda s: s.row)),
            self.loss_sum + other.loss_sum,
            sum(calibrations, Calibration.empty()) if calibrations else None,
        )

    @property
    def loss(self) -> float:
        """Mean loss per slice."""
        return self.loss_sum / len(self.slices)

    @cached_property
    def agreements(self) -> dict[str, Agreement]:
        """Each patient's slices added up, in order of the patients' names."""
        patients: dict[str, Agreement] = defaultdict(Agreement)
        for one in sorted(self.slices, key=lambda s: s.patient):
            patients[one.patient] += one.agreement
        return dict(patients)

    @property
    def patients(self) -> dict[str, Counts]:
        """Each patient's pixels."""
        return {patient: one.counts for patient, one in self.agreements.items()}

    @cached_property
    def scores(self) -> Scores:
        """The part's scores."""
        hd95 = [one.hd95 for one in self.agreements.values()]
        return score_patients(self.patients, len(self.slices), hd95)

    @property
    def tumour_slices(self) -> list[SliceScore]:
        """Slices that have tumour in the truth."""
        return [s for s in self.slices if s.counts.tumour_pixels]

    @property
    def sites(self) -> list[str]:
        """Names of the sites, sorted; slices of which no site is known are of none."""
        return sorted({s.site for s in self.slices} - {""})


def evaluate(
    network: SegmentationNetwork,
    data: SliceDataset,
    hardware: Hardware,
    loss: Loss,
    batch_size: int,
    *,
    detailed: bool = False,
    share: slice = slice(None),
) -> Evaluation:
    """Run the network in evaluation mode over every slice of `data`, unaugmented; leaves it in evaluation mode.

    `detailed`: measure distances and calibration too, for the report. `share`: which of the batches, as
    slice(rank, None, processes) of one process among several.
    """
    slices, total = [], 0.0
    calibration = Calibration.empty() if detailed else None
    for start in range(0, len(data), batch_size)[share]:
        rows = range(start, min(start + batch_size, len(data)))
        logits = infer(network, data, rows, hardware)
        masks = torch.from_numpy(data.masks[rows]).to(hardware.device)
        total += float(segmentation_loss(logits, masks, loss)) * len(rows)
        for row, one in zip(rows, logits[:, 0].cpu().numpy(), strict=True):
            truth = data.truth(row)
            native = restore(one, (truth.shape[0], truth.shape[1]))
            mask = to_mask(native, PROBABILITY)
            if calibration is not None:
                calibration += Calibration.of_slice(native, truth)
            agreement = compare_masks(mask, truth) if detailed else Agreement(count_pixels(mask, truth))
            relative, patient, site = (str(data.table[name][row]) for name in ("relative", "patient", "site"))
            slices.append(SliceScore(row, relative, patient, site, agreement))
    return Evaluation(tuple(slices), total, calibration)


def infer(network: SegmentationNetwork, data: SliceDataset, rows: Sequence[int], hardware: Hardware) -> torch.Tensor:
    """Return the logits of slices as one batch, float32 [N, 1, size, size], from the network in evaluation mode.

    Raises `SegportError` where a logit is not a finite number: such a mask would be empty, and look like an answer.
    """
    network.eval()
    pixels = torch.from_numpy(data.pixels[rows]).to(hardware.device)
    with torch.inference_mode(), hardware.autocast():
        logits = cast(torch.Tensor, network(pixels)).float()
    if not torch.isfinite(logits).all():
        raise SegportError(
            f"{data.table.relative[rows[0]]}: the network's logits are not finite numbers, or those of a slice beside"
            " it; remedy: another --out with a smaller --lr or --precision fp32"
        )
    return logits


def predict(
    network: SegmentationNetwork, data: SliceDataset, rows: Sequence[int], hardware: Hardware
) -> list[NDArray[np.uint8]]:
    """Return the masks of slices at their own sizes, uint8 [H, W] of 0 and 255; they pass the network as one batch."""
    logits = infer(network, data, rows, hardware)[:, 0].cpu().numpy()
    shapes = [data.truth(row).shape for row in rows]
    natives = (restore(one, (shape[0], shape[1])) for one, shape in zip(logits, shapes, strict=True))
    return [to_mask(native, PROBABILITY) for native in natives]
