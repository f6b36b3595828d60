"""Two processes that train one network, started by torchrun, against one."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed import DistNetworkError

from segport.errors import DeviceError, SegportError, UsageError
from segport_train import distribution
from segport_train.checkpoint import load_checkpoint
from segport_train.distribution import Processes, join_processes
from segport_train.failures import explain_failures
from segport_train.settings import TrainSettings
from thin import arguments, command, hooked, refuse_writing, results, train, write_patients

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2")
BCE, BCE_DICE = ("--loss", "bce"), ("--loss", "bce-dice")


def torchrun(*trainings: tuple[str, list[str]]) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return subprocess.run(
        command(*trainings, through=TORCHRUN), capture_output=True, text=True, check=False, timeout=240, env=environment
    )


def difference(one: Path, other: Path) -> float:
    """Return the largest difference of two runs' weights; asserts that the first one's moved at all."""
    start, a, b = (load_checkpoint(run / "last.safetensors").weights for run in (one.parent / "start", one, other))
    learnt = [name for name in a if a[name].is_floating_point()]
    assert max(float((a[name] - start[name]).abs().max()) for name in learnt) > 3e-4
    return max(float((a[name] - b[name]).abs().max()) for name in learnt)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of runs: `one_...` of one process, `run_...` of two, all from `start`."""
    root = tmp_path_factory.mktemp("processes")
    data = write_patients(root / "data")
    assert train(data, root / "start", "--epochs", "1") == 0
    init = ("--init", root / "start/last.safetensors", "--batch-norm", "frozen", "--optimizer", "adam")
    with hooked("still"):
        assert train(data, root / "one_bce", *init, *BCE) == 0
        assert train(data, root / "one_dice", *init, *BCE_DICE) == 0
    dice = arguments(data, root / "run_resumed", *init, *BCE_DICE)
    done = torchrun(
        ("still", arguments(data, root / "run_bce", *init, *BCE)),
        ("still", arguments(data, root / "run_dice", *init, *BCE_DICE)),
        ("still alone", arguments(data, root / "run_alone", *init, *BCE_DICE)),
        ("still halt", [*dice, "--save-every", "0"]),
        ("still", [*dice, "--resume"]),
        ("", arguments(data, root / "run_usage", "--batch-size", "3")),
        ("nan", arguments(data, root / "run_nan", "--save-every", "0")),
        ("full", arguments(data, root / "run_full", "--save-every", "0")),  # the end of both
    )
    (root / "stdout").write_text(done.stdout)
    (root / "stderr").write_text(done.stderr)
    assert done.returncode == 1, done.stderr
    return root


def codes(root: Path, run: str) -> dict[str, int]:
    """Return the exit code of each process, by its rank."""
    lines = [line.split() for line in (root / "stdout").read_text().splitlines() if line.startswith("rank ")]
    return {rank: int(code) for _, rank, name, code in lines if name == run}


@pytest.mark.parametrize("loss", ["bce", "dice"])
def test_two_processes_reach_the_weights_of_one(root: Path, loss: str) -> None:
    assert difference(root / f"one_{loss}", root / f"run_{loss}") < 1e-6
    columns = [
        [row.split(",")[2:5] for row in (root / f"{kind}_{loss}/metrics.csv").read_text().splitlines()[1:]]
        for kind in ("one", "run")
    ]
    assert np.allclose(np.array(columns[0], float), np.array(columns[1], float), rtol=1e-4)


def test_without_the_sums_over_processes_they_do_not(root: Path) -> None:
    assert difference(root / "one_dice", root / "run_alone") > 1e-4


def test_two_processes_resume_to_the_same_bits(root: Path) -> None:
    assert codes(root, "run_resumed") == {"0": 0, "1": 0}
    assert "interrupted" in (root / "stderr").read_text()
    assert results(root / "run_resumed") == results(root / "run_dice")
    assert json.loads((root / "run_dice/settings.json").read_text())["processes"] == 2


def test_the_first_process_alone_speaks_and_writes(root: Path) -> None:
    """The second's writes are refused by a hook of Python's audit, so that it would have failed."""
    assert codes(root, "run_bce") == codes(root, "run_dice") == {"0": 0, "1": 0}
    out, said = (root / "stdout").read_text(), (root / "stderr").read_text()
    assert out.count("# deeplabv3_resnet50") == 4
    assert said.count("epoch 2/2") == 4
    with pytest.raises(PermissionError, match="the second process wrote"):
        refuse_writing("open", (str(root / "run_bce/x"), "wb", 0))
    refuse_writing("open", (str(root / "run_bce/x"), "rb", 0))


@pytest.mark.parametrize(
    ("run", "code", "message"),
    [
        ("run_usage", 2, "error: a step of 3 slices (--batch-size 3) over 2 processes: expected as many for each"),
        ("run_nan", 3, "error: epoch 1: the loss or its gradient is not a finite number"),
    ],
)
def test_what_all_processes_meet_is_said_once(root: Path, run: str, code: int, message: str) -> None:
    assert codes(root, run) == {"0": code, "1": code}
    assert (root / "stderr").read_text().count(message) == 1


def test_what_one_process_meets_ends_all_and_the_checkpoint_stays(root: Path) -> None:
    assert codes(root, "run_full")["1"] == 3
    assert (root / "stderr").read_text().count("error: the machine's memory is full") == 1
    kept = load_checkpoint(root / "run_full/last.safetensors")
    assert (kept.progress["epoch"], kept.progress["step"]) == (0, 1)


def test_shares_are_all_rows_and_none_twice() -> None:
    rows = np.arange(12)
    shares = [Processes(rank, 3).share(rows) for rank in range(3)]
    assert sorted(np.concatenate(shares)) == rows.tolist()
    assert {len(share) for share in shares} == {4}


def test_batches_that_do_not_divide_are_refused() -> None:
    settings = TrainSettings(Path("data"), Path("out"), batch_size=2, init="x", batch_norm="frozen")
    Processes(0, 2).check_shares(2, settings)
    for count, batch_norm in ((3, "frozen"), (2, "train")):
        with pytest.raises(UsageError, match="remedy: another --batch-size or --nproc-per-node"):
            Processes(0, count).check_shares(2, replace(settings, batch_norm=batch_norm))
    with pytest.raises(SystemExit):
        Processes(1, 3).check_shares(2, settings)


def test_each_process_needs_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution.dist, "is_torchelastic_launched", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with (
        pytest.raises(DeviceError, match="finds 2 GPUs, expected one for each process; remedy: --nproc-per-node 2"),
        join_processes(TrainSettings(Path("data"), Path("out"))),
    ):
        pass


@pytest.mark.parametrize("lost", [DistNetworkError("refused"), RuntimeError("gloo: Connection closed by peer [::1]")])
def test_a_process_that_lost_the_others_says_so(lost: RuntimeError, tmp_path: Path) -> None:
    with (
        pytest.raises(SegportError, match="another process of this run has ended"),
        explain_failures(TrainSettings(tmp_path, tmp_path)),
    ):
        raise lost


@pytest.mark.parametrize(("count", "cuda"), [(1, True), (2, False), (2, True)])
def test_batch_statistics_are_of_all_processes_on_cuda_alone(monkeypatch, count: int, cuda: bool) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    monkeypatch.setattr(nn.Parameter, "is_cuda", cuda, raising=False)
    Processes(0, count).normalise_together(network)
    assert isinstance(network[1], nn.SyncBatchNorm) == (count == 2 and cuda)
