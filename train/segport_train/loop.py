"""The training loop, from the table of slices to the report, readable from top to bottom."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from statistics import fmean

import torch

from segport.contract import ModelContract
from segport.interruption import Interruption
from segport_train.adopt import load_start
from segport_train.average import average_weights, measure_statistics
from segport_train.batches import batches, divide, epoch_order
from segport_train.checkpoint import load_network, save_checkpoint
from segport_train.dataset import SliceDataset
from segport_train.epochs import EpochReport, read_metrics, report_epoch, write_metrics
from segport_train.evaluation import Evaluation
from segport_train.events import write_events
from segport_train.init import Init
from segport_train.model import SegmentationNetwork
from segport_train.optimizer import learning_rate
from segport_train.plots import draw_curves
from segport_train.progress import Clock, Progress
from segport_train.report import write_report
from segport_train.settings import TrainSettings
from segport_train.split import PARTS
from segport_train.start import Prepared
from segport_train.trainer import Trainer

MEASURING_BATCHES = 8  # batches on which the normalisation of a model's convolutions is measured
AVERAGING_BATCHES = 60  # and that of averaged weights: as many as docs/experiments.md, run 15, was measured with


def train(settings: TrainSettings, prepared: Prepared) -> Iterator[EpochReport]:
    """Train, yielding a report after each epoch; checkpoints, metrics.csv, curves.png and report.md are written.

    Weights, order and augmentation are functions of the seed: a run that was killed and resumed ends with the
    same weights as one that was not (same machine, thread count and versions, on the CPU). Of several processes, the
    first writes and yields.
    """
    out, hardware, processes = settings.out, prepared.hardware, prepared.processes
    data = _open_parts(settings, prepared)
    steps = divide(epoch_order(data["train"].table, settings.seed, 1), settings.batch_size)
    processes.check_shares(len(steps[0]), settings)
    torch.backends.cudnn.benchmark = True  # shapes never change
    torch.backends.cudnn.allow_tf32 = hardware.precision != "fp32"  # fp32 that was asked for has no shorter mantissas
    network = _begin(settings, prepared, prepared.init, data["train"])
    trainer = Trainer(network, settings, hardware, processes)
    progress, reports = Progress(), []
    of_best: dict[str, Evaluation] = {}  # what the last epoch measured, if it is the best
    if settings.resume:
        progress = trainer.load(out / "last.safetensors")
        reports = read_metrics(out / "metrics.csv", progress.epoch) if progress.epoch else []
    clock = Clock(settings.save_every)

    while progress.epoch < settings.epochs:
        progress = _train_epoch(trainer, data["train"], progress, prepared.contract, clock)
        epoch = progress.epoch + 1
        last = epoch == settings.epochs
        measured = last or epoch % settings.evaluate_train_every == 0
        results: dict[str, Evaluation] = {
            part: trainer.evaluate(network, data[part], detailed=last)
            for part in ("train", "val")
            if part in data and (part == "val" or measured)
        }
        score = _score(results.get("val"), epoch)
        best = score > progress.best
        of_best = results if best and last else {}
        steps_taken, loss = progress.step, progress.loss
        progress = Progress(epoch, best=max(progress.best, score))
        if not processes.first:
            continue
        lr = learning_rate(epoch * steps_taken - 1, settings.epochs * steps_taken, settings)
        report = report_epoch(epoch, lr, loss / steps_taken, results, best=best)
        reports.append(report)
        _write_curves(settings, reports)
        contract = _with_dice(prepared.contract, results)
        if best:
            save_checkpoint(out / "best.safetensors", network, contract)
        trainer.save(out / "last.safetensors", contract, progress)
        clock.restart()
        yield report

    if prepared.average is not None:
        averaged = _keep_average(trainer, data, prepared, progress)
        of_best = of_best if averaged is None else averaged
    processes.wait()  # for the first to have written the best
    network, contract = load_network(out / "best.safetensors")
    network.to(hardware.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    final = {
        part: of_best[part] if part in of_best else trainer.evaluate(network, data[part], detailed=True)
        for part in PARTS
        if part in data
    }
    if processes.first:
        write_report(settings, contract, prepared, network, data, final)


def _score(val: Evaluation | None, epoch: int) -> float:
    """Return what chooses the epoch: mean Dice over the patients of val with tumour; without any, the last is best.

    An empty mask scores 1 on a patient without tumour: an untrained network would be the best there is.
    """
    dice = [counts.dice for counts in val.patients.values() if counts.tumour_pixels] if val is not None else []
    return fmean(dice) if dice else float(epoch)


def _first_slices(data: SliceDataset, settings: TrainSettings, count: int) -> Iterator[torch.Tensor]:
    """Yield batches of augmented slices that no epoch shows so, uint8 [N, size, size, 3], to measure statistics on."""
    first = divide(epoch_order(data.table, settings.seed, 0), settings.batch_size)[:count]
    for pixels, _ in batches(data, 0, first, settings.workers):
        yield pixels


def _begin(settings: TrainSettings, prepared: Prepared, init: Init, data: SliceDataset) -> SegmentationNetwork:
    """Return the network before its first step; where a run is resumed, its weights are still to be loaded."""
    torch.manual_seed(settings.seed)
    network = SegmentationNetwork(prepared.contract, output_stride=settings.output_stride, auxiliary=True)
    if init.kind != "resume":
        load_start(init, network).put_into(network, _first_slices(data, settings, MEASURING_BATCHES))
    return network


def _open_parts(settings: TrainSettings, prepared: Prepared) -> dict[str, SliceDataset]:
    """Return the slices of each part, by its name; those to train on are augmented."""
    return {
        str(part): SliceDataset(
            rows,
            prepared.contract,
            prepared.cache,
            seed=settings.seed,
            augmented=settings.augment and part == "train",
            flair_only=settings.flair_only,
        )
        for part, rows in prepared.table.groupby("part")
    }


def _write_curves(settings: TrainSettings, reports: list[EpochReport]) -> None:
    """Write the epochs so far as metrics.csv and curves.png, and the last of them as events where that is wanted."""
    write_metrics(settings.out / "metrics.csv", reports)
    rows = [asdict(report) for report in reports]
    draw_curves(settings.out / "curves.png", rows)
    if settings.tensorboard:
        figures = {name: value for name, value in rows[-1].items() if name not in ("epoch", "best")}
        write_events(settings.out / "events", reports[-1].epoch, figures)


def _train_epoch(
    trainer: Trainer, data: SliceDataset, progress: Progress, contract: ModelContract, clock: Clock
) -> Progress:
    """Take the steps of an epoch that are not taken yet; return where it then stands, all of its steps taken.

    Checkpoints are written as the clock says, by the first process. A run of one process that is interrupted ends its
    step, writes a checkpoint and raises `KeyboardInterrupt`; of several, one that waited would wait for others forever.
    """
    settings, processes, epoch = trainer.settings, trainer.processes, progress.epoch + 1
    parts = divide(epoch_order(data.table, settings.seed, epoch), settings.batch_size)
    shares = [processes.share(rows) for rows in parts[progress.step :]]
    loss = torch.tensor(progress.loss, dtype=torch.float64, device=trainer.hardware.device)
    pinned = trainer.hardware.device.type == "cuda"
    loaded = batches(data, epoch, shares, settings.workers, pinned=pinned)
    trainer.start_epoch()
    with Interruption() if processes.count == 1 else nullcontext() as interruption:
        for step, batch in enumerate(loaded, progress.step):
            loss += trainer.step(batch, epoch, step, len(parts))
            interrupted = interruption is not None and interruption.asked
            if (clock.due or interrupted) and processes.first:
                trainer.check(epoch)
                progress = replace(progress, step=step + 1, loss=float(loss))
                trainer.save(settings.out / "last.safetensors", contract, progress)
                clock.restart()
                if interrupted:
                    raise KeyboardInterrupt
    trainer.check(epoch)
    return replace(progress, step=len(parts), loss=float(loss))


def _keep_average(
    trainer: Trainer, data: dict[str, SliceDataset], prepared: Prepared, progress: Progress
) -> dict[str, Evaluation] | None:
    """Average the network with what the run began with; where no epoch was better, that is the best checkpoint.

    Returns what was measured of it, by the part; None where an epoch was better.
    """
    settings, network = trainer.settings, trainer.network
    assert prepared.average is not None
    average_weights(network, _begin(settings, prepared, prepared.average, data["train"]).state_dict())
    if settings.batch_norm == "train":
        slices = _first_slices(data["train"], settings, AVERAGING_BATCHES)
        measure_statistics(network, slices, trainer.hardware)
    results = {"val": trainer.evaluate(network, data["val"], detailed=True)} if "val" in data else {}
    if _score(results.get("val"), settings.epochs + 1) <= progress.best:
        return None
    if trainer.processes.first:
        contract = _with_dice(prepared.contract, results)
        origin = replace(contract.origin, settings=contract.origin.settings | {"averaged": True})
        save_checkpoint(settings.out / "best.safetensors", network, replace(contract, origin=origin))
    return results


def _with_dice(contract: ModelContract, results: dict[str, Evaluation]) -> ModelContract:
    """Return the contract with an epoch's Dice."""
    dice = {}
    for part, one in results.items():
        dice[f"{part}/pooled"] = round(one.scores.dice_pooled, 4)
        dice[f"{part}/mean-per-patient"] = round(one.scores.dice_mean_per_patient, 4)
    return replace(contract, origin=replace(contract.origin, dice=dice))
