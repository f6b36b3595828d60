"""The training loop, from the table of slices to the report, readable from top to bottom."""

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from segport.contract import ModelContract
from segport.errors import SegportError, UsageError
from segport.outputs import write_csv
from segport_train.adopt import load_start
from segport_train.batches import Batch, batches, divide, epoch_order
from segport_train.checkpoint import (
    load_checkpoint,
    load_network,
    load_weights,
    restore_optimizer,
    save_checkpoint,
)
from segport_train.dataset import SliceDataset
from segport_train.hardware import Hardware
from segport_train.losses import AUXILIARY_WEIGHT, segmentation_loss
from segport_train.metrics import Evaluation, evaluate
from segport_train.model import SegmentationNetwork, weights_sha256
from segport_train.optimizer import learning_rate, make_optimizer
from segport_train.plots import draw_curves
from segport_train.report import write_report
from segport_train.settings import TrainSettings
from segport_train.split import PARTS
from segport_train.start import Prepared

MEASURED = 8  # batches on which the normalisation of a model's convolutions is measured
GRADIENT_NORM = 5.0  # gradients are clipped above, against rare spikes of a from-scratch start


@dataclass(frozen=True)
class EpochReport:
    """One row of metrics.csv. Losses are means per slice in evaluation mode; scores at native size, probability 0.5.

    `step_loss`: mean over the augmented training batches. `*_nothing`: accuracy of predicting no tumour at all.
    Training figures are NaN in epochs that `evaluate_train_every` leaves out, validation ones without such a part.
    """

    epoch: int
    lr: float
    step_loss: float
    train_loss: float
    train_accuracy: float
    train_nothing: float
    train_dice_pooled: float
    train_dice_mean_per_patient: float
    val_loss: float
    val_accuracy: float
    val_nothing: float
    val_dice_pooled: float
    val_dice_mean_per_patient: float
    best: bool


