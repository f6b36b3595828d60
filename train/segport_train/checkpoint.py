"""Checkpoints: safetensors files whose header carries the contract; a resumable one also holds the optimizer."""

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from segport.contract import KEY, ModelContract
from segport.errors import ModelError, OutputError
from segport.outputs import write_bytes
from segport_train.failures import is_full
from segport_train.init import contract_of_checkpoint
from segport_train.model import SegmentationNetwork, weights_sha256

PROGRESS, OPTIMIZER_SHA256, TEXT_SHA256 = "segport.progress", "segport.optimizer_sha256", "segport.text_sha256"
MODEL, OPTIMIZER = "model.", "optimizer."


@dataclass(frozen=True)
class Checkpoint:
    """A loaded file. `progress` and `optimizer` are empty unless it was saved to be resumed."""

    contract: ModelContract
    weights: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    progress: dict[str, Any]


def save_checkpoint(
    path: Path,
    network: SegmentationNetwork,
    contract: ModelContract,
    optimizer: torch.optim.Optimizer | None = None,
    progress: dict[str, Any] | None = None,
) -> None:
    """Write weights and contract, whole or not at all; with optimizer and progress so that training can resume.

    The contract is given the hash of the weights. Raises `OutputError`; an earlier file is then still there. Where the
    disk is full it says what is needed and what is free; the remedy is `explain_failures`' to add.
    """
    weights = {name: _plain(t) for name, t in network.state_dict().items()}
    states = optimizer.state_dict()["state"].items() if optimizer else ()
    moments = {f"{index}.{name}": _plain(t) for index, state in states for name, t in state.items()}
    contract = replace(contract, origin=replace(contract.origin, weights_sha256=weights_sha256(weights)))
    header = {KEY: contract.to_json(), PROGRESS: json.dumps(progress or {}), OPTIMIZER_SHA256: weights_sha256(moments)}
    header[TEXT_SHA256] = _text_sha256(header)
    tensors = {MODEL + n: t for n, t in weights.items()} | {OPTIMIZER + n: t for n, t in moments.items()}
    data = save(tensors, metadata=header)
    try:
        write_bytes(path, data)
    except OutputError as error:
        if not is_full(error):
            raise
        free = shutil.disk_usage(path.parent).free
        raise OutputError(f"{error}: {len(data)} bytes needed, {free} free") from error.__cause__


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU.

    Raises `ModelError` when the file is missing, damaged (a single bit is seen), or carries no contract.
    """
    contract = contract_of_checkpoint(path)
    if contract is None:
        raise ModelError(f"{path}: holds no segport contract; expected a checkpoint that seg-train wrote")
    with safe_open(path, "pt") as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    weights = {n.removeprefix(MODEL): t for n, t in tensors.items() if n.startswith(MODEL)}
    moments = {n.removeprefix(OPTIMIZER): t for n, t in tensors.items() if n.startswith(OPTIMIZER)}
    checks = [
        ("contract or progress", header.get(TEXT_SHA256), _text_sha256(header)),  # older files have none of these two
        ("optimizer", header.get(OPTIMIZER_SHA256), weights_sha256(moments)),
        ("weights", contract.origin.weights_sha256, weights_sha256(weights)),
    ]
    for what, written, found in checks:
        if written and written != found:
            raise ModelError(f"{path}: is damaged: {what} not as they were written; remedy: a copy, or train again")
    return Checkpoint(contract, weights, moments, json.loads(header.get(PROGRESS, "{}")))


def load_network(path: Path) -> tuple[SegmentationNetwork, ModelContract]:
    """Return the eager network of a checkpoint in evaluation mode, without the auxiliary head, and its contract.

    Raises `ModelError` when tensors are missing or have other shapes than the architecture's, or that is unknown.
    """
    checkpoint = load_checkpoint(path)
    contract = checkpoint.contract
    try:
        network = SegmentationNetwork(contract, output_stride=contract.origin.output_stride, auxiliary=False)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    load_weights(network, {n: t for n, t in checkpoint.weights.items() if ".aux_classifier." not in n}, str(path))
    return network.eval(), contract


def load_weights(network: SegmentationNetwork, weights: dict[str, torch.Tensor], where: str) -> None:
    """Copy `weights` into the network; raises `ModelError` naming what does not fit."""
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(f"{where}: its tensors do not fit a DeepLabV3-ResNet50: {error}") from error


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Copy saved optimizer tensors (named `index.key`) back into a fresh optimizer of the same parameters.

    Each in the memory layout of its parameter, which the fused optimizer takes for granted.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        parameter = parameters[int(index)]
        laid_out = torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor
        state.setdefault(int(index), {})[key] = laid_out
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _text_sha256(header: dict[str, str]) -> str:
    """Return the SHA-256 of what a header says, which no hash of tensors covers."""
    return hashlib.sha256("\n".join(header.get(key, "") for key in (KEY, PROGRESS)).encode()).hexdigest()


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor on the CPU in its plain layout (safetensors refuses channels_last strides)."""
    return tensor.detach().cpu().contiguous()
