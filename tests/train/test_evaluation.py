"""Evaluations: shares of processes add up to the whole; distances and calibration where they were asked for."""

import numpy as np
import pytest
import torch

from helpers import square, write
from scored import CPU, FLAIR
from segport.contract import Input, ModelContract
from segport.errors import SegportError
from segport_train.dataset import SliceDataset
from segport_train.evaluation import Evaluation, evaluate, predict
from segport_train.settings import TrainSettings
from segport_train.table import build_table


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SliceDataset:
    root = tmp_path_factory.mktemp("data")
    for n in range(1, 8):
        write(root / f"p{n % 3}/p{n % 3}_{n}.png", square(40, low=6, high=20 + n, value=200 if n > 2 else 0))
        write(root / f"p{n % 3}/p{n % 3}_{n}_mask.png", square(40, low=8, high=22 if n < 6 else 8)[..., 1])
    table, _ = build_table(TrainSettings(root, root / "run"))
    table["site"] = table.patient.map({"p0": "north", "p1": "south", "p2": ""})
    return SliceDataset(table, ModelContract(Input(32)), seed=0, augmented=False)


def test_the_shares_of_processes_add_up_to_the_whole(data: SliceDataset) -> None:
    whole = evaluate(FLAIR, data, CPU, "bce-dice", 2, detailed=True)
    shares = [evaluate(FLAIR, data, CPU, "bce-dice", 2, detailed=True, share=slice(r, None, 3)) for r in range(3)]
    for merged in (shares[0] + shares[1] + shares[2], shares[2] + (shares[1] + shares[0])):
        assert merged.slices == whole.slices
        assert merged.loss == pytest.approx(whole.loss, rel=1e-12)
        assert merged.scores == whole.scores
        assert merged.calibration is not None
        assert whole.calibration is not None
        assert (merged.calibration.pixels == whole.calibration.pixels).all()
        assert (merged.calibration.tumour == whole.calibration.tumour).all()
        assert np.allclose(merged.calibration.probability, whole.calibration.probability, rtol=1e-12)
    assert (shares[0] + shares[1]).scores != whole.scores
    assert evaluate(FLAIR, data, CPU, "bce", 2, share=slice(9, None, 10)).slices == ()


def test_an_epochs_evaluation_measures_counts_alone(data: SliceDataset) -> None:
    quick, detailed = (evaluate(FLAIR, data, CPU, "bce", 2, detailed=d) for d in (False, True))
    assert quick.calibration is None
    assert quick.scores.hd95_mean_per_patient is None
    assert quick.patients == detailed.patients
    assert quick.loss == detailed.loss
    assert detailed.scores.hd95_mean_per_patient is not None
    assert detailed.calibration is not None
    assert detailed.calibration.pixels.sum() == 7 * 1600
    assert detailed.calibration.tumour.sum() == sum(c.tumour_pixels for c in detailed.patients.values())
    assert (quick + Evaluation(())).calibration is None


def test_slices_carry_name_patient_and_site(data: SliceDataset) -> None:
    whole = evaluate(FLAIR, data, CPU, "bce", 3)
    assert whole.sites == ["north", "south"]
    assert {s.patient for s in whole.slices if s.site == ""} == {"p2"}
    assert [s.relative for s in whole.slices] == list(data.table.relative)
    for row, mask in zip((6, 3), predict(FLAIR, data, (6, 3), CPU), strict=True):
        assert np.count_nonzero(mask) == whole.slices[row].counts.mask_pixels > 0


class Broken(torch.nn.Module):
    """A network that has lost its numbers."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.full((len(pixels), 1, 32, 32), float("nan"))


def test_logits_that_are_no_numbers_are_refused_not_taken_for_empty_masks(data: SliceDataset) -> None:
    with pytest.raises(SegportError, match="not finite numbers"):
        evaluate(Broken(), data, CPU, "bce", 2)
