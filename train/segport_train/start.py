"""What a training starts from: data read and split, hardware chosen, the run folder locked, described or checked."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from segport.contract import ModelContract
from segport.errors import OutputError, UsageError
from segport.outputs import write_bytes, write_json
from segport.workspace import lock_folder
from segport_train.adopt import load_start
from segport_train.cache import SliceCache
from segport_train.describe import first_contract, record_settings
from segport_train.distribution import Processes, join_processes
from segport_train.failures import explain_failures
from segport_train.hardware import Hardware, choose_hardware
from segport_train.init import Init, contract_of_checkpoint, find_init
from segport_train.lineage import find_taught
from segport_train.model import SegmentationNetwork
from segport_train.ranges import training_range
from segport_train.settings import FREE_ON_RESUME, PRIVATE, TrainSettings, recorded_setting
from segport_train.split import PARTS, assign_parts, describe_parts
from segport_train.table import Problem, build_table, fingerprint


@dataclass(frozen=True)
class Prepared:
    """What a training starts from.

    `problems`: files left out because the settings say so. `notes`: why a resume may not be exact, what was taken of
    the weights that `init` names, and which parts say little. `unseen`: whether it is known that no patient of val and
    test had a part in those weights. `average`: what the weights are averaged with after the last epoch.
    """

    table: pd.DataFrame
    problems: list[Problem]
    notes: list[str]
    contract: ModelContract
    hardware: Hardware
    processes: Processes
    cache: SliceCache
    init: Init
    unseen: bool
    average: Init | None


@contextmanager
def open_run(settings: TrainSettings) -> Iterator[Prepared]:
    """Join the other processes, lock the run folder until the block ends, and prepare the run in it.

    What PyTorch raises in the block is explained. Raises `OutputError` when another run holds the lock.
    """
    with explain_failures(settings), join_processes(settings) as processes, ExitStack() as stack:

        def prepare() -> Prepared:
            _check_folder(settings)
            if processes.first:
                stack.enter_context(lock_folder(settings.out, "seg-train"))
                _check_folder(settings)  # again: a run may have ended here before the lock was ours
            return _prepare_run(settings, processes)

        yield processes.agree(prepare)


def _prepare_run(settings: TrainSettings, processes: Processes) -> Prepared:
    """Read the data, split it, choose the hardware; the first process writes settings.json and split.csv.

    Raises `UsageError` (data, split, other settings than the run that is resumed) and `OutputError` (disk full).
    """
    if processes.first:
        for leftover in settings.out.glob(".*.tmp"):  # of a write that was killed
            leftover.unlink()
    hardware = choose_hardware(settings.device, settings.precision)
    init = _find_start(settings)
    cache = SliceCache(settings.cache or settings.out / "cache", settings.size)
    table, problems = build_table(settings, cache)
    table["part"] = assign_parts(table, settings)
    contract = first_contract(settings, training_range(table[table.part == "train"], cache), init)
    data = {part: fingerprint(table[table.part == part], settings.seed) for part in PARTS}
    start = init.described()
    average = _find_average(settings, init, contract)
    recorded = record_settings(settings, hardware, data, "\n".join(table.relative), processes.count, start)
    unseen = _refuse_taught(recorded, table, settings)
    path = settings.out / "settings.json"
    notes = _compare_settings(path, recorded) if settings.resume else _explain(init, contract)
    notes += describe_parts(table)
    shared = {k: v for k, v in recorded["settings"].items() if k not in PRIVATE} | start
    shared |= {name: recorded[name] for name in ("precision", "device", "processes")}  # what auto became
    origin = replace(contract.origin, data=data, versions=recorded["versions"], seed=settings.seed, settings=shared)
    if processes.first and not settings.resume:
        write_json(path, recorded)
        unit = ["relative"] if settings.split == "slice" and settings.split_file is None else []
        split = table[["patient", *unit, "part"]].drop_duplicates()
        write_bytes(
            settings.out / "split.csv",
            split.to_csv(index=False, lineterminator="\n").encode("utf-8", "surrogateescape"),
        )
    return Prepared(
        table, problems, notes, replace(contract, origin=origin), hardware, processes, cache, init, unseen, average
    )


def _check_folder(settings: TrainSettings) -> None:
    """Raise where a run is to begin in a folder that holds one, or to go on in one that does not."""
    last = settings.out / "last.safetensors"
    if last.exists() and not settings.resume:
        raise OutputError(f"{settings.out}: already holds a run; go on with --resume or choose another --out")
    if (settings.out / "report.md").exists() and not settings.resume:
        raise OutputError(f"{settings.out}: holds the report of a finished run; choose another --out")
    if settings.resume and not last.exists():
        raise UsageError(f"--resume: {last} is not there; run without --resume to start")


def _find_start(settings: TrainSettings) -> Init:
    """Return what the weights come from: the run's own last checkpoint, or what the settings name."""
    if not settings.resume:
        return find_init(settings.init)
    last = settings.out / "last.safetensors"
    return Init("resume", "none", last, contract_of_checkpoint(last))


