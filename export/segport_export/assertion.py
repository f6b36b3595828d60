"""The gate for other people's tests: one call that raises when a model no longer gives the same masks."""

from pathlib import Path

from segport.errors import GateError
from segport.modelfile import read_contract
from segport_export.parity import Reference, check_parity
from segport_export.report import ParityReport
from segport_export.rundata import RunData
from segport_export.subjects import parity_slices
from segport_train.checkpoint import load_network


def assert_parity(
    checkpoint: Path | str, model: Path | str, slices: Path | str | None = None, *, dice_budget: float | None = None
) -> ParityReport:
    """Hold a model file against the checkpoint it was exported from; return the figures.

    `slices`: a folder, as for `seg-infer`, with masks where there are some (None: what the checkpoint's run did not
    train on, where it is here); the shipped synthetic slices are always compared too. The limits are those of the
    precision that the model's contract names. Raises `GateError` with each figure that is out of tolerance and the
    worst slice, `UsageError` when `slices` holds none that was not trained on, `ModelError` or `SliceError` for files
    that cannot be used.
    """
    network, contract = load_network(Path(checkpoint))
    found = read_contract(Path(model))
    precision = found.export.precision if found.export else "fp32"
    run = RunData.beside(Path(checkpoint))
    subjects = parity_slices(run, None if slices is None else Path(slices), contract)
    report = check_parity(Reference(network, contract, subjects), Path(model), precision, budget=dice_budget)
    if report.failures:
        raise GateError(f"{model}: " + "; ".join(report.failures) + f"; worst slice: {report.worst_slice}")
    return report