def train(settings: TrainSettings, prepared: Prepared) -> Iterator[EpochReport]:
    """Train, yielding a report after each epoch; checkpoints, metrics.csv, curves.png and report.md are written.

    Weights, order and augmentation are functions of the seed: a run that was killed and resumed ends with the
    same weights as one that was not (same machine, thread count and versions, on the CPU).
    """
    out, hardware, contract = settings.out, prepared.hardware, prepared.contract
    data = {
        part: SliceDataset(rows, contract, seed=settings.seed, augmented=settings.augment and part == "train")
        for part, rows in prepared.table.groupby("part")
    }
    torch.manual_seed(settings.seed)
    torch.backends.cudnn.benchmark = True  # shapes never change
    network = SegmentationNetwork(contract, output_stride=settings.output_stride, auxiliary=True)
    if not settings.resume:
        first = divide(epoch_order(data["train"].table, settings.seed, 0), settings.batch_size)[:MEASURED]
        slices = (pixels for pixels, _ in batches(data["train"], 0, first, settings.workers))
        load_start(prepared.init, network).put_into(network, slices)
    network.to(hardware.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
    optimizer = make_optimizer(network, settings)
    scaler = torch.amp.GradScaler(hardware.device.type, enabled=hardware.scales_gradients)
    if len(epoch_order(data["train"].table, settings.seed, 1)) == 1:
        raise UsageError("one slice is too few to train on: batch normalisation needs two")
    done, best, rows = 0, -1.0, []
    if settings.resume:
        checkpoint = load_checkpoint(out / "last.safetensors")
        load_weights(network, checkpoint.weights, str(out / "last.safetensors"))
        restore_optimizer(optimizer, checkpoint.optimizer)
        done, best = checkpoint.progress["epoch"], checkpoint.progress["best"]
        scaler.load_state_dict(checkpoint.progress["scaler"])
        rows = _read_metrics(out / "metrics.csv", done)

    for epoch in range(done + 1, settings.epochs + 1):
        parts = divide(epoch_order(data["train"].table, settings.seed, epoch), settings.batch_size)
        loaded = batches(data["train"], epoch, parts, settings.workers)
        torch.manual_seed(settings.seed * 1_000_003 + epoch)  # dropout
        step_loss = _train_epoch(network, loaded, len(parts), optimizer, scaler, hardware, settings, epoch=epoch)
        last_epoch = epoch == settings.epochs
        measured = last_epoch or epoch % settings.evaluate_train_every == 0
        results: dict[str, Evaluation] = {
            part: evaluate(network, data[part], hardware, settings.loss, settings.batch_size)
            for part in ("train", "val")
            if part in data and (part == "val" or measured)
        }
        judged = results.get("val")
        score = judged.scores.dice_mean_per_patient if judged else float(epoch)
        report = _report(epoch, optimizer.param_groups[0]["lr"], step_loss, results, best=score > best)
        rows.append(report)
        best = max(best, score)
        write_csv(out / "metrics.csv", list(asdict(report)), [list(asdict(r).values()) for r in rows])
        draw_curves(out / "curves.png", [asdict(r) for r in rows])
        stamped = _stamp(contract, network, results)
        if report.best:
            save_checkpoint(out / "best.safetensors", network, stamped)
        progress = {"epoch": epoch, "best": best, "scaler": scaler.state_dict()}
        save_checkpoint(out / "last.safetensors", network, stamped, optimizer, progress)
        yield report

    network, contract = load_network(out / "best.safetensors")
    network.to(hardware.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    final = {
        part: evaluate(network, data[part], hardware, settings.loss, settings.batch_size)
        for part in PARTS
        if part in data
    }
    write_report(out, final, contract, prepared.problems, settings)


def _train_epoch(
    network: SegmentationNetwork,
    loaded: Iterator[Batch],
    steps: int,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    hardware: Hardware,
    settings: TrainSettings,
    *,
    epoch: int,
) -> float:
    """Take one pass over the `steps` batches; return the mean loss of its steps."""
    network.train()
    losses = []
    for step, batch in enumerate(loaded):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate((epoch - 1) * steps + step, settings.epochs * steps, settings)
        pixels, masks = (t.to(hardware.device, non_blocking=True) for t in batch)
        with hardware.autocast():
            logits, auxiliary = network(pixels)
        loss = segmentation_loss(logits, masks, settings.loss)
        loss = loss + AUXILIARY_WEIGHT * segmentation_loss(auxiliary, masks, settings.loss)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch's stub
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.detach())
    mean = float(torch.stack(losses).mean())
    if not math.isfinite(mean):
        raise SegportError(
            f"epoch {epoch}: the loss is {mean}; the last good checkpoint is {settings.out / 'last.safetensors'};"
            " remedy: a smaller --lr, or --precision fp32"
        )
    return mean


def _report(epoch: int, lr: float, step_loss: float, results: dict[str, Evaluation], *, best: bool) -> EpochReport:
    figures: dict[str, float] = {}
    for part in ("train", "val"):
        one = results.get(part)
        figures |= {
            f"{part}_loss": one.loss if one else math.nan,
            f"{part}_accuracy": one.scores.accuracy if one else math.nan,
            f"{part}_nothing": one.scores.nothing_accuracy if one else math.nan,
            f"{part}_dice_pooled": one.scores.dice_pooled if one else math.nan,
            f"{part}_dice_mean_per_patient": one.scores.dice_mean_per_patient if one else math.nan,
        }
    return EpochReport(epoch=epoch, lr=lr, step_loss=step_loss, best=best, **figures)


def _stamp(contract: ModelContract, network: SegmentationNetwork, results: dict[str, Evaluation]) -> ModelContract:
    """Return the contract with this epoch's weights hash and Dice."""
    dice = {}
    for part, one in results.items():
        dice[f"{part}/pooled"] = round(one.scores.dice_pooled, 4)
        dice[f"{part}/mean-per-patient"] = round(one.scores.dice_mean_per_patient, 4)
    sha256 = weights_sha256(network.state_dict())
    return replace(contract, origin=replace(contract.origin, weights_sha256=sha256, dice=dice))


def _read_metrics(path: Path, done: int) -> list[EpochReport]:
    """Return the rows up to the checkpoint's epoch; later ones belong to steps that were lost.

    `float` reads back what `str` wrote to the last digit, which pandas' reader does not promise in every version.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if int(row["epoch"]) <= done]
    kinds: dict[str, Callable[[str], Any]] = {"epoch": int, "best": lambda text: text == "True"}
    return [EpochReport(**{name: kinds.get(name, float)(text) for name, text in row.items()}) for row in rows]
