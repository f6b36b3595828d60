"""The network with its optimizer: one step of a training, and the checkpoint that continues it bit by bit."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from segport.contract import ModelContract
from segport.errors import ModelError, SegportError
from segport_train.batches import Batch
from segport_train.checkpoint import load_checkpoint, load_weights, restore_optimizer, save_checkpoint
from segport_train.dataset import SliceDataset
from segport_train.distribution import Processes
from segport_train.evaluation import Evaluation, evaluate
from segport_train.hardware import Hardware
from segport_train.losses import AUXILIARY_WEIGHT, segmentation_loss
from segport_train.model import SegmentationNetwork
from segport_train.optimizer import learning_rate, make_optimizer
from segport_train.progress import Progress
from segport_train.settings import TrainSettings

GRADIENT_NORM = 5.0  # gradients are clipped above, against rare spikes of a from-scratch start


class Trainer:
    """A network on its device, and what a step of training needs beside it."""

    def __init__(
        self, network: SegmentationNetwork, settings: TrainSettings, hardware: Hardware, processes: Processes
    ) -> None:
        network.to(hardware.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
        processes.normalise_together(network)
        self.network, self.settings, self.hardware, self.processes = network, settings, hardware, processes
        self.optimizer = make_optimizer(network, settings, hardware)
        self.scaler = torch.amp.GradScaler(hardware.device.type, enabled=hardware.scales_gradients)
        self._called = processes.spread(network)
        self._sound = torch.tensor(True, device=hardware.device)

    def start_epoch(self) -> None:
        """Put the network into training mode; frozen batch normalisation keeps its statistics."""
        self.network.train()
        for module in self.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and self.settings.batch_norm == "frozen":
                module.eval()

    def step(self, batch: Batch, epoch: int, step: int, steps: int) -> torch.Tensor:
        """Take a step (from 0, of `steps`) of an epoch; return its loss, the mean over all processes.

        What is random in the network is a function of (seed, epoch, step). Raises `SegportError` before the weights
        take up a gradient that is not finite; on CUDA, which that would slow down, it is `check` that raises.
        """
        settings, scaler = self.settings, self.scaler
        key = np.random.SeedSequence([settings.seed, epoch, step, self.processes.rank])
        torch.manual_seed(int(key.generate_state(1, np.uint64)[0]))  # dropout
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate((epoch - 1) * steps + step, settings.epochs * steps, settings)
        pixels, masks = (t.to(self.hardware.device, non_blocking=True) for t in batch)
        with self.hardware.autocast():
            logits, auxiliary = self._called(pixels)
        loss = segmentation_loss(logits, masks, settings.loss, self.processes.sum)
        loss = loss + AUXILIARY_WEIGHT * segmentation_loss(auxiliary, masks, settings.loss, self.processes.sum)
        self.optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch's stub
        scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM)
        loss = self.processes.sum(loss.detach()) / self.processes.count
        # fp16's scaler leaves out steps whose gradients overflow, so that their norm is no failure there
        self._sound &= torch.isfinite(loss if scaler.is_enabled() else loss + norm)
        if self.hardware.device.type == "cpu":
            self.check(epoch)
        scaler.step(self.optimizer)
        scaler.update()
        return loss

    def evaluate(self, network: SegmentationNetwork, data: SliceDataset, *, detailed: bool = False) -> Evaluation:
        """Return the evaluation of `network` on all of `data`, in shares of the processes."""
        processes, settings = self.processes, self.settings
        processes.align(network)
        share = slice(processes.rank, None, processes.count)
        own = evaluate(network, data, self.hardware, settings.loss, settings.batch_size, detailed=detailed, share=share)
        first, *others = processes.gather(own)
        return sum(others, first)

    def check(self, epoch: int) -> None:
        """Raise `SegportError` when a step's loss or gradient was not finite: the weights are not worth keeping."""
        if not self._sound:
            self.processes.end(
                SegportError(
                    f"epoch {epoch}: the loss or its gradient is not a finite number; remedy: another --out with"
                    f" {self._steadier()}"
                )
            )

    def _steadier(self) -> str:
        """Return the options that may keep a loss finite; --resume is none, it comes to the same step again."""
        options = f"a smaller --lr (here {self.settings.start_lr:g})"
        if self.hardware.precision != "fp32":
            options += f" or --precision fp32 (here {self.hardware.precision})"
        last = self.settings.out / "last.safetensors"
        return options + (f", and --init {last} to begin with what is learnt" if last.exists() else "")

    def save(self, path: Path, contract: ModelContract, progress: Progress) -> None:
        """Write a checkpoint that `load` continues."""
        progress = replace(progress, scaler=self.scaler.state_dict())
        save_checkpoint(path, self.network, contract, self.optimizer, asdict(progress))

    def load(self, path: Path) -> Progress:
        """Take over weights, optimizer and scaler of a checkpoint; return where it stands. Raises `ModelError`."""
        checkpoint = load_checkpoint(path)
        if not checkpoint.progress:
            raise ModelError(f"{path}: holds no optimizer to go on with; expected the file that seg-train wrote there")
        load_weights(self.network, checkpoint.weights, str(path))
        restore_optimizer(self.optimizer, checkpoint.optimizer)
        progress = Progress(**checkpoint.progress)
        self.scaler.load_state_dict(progress.scaler)
        return progress
