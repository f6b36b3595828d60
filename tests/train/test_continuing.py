"""Trainings that end by force, wherever that is: the same command with --resume ends with the very same bits."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from segport.outputs import write_bytes
from segport_train import loop, report
from segport_train.checkpoint import load_checkpoint
from segport_train.settings import TrainSettings
from thin import arguments, command, results, train, write_patients

EVERY_STEP = ("--save-every", "0")
RUN_FILES = {
    "settings.json", "split.csv", "metrics.csv", "curves.png", "best.safetensors", "last.safetensors", "report.md",
    "patients.csv", "slices.csv", "calibration.csv", "calibration.png", "worst.png",
}  # fmt: skip


class Killed(BaseException):
    """The end of a process, inside this one."""


@contextmanager
def killed_at(nth: int) -> Iterator[list[str]]:
    """End the run where its `nth` file (from 0) would get its name; yields the names so far."""
    names: list[str] = []
    real_replace, real_unlink = Path.replace, Path.unlink

    def replace(path: Path, target: Path) -> Path:
        if len(names) == nth:
            raise Killed
        names.append(target.name)
        return real_replace(path, target)

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if len(names) != nth:  # a process that is killed tidies nothing up
            real_unlink(path, missing_ok=missing_ok)

    with mock.patch.object(Path, "replace", replace), mock.patch.object(Path, "unlink", unlink):
        yield names


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patients(tmp_path_factory.mktemp("slices") / "data")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Return the results of a run that nothing disturbed, which wrote no checkpoint within an epoch."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train(data, out) == 0
    assert {p.name for p in out.iterdir() if p.is_file()} >= RUN_FILES
    return results(out)


@pytest.fixture
def plain_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the seconds of real ones."""
    monkeypatch.setattr(loop, "draw_curves", lambda path, rows: write_bytes(path, b"curves"))
    monkeypatch.setattr(report, "draw_calibration", lambda path, parts: write_bytes(path, b"curve"))
    monkeypatch.setattr(report, "draw_worst", lambda path, titles, pictures: write_bytes(path, b"worst"))


@pytest.mark.usefixtures("plain_pictures")
def test_killed_before_any_file_gets_its_name_a_run_ends_the_same(
    data: Path, whole: tuple[str, ...], tmp_path: Path
) -> None:
    steps = set()
    for nth in range(40):
        out = tmp_path / f"run_{nth}"
        with killed_at(nth) as names:
            try:
                assert train(data, out, *EVERY_STEP) == 0
                break
            except Killed:
                pass
        begun = (out / "last.safetensors").exists()
        if begun:
            progress = load_checkpoint(out / "last.safetensors").progress
            steps.add((progress["epoch"], progress["step"]))
        assert train(data, out, *(["--resume"] if begun else [])) == 0
        assert results(out) == whole, f"killed after {names}"
        assert not [p.name for p in out.iterdir() if p.suffix == ".tmp"]
    assert set(names) >= RUN_FILES, "a file was never come to"
    assert steps == {(0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)}


@pytest.mark.usefixtures("plain_pictures")
def test_killed_again_and_again_a_run_ends_the_same(data: Path, whole: tuple[str, ...], tmp_path: Path) -> None:
    out, begun = tmp_path / "run", False
    for _ in range(20):
        try:
            with killed_at(4):  # one checkpoint further each time, or a file more at an epoch's end
                train(data, out, *EVERY_STEP, *(["--resume"] if begun else []))
            break
        except Killed:
            begun = True
    assert results(out) == whole