def _find_average(settings: TrainSettings, start: Init, contract: ModelContract) -> Init | None:
    """Return what the weights are averaged with: what the run began with (`start`, unless it is resumed).

    Raises `UsageError` where it has changed since, or does not hold the whole network.
    """
    if not settings.average_init:
        return None
    init = find_init(settings.init) if settings.resume else start
    if init.contract is None or init.contract.origin.architecture != contract.origin.architecture:
        raise UsageError(
            f"--average-init: {init.name} does not hold the whole network; expected a checkpoint or model of the same"
            " architecture"
        )
    if settings.resume and init.described() != start.described():
        raise UsageError(f"--average-init: {init.name} is not what the run began with; remedy: a copy of that, there")
    return init


def _refuse_taught(recorded: dict[str, Any], table: pd.DataFrame, settings: TrainSettings) -> bool:
    """Raise `UsageError` where the weights of `init` have learnt patients of val or test; return whether all is known.

    A split of slices puts patients into several parts anyway, and says so.
    """
    if settings.split == "slice" and settings.split_file is None:
        return False
    val, test = (table.patient[table.part == part].unique() for part in ("val", "test"))
    taught, known = find_taught(recorded, val, test)
    if taught:
        more = f" and {len(taught) - 3} more" if len(taught) > 3 else ""
        raise UsageError(
            f"--init {settings.init}: was made with patients that are in val or test: {', '.join(taught[:3])}{more};"
            " their scores would not be those of patients it has not seen; remedy: the --split, --seed and --fold of"
            " that run, or --split-file with its split.csv; if other people have the same names, a copy of the"
            " checkpoint alone in a folder"
        )
    return known


def _explain(init: Init, contract: ModelContract) -> list[str]:
    """Return what is taken of the weights that a run starts from; raises `ModelError` where they do not fit."""
    if init.kind == "none":
        return []
    size, stride = contract.input.size, contract.origin.output_stride
    with torch.device("meta"):  # names and shapes alone
        network = SegmentationNetwork(contract, output_stride=stride, auxiliary=True)
    return [load_start(init, network).note, *init.differences(size, stride)]


def _compare_settings(path: Path, recorded: dict[str, Any]) -> list[str]:
    """Return warnings about what may change last digits; raise `UsageError` for what decides numbers."""
    try:
        before = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"--resume: {path} cannot be read ({error}); start again with another --out") from error
    if not isinstance(before, dict) or not isinstance(before.get("settings"), dict):
        raise UsageError(f"--resume: {path} holds no settings of a run; start again with another --out")
    now = json.loads(json.dumps(recorded))
    pairs = [(name, before.get(name), now[name]) for name in ("data", "order", "precision", "device")]
    old, new = before.get("settings", {}), now["settings"]
    pairs += [(name, recorded_setting(old, name), new[name]) for name in new if name not in FREE_ON_RESUME]
    pairs.append(("processes", before.get("processes", 1), now["processes"]))
    changed = [f"{name}: {was} then, {is_now} now" for name, was, is_now in pairs if was != is_now]
    if changed:
        raise UsageError(
            "--resume: these decide numbers and have changed since the run began: "
            + "; ".join(changed)
            + "; remedy: the earlier values, or another --out"
        )
    return [
        f"--resume: {name} was {before.get(name)} then, {now[name]} now; weights may differ in their last digits"
        for name in ("threads", "versions")
        if before.get(name) != now[name]
    ]
