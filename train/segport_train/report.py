"""The report at the end of a training: scores of the best checkpoint on every part, baselines beside them."""

from pathlib import Path

from segport.contract import ModelContract
from segport.outputs import write_bytes, write_csv
from segport_train.metrics import Evaluation
from segport_train.settings import TrainSettings
from segport_train.table import Problem

HEADER = (
    "| part | patients | slices | Dice pooled | Dice mean per patient | Dice median per patient | IoU pooled "
    "| accuracy | accuracy of predicting nothing |\n|---|---|---|---|---|---|---|---|---|\n"
)


def write_report(
    out: Path, parts: dict[str, Evaluation], contract: ModelContract, problems: list[Problem], settings: TrainSettings
) -> None:
    """Write report.md and patients.csv (part, patient, Dice, IoU, pixels) into the run folder."""
    lines = [
        f"# {contract.origin.architecture}, output stride {contract.origin.output_stride}, {settings.size} pixels\n\n",
        "Scores of best.safetensors at the slices' own size, probability 0.5, on all slices of a part.\n",
        f"Split by {'file' if settings.split_file else settings.split}.",
        " Neighbouring slices leak between parts: read the scores as optimistic.\n"
        if settings.split == "slice" and not settings.split_file
        else "\n",
        "" if "test" in parts else "There is no test part: no figure below comes from unseen, unselected patients.\n",
        f"Left out: {len(problems)} files.\n\n" if problems else "\n",
        HEADER,
    ]
    for part, one in parts.items():
        s = one.scores
        lines.append(
            f"| {part} | {s.patients} | {s.slices} | {s.dice_pooled:.4f} | {s.dice_mean_per_patient:.4f} "
            f"| {s.dice_median_per_patient:.4f} | {s.iou_pooled:.4f} | {s.accuracy:.4f} | {s.nothing_accuracy:.4f} |\n"
        )
    write_bytes(out / "report.md", "".join(lines).encode())
    rows = [
        (part, patient, f"{c.dice:.4f}", f"{c.iou:.4f}", c.tp + c.fn, c.tp + c.fp)
        for part, one in parts.items()
        for patient, c in sorted(one.patients.items())
    ]
    write_csv(out / "patients.csv", ["part", "patient", "dice", "iou", "tumour_pixels", "mask_pixels"], rows)