def test_sigkill_within_an_epoch(data: Path, whole: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "run"
    child = subprocess.Popen(command(("", arguments(data, out, *EVERY_STEP))), stderr=subprocess.DEVNULL)
    while child.poll() is None and not (out / "last.safetensors").exists():
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert load_checkpoint(out / "last.safetensors").progress["epoch"] < 2
    assert train(data, out, "--resume") == 0
    assert results(out) == whole


def test_a_step_that_is_left_out_is_seen(data: Path, whole: tuple[str, ...], tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "run"
    with killed_at(4), pytest.raises(Killed):
        train(data, out, *EVERY_STEP)
    real = loop.batches
    monkeypatch.setattr(
        loop, "batches", lambda data, epoch, rows, *more, **named: real(data, epoch, rows[1:], *more, **named)
    )
    assert train(data, out, "--resume") == 0
    assert results(out) != whole


def test_checkpoints_within_an_epoch_come_by_the_clock(data: Path, tmp_path: Path, monkeypatch) -> None:
    now = [0.0]
    saved: list[Any] = []
    real = loop.Trainer.save
    monkeypatch.setattr("segport_train.progress.time.monotonic", lambda: now[0])

    def step(*args: Any) -> Any:
        now[0] += 40
        return real_step(*args)

    def save(trainer: loop.Trainer, path: Path, contract: Any, progress: Any) -> None:
        saved.append((progress.epoch, progress.step))
        real(trainer, path, contract, progress)

    real_step = loop.Trainer.step
    monkeypatch.setattr(loop.Trainer, "step", step)
    monkeypatch.setattr(loop.Trainer, "save", save)
    assert train(data, tmp_path / "run", "--save-every", "1", "--batch-size", "2", "--epochs", "1") == 0
    assert saved == [(0, 2), (0, 4), (1, 0)]
    assert TrainSettings.save_every == 10


def test_runs_of_before_a_setting_was_there_go_on_with_its_default(data: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    with killed_at(4), pytest.raises(Killed):
        train(data, out, *EVERY_STEP)
    text = (out / "settings.json").read_text()
    younger = ["batch_norm", "save_every", "tensorboard", "processes", "flair_only"]
    lines = [line for line in text.splitlines() if line.split('"')[1:2] not in [[name] for name in younger]]
    (out / "settings.json").write_text("\n".join(lines).replace(",\n}", "\n}").replace(",\n  }", "\n  }"))
    assert train(data, out, "--resume") == 2
    assert "flair_only: 0.1 then, 0.3 now" in capsys.readouterr().err
    assert train(data, out, "--resume", "--flair-only", "0.1") == 0, capsys.readouterr().err
    (out / "settings.json").write_text(text.replace('"processes": 1', '"processes": 2'))
    assert train(data, out, "--resume") == 2
    assert "processes: 2 then, 1 now" in capsys.readouterr().err


def test_leftovers_of_a_write_are_removed(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.0123.tmp").write_bytes(os.urandom(9))
    assert train(data, tmp_path / "run", "--epochs", "1") == 0
    assert not (tmp_path / "run/.0123.tmp").exists()


def test_a_checkpoint_with_one_bit_changed_is_refused(data: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    with killed_at(4), pytest.raises(Killed):
        train(data, out, *EVERY_STEP)
    last = out / "last.safetensors"
    whole = last.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    step = whole.index(b"step", whole.index(b"segport.progress")) + len(b'step\\": ')
    assert whole[step : step + 1].isdigit()
    for place in (step, header, (header + len(whole)) // 2, len(whole) - 1):  # progress, weights and moments
        last.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert train(data, out, "--resume") == 3
        assert "last.safetensors: is damaged" in capsys.readouterr().err
    last.write_bytes(whole)
    assert train(data, out, "--resume") == 0


def test_what_a_run_cannot_go_on_from_is_named(data: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    assert train(data, out, "--epochs", "1") == 0
    kept = {name: (out / name).read_bytes() for name in ("metrics.csv", "settings.json", "last.safetensors")}
    for name, damage, code, expected in (
        ("metrics.csv", b"epoch\n1\n", 3, "metrics.csv does not hold the epochs of this run"),
        ("settings.json", b"[]", 2, "settings.json holds no settings of a run"),
        ("last.safetensors", (out / "best.safetensors").read_bytes(), 3, "holds no optimizer to go on with"),
    ):
        (out / name).write_bytes(damage)
        assert train(data, out, "--epochs", "1", "--resume") == code
        assert expected in capsys.readouterr().err
        (out / name).write_bytes(kept[name])
    (out / "last.safetensors").unlink()
    assert train(data, out, "--epochs", "2") == 3
    assert "holds the report of a finished run; choose another --out" in capsys.readouterr().err
    assert json.loads((out / "settings.json").read_bytes())["settings"]["epochs"] == 1
    (out / "last.safetensors").write_bytes(kept["last.safetensors"])
    (out / "metrics.csv").unlink()
    assert train(data, out, "--epochs", "1", "--resume") == 3
    assert train(data, tmp_path / "mistyped", "--resume") == 2
    assert not (tmp_path / "mistyped").exists()
