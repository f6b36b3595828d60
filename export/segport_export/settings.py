"""What a user chooses for one export; defaults stand here and the command reads them. Light to import."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from segport.errors import UsageError

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
OLDEST_OPSET, NEWEST_OPSET = 11, 25
# The rule: the newest opset that every ONNX Runtime of the last four years reads (17: 1.12, July 2022), so that a model
# runs where it is taken to; newer ones add nothing that this network uses.
DEFAULT_OPSET = 17
INT8_OPSET = 13  # the first with per-channel QuantizeLinear


@dataclass(frozen=True)
class ExportSettings:
    """Settings of one export. `calibration`, `parity`: folders of slices, None for what the checkpoint's run used.

    `calibration_slices`: how many training slices the int8 ranges are read from. `reduce_range`: int8 weights of 7
    bits, for CPUs without VNNI. `batch`: slices a call, None for any. `rewrite`: make the graph faster, exactly.
    `smallest_component`: of the contract's output, None for the checkpoint's. `dice_budget`: Dice against the truth
    that may be lost, None for the precision's own limit. `junit`: where to write the checks as JUnit XML. Raises
    `UsageError`.
    """

    checkpoint: Path
    out: Path
    opset: int = DEFAULT_OPSET
    precision: Precision = "fp32"
    calibration: Path | None = None
    parity: Path | None = None
    calibration_slices: int = 128
    reduce_range: bool = False
    batch: int | None = None
    rewrite: bool = True
    smallest_component: float | None = None
    dice_budget: float | None = None
    junit: Path | None = None

    def __post_init__(self) -> None:
        self._check_opset()
        self._check_rest()

    def _check_opset(self) -> None:
        if self.opset < OLDEST_OPSET:
            raise UsageError(
                f"--opset {self.opset}: opsets below {OLDEST_OPSET} have no resize that matches PyTorch's"
                " (half-pixel centres), so the masks would differ; remedy: --opset 11 or newer"
            )
        if self.opset > NEWEST_OPSET:
            raise UsageError(f"--opset {self.opset}: the newest that is tested is {NEWEST_OPSET}")
        if self.precision == "int8" and self.opset < INT8_OPSET:
            raise UsageError(
                f"--precision int8 needs --opset {INT8_OPSET} or newer (scales per channel), not {self.opset}"
            )

    def _check_rest(self) -> None:
        if self.calibration_slices < 1:
            raise UsageError(f"--calibration-slices is {self.calibration_slices}, expected 1 or more")
        if self.reduce_range and self.precision != "int8":
            raise UsageError(f"--reduce-range is about int8 weights, not --precision {self.precision}")
        if self.batch is not None and self.batch < 1:
            raise UsageError(f"--batch is {self.batch}, expected dynamic, or 1 or more")
        if self.smallest_component is not None and not 0 <= self.smallest_component <= 1:
            raise UsageError(f"--smallest-component is {self.smallest_component:g}, expected a share between 0 and 1")
        if self.dice_budget is not None and not 0 <= self.dice_budget <= 1:
            raise UsageError(f"--dice-budget is {self.dice_budget:g}, expected a Dice between 0 and 1")
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision {self.precision}: expected one of {', '.join(PRECISIONS)}")
        if self.out.suffix != ".onnx" or self.out.is_dir():
            raise UsageError(f"--out {self.out}: expected a file whose name ends in .onnx")
