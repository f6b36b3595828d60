"""The report at the end of a training: what the best checkpoint scores on every part, with baselines and pictures."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from segport.contract import ModelContract
from segport.outputs import write_bytes
from segport.report.runfacts import find_licence
from segport.text import printable
from segport_train.baselines import copy_neighbours
from segport_train.dataset import SliceDataset
from segport_train.evaluation import Evaluation, SliceScore
from segport_train.model import SegmentationNetwork
from segport_train.notes import NOTES, RUN_NOTES
from segport_train.plots import draw_calibration, draw_worst
from segport_train.results import write_results
from segport_train.settings import TrainSettings
from segport_train.start import Prepared
from segport_train.tables import (
    calibration_table,
    cell,
    describe_part,
    score_table,
    site_table,
    size_table,
    table,
)
from segport_train.webpage import write_page
from segport_train.worst import OF_A_PATIENT, choose_worst, draw_slices


def write_report(
    settings: TrainSettings,
    contract: ModelContract,
    prepared: Prepared,
    network: SegmentationNetwork,
    data: Mapping[str, SliceDataset],
    parts: Mapping[str, Evaluation],
) -> None:
    """Write report.md, report.html, tables (slices, patients, calibration) and pictures into the run folder.

    `parts`: detailed evaluations of `network`, the best checkpoint, on `data`, by the part's name.
    """
    out = settings.out
    write_results(out, parts)
    draw_calibration(out / "calibration.png", {n: one.calibration for n, one in parts.items() if one.calibration})
    judged = next(part for part in ("test", "val", "train") if part in parts)
    worst = choose_worst(parts[judged])
    if worst:
        pictures = draw_slices(network, data[judged], contract, [s.row for s in worst], prepared.hardware)
        draw_worst(out / "worst.png", [_title(i, s) for i, s in enumerate(worst, 1)], pictures)
    lines = [
        f"# {contract.origin.architecture}, output stride {contract.origin.output_stride}, {settings.size} pixels\n\n",
        *_preface(settings, contract, prepared, parts),
        *_scores(data, parts),
        "## Calibration\n\n" + calibration_table(parts) + "![Reliability curves](calibration.png)\n\n",
        *(_worst(judged, worst) if worst else ()),
        "## Curves\n\n![Curves](curves.png)\n\n",
        NOTES + RUN_NOTES,
    ]
    text = "".join(lines)
    write_bytes(out / "report.md", text.encode())
    write_page(out / "report.html", text, find_licence(contract.origin.settings))


def _preface(
    settings: TrainSettings, contract: ModelContract, prepared: Prepared, parts: Mapping[str, Evaluation]
) -> Iterator[str]:
    yield f"Scores of best.safetensors on all slices of each part. Split by {_split(settings)}.\n"
    if contract.origin.settings.get("averaged"):
        yield "Its weights are the means of those that the run began with and those of the last epoch.\n"
    if settings.tumour_only:
        yield "Slices without tumour are left out (`--tumour-only`): what a mask on them would cost is not counted.\n"
    if "val" in parts:
        yield "The epoch was chosen by mean Dice over val's patients with tumour, so val's figures are too good.\n"
    if "test" not in parts:
        yield "There is no test part: no figure below comes from unseen, unselected patients.\n"
    if settings.init not in ("none", "imagenet"):
        source = "the embedded model" if settings.init == "default" else "weights of an earlier training"
        doubt = "if patients of val or test had a part in that, their figures are too good"
        yield f"Started from {source}: {'it was trained on no patient of val or test' if prepared.unseen else doubt}.\n"
    if prepared.problems:
        yield f"Left out: {len(prepared.problems)} files.\n"
    yield "\n"


def _scores(data: Mapping[str, SliceDataset], parts: Mapping[str, Evaluation]) -> Iterator[str]:
    for part, one in parts.items():
        copied = copy_neighbours(data[part], data["train"]) if part != "train" else None
        yield f"## {describe_part(part, one)}\n\n"
        if copied is not None:
            yield (
                "Patients of this part are in the training part as well: read the scores as optimistic, and against"
                " those of copying the nearest training slice.\n\n"
            )
        yield score_table(one, copied) + size_table(one, copied)
    if sites := site_table(parts):
        yield f"## Sites\n\n{sites}"


def _worst(judged: str, worst: list[SliceScore]) -> Iterator[str]:
    yield f"## Worst slices of {judged}\n\n"
    few = f"at most {OF_A_PATIENT} of a patient where there are others"
    yield f"The lowest Dice among slices with tumour in truth or mask, {few}.\n\n"
    yield "![Worst slices](worst.png)\n\n"
    counts = [s.counts for s in worst]
    figures = [(f"{c.dice:.4f}", *map(str, (c.tumour_pixels, c.fn, c.fp))) for c in counts]
    names = [(str(i), cell(s.relative)) for i, s in enumerate(worst, 1)]
    header = ["", "slice", "Dice", "tumour pixels", "missed pixels", "wrong pixels"]
    yield table(header, [[*n, *f] for n, f in zip(names, figures, strict=True)])


def _split(settings: TrainSettings) -> str:
    if settings.split_file is not None:
        return "file"
    if settings.fold is not None:
        return f"{settings.split}, fold {settings.fold[0]} of {settings.fold[1]}"
    return settings.split + (f" ({', '.join(settings.holdout)} kept apart)" if settings.holdout else "")


def _title(number: int, s: SliceScore) -> str:
    name, c = printable(Path(s.relative).stem), s.counts
    shown = name if len(name) <= 36 else f"{name[:17]}...{name[-16:]}"
    return f"{number}. {shown}\nDice {c.dice:.2f} on {c.tumour_pixels} tumour pixels:\n{c.fn} missed, {c.fp} wrong"
