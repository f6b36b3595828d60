"""Compare a step of seg-train with a plain loop, and say what share of it waits for batches.

    python benchmarks/train.py DATA [--compile]

The sides take turns in one process, round by round, because a machine drifts: ratios are those of one round, and their
median. Every side trains its own network, from the same weights, on the same batches of the same prepared slices.
seg-train: the trainer's own step and batches, in its own precision, memory layout and optimizer. Plain loop: what a
first version looks like: fp32, NCHW, Adam as it comes, slices augmented by the same function in the training thread;
network, loss and clipping are the same. No side reads or resizes a file. `--compile` adds seg-train under
torch.compile, which takes minutes to compile.
"""

import argparse
import statistics as st
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from common import spread
from machine import machine

from segport.contract import Input, ModelContract
from segport.session import usable_cores
from segport_train.augment import augment
from segport_train.batches import Batch, batches, divide, epoch_order
from segport_train.dataset import SliceDataset
from segport_train.distribution import ALONE
from segport_train.hardware import Hardware, choose_hardware
from segport_train.losses import AUXILIARY_WEIGHT, segmentation_loss
from segport_train.model import SegmentationNetwork
from segport_train.settings import TrainSettings
from segport_train.table import build_table
from segport_train.trainer import GRADIENT_NORM, Trainer

Step = Callable[[Batch], object]


@dataclass
class Side:
    """A row of the table. `speeds`: slices a second; `waits`: share of the time spent waiting for batches; by round."""

    name: str
    step: Step
    workers: int
    speeds: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)


def main() -> int:
    """Prepare the slices, run the rounds, print the table; return the exit code."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    settings = TrainSettings(
        args.data,
        Path("unused"),
        size=args.size,
        output_stride=args.output_stride,
        batch_size=args.batch,
        workers=args.workers,
        epochs=100,
        problems="leave-out",
        device=args.device,
        precision=args.precision,
    )
    hardware = choose_hardware(settings.device, settings.precision)
    table, _ = build_table(settings)
    data = SliceDataset(
        table, ModelContract(Input(settings.size)), seed=0, augmented=True, flair_only=settings.flair_only
    )
    sides = [_plain_loop(settings, hardware), _seg_train(settings, hardware)]
    if args.compile:
        sides.append(_seg_train(settings, hardware, compiled=True))
    print(machine())
    print(
        f"{hardware.device}, {hardware.precision}, {args.threads} threads, {args.size} pixels, output stride"
        f" {args.output_stride}, batch {args.batch}, {args.rounds} rounds of {args.steps} timed steps"
    )
    print(f"augmentation: {_augmentation(data):.2f} ms a slice in one thread\n")
    for number in range(args.rounds):
        for side in sides:
            print(f"round {number + 1} of {args.rounds}: {side.name}", file=sys.stderr)
            _run(side, data, hardware, number + 1, args)
    _print_table(sides)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder as seg-train takes it")
    parser.add_argument("--size", type=int, default=TrainSettings.size, help="(%(default)s)")
    parser.add_argument("--output-stride", type=int, default=TrainSettings.output_stride, help="(%(default)s)")
    parser.add_argument("--batch", type=int, default=TrainSettings.batch_size, help="slices a step (%(default)s)")
    parser.add_argument("--workers", type=int, default=TrainSettings.workers, help="of seg-train (%(default)s)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of every side (usable cores: %(default)s)")
    parser.add_argument("--device", default="auto", help="(%(default)s)")
    parser.add_argument("--precision", default="auto", help="of seg-train (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="timed steps a round (%(default)s)")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before them (%(default)s)")
    parser.add_argument("--compile", action="store_true", help="add seg-train under torch.compile")
    return parser.parse_args()


def _network(settings: TrainSettings) -> SegmentationNetwork:
    torch.manual_seed(0)
    return SegmentationNetwork(
        ModelContract(Input(settings.size)), output_stride=settings.output_stride, auxiliary=True
    ).train()


def _seg_train(settings: TrainSettings, hardware: Hardware, *, compiled: bool = False) -> Side:
    """Return the trainer's own step, of a network in training mode."""
    network = _network(settings)
    if compiled:
        network.compile()
    trainer = Trainer(network, settings, hardware, ALONE)
    name = f"seg-train ({hardware.precision}){', torch.compile' if compiled else ''}"
    return Side(name, lambda batch: trainer.step(batch, 1, 0, 1000), settings.workers)


def _plain_loop(settings: TrainSettings, hardware: Hardware) -> Side:
    """Return a step in fp32 on contiguous NCHW arrays; the network's parts are called without its uint8 front."""
    network = _network(settings).net.to(hardware.device)
    optimizer = torch.optim.Adam(network.parameters(), settings.start_lr)

    def step(batch: Batch) -> object:
        pixels, masks = (t.to(hardware.device) for t in batch)
        result = network(pixels.permute(0, 3, 1, 2).contiguous().float() / 255)
        loss = segmentation_loss(result["out"], masks, settings.loss)
        loss = loss + AUXILIARY_WEIGHT * segmentation_loss(result["aux"], masks, settings.loss)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
        optimizer.step()
        return loss.item()

    return Side("plain loop (fp32)", step, workers=0)


def _run(side: Side, data: SliceDataset, hardware: Hardware, epoch: int, args: argparse.Namespace) -> None:
    """Take a round's steps and note its figures; batches wait nowhere while other sides have their turn."""
    steps = args.warm_up + args.steps
    rows = divide(epoch_order(data.table, 0, epoch), args.batch)
    parts = [rows[n % len(rows)] for n in range(steps)]
    loaded = batches(data, epoch, parts, side.workers, pinned=hardware.device.type == "cuda" and side.workers > 0)
    for _ in range(args.warm_up):
        side.step(next(loaded))
    _synchronise(hardware)
    begin, waited = time.perf_counter(), 0.0
    for _ in range(args.steps):
        asked = time.perf_counter()
        batch = next(loaded)
        waited += time.perf_counter() - asked
        side.step(batch)
    _synchronise(hardware)
    seconds = time.perf_counter() - begin
    side.speeds.append(args.steps * args.batch / seconds)
    side.waits.append(waited / seconds)


def _synchronise(hardware: Hardware) -> None:
    if hardware.device.type == "cuda":
        torch.cuda.synchronize()


def _augmentation(data: SliceDataset, slices: int = 200) -> float:
    """Return the milliseconds that one slice takes, the median."""
    pixels, masks = data.pixels[0], data.masks[0]
    times = []
    for seed in range(slices):
        begin = time.perf_counter()
        augment(pixels, masks, np.random.default_rng(seed), TrainSettings.flair_only)
        times.append(time.perf_counter() - begin)
    return 1000 * st.median(times)


def _print_table(sides: Sequence[Side]) -> None:
    """Print medians and, in brackets, the smallest and largest round."""
    print(
        f"| side | slices a second | of {sides[0].name} | share of a step that waits for batches |\n|---|---|---|---|"
    )
    for side in sides:
        ratios = [a / b for a, b in zip(side.speeds, sides[0].speeds, strict=True)]
        waits = [100 * wait for wait in side.waits]
        print(f"| {side.name} | {spread(side.speeds, 1)} | {spread(ratios, 2)} | {spread(waits, 2)} % |")


if __name__ == "__main__":
    sys.exit(main())
