"""Event files, read back as TensorBoard reads them."""

import csv
import struct
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from segport_train.trainer import Trainer
from thin import train, write_patients


def read_events(path: Path) -> list[Event]:
    """Return the records of a file: length, checksum, record, checksum."""
    data, events = path.read_bytes(), []
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        events.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    return events


def test_a_resumed_run_shows_every_epoch_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = write_patients(tmp_path / "data"), tmp_path / "run"
    options = ("--epochs", "3", "--evaluate-train-every", "2", "--tensorboard", "--save-every", "0")
    real = Trainer.save

    def save(trainer: Trainer, path: Path, contract: Any, progress: Any) -> None:
        if progress.epoch == 2:
            raise KeyboardInterrupt  # its figures are in the event file, its checkpoint is not written
        real(trainer, path, contract, progress)

    monkeypatch.setattr(Trainer, "save", save)
    assert train(data, out, *options) == 130
    monkeypatch.undo()
    assert len(list((out / "events").iterdir())) == 2
    assert train(data, out, *options, "--resume") == 0

    events = [event for file in sorted((out / "events").iterdir()) for event in read_events(file)]
    assert [e.step for e in events if e.summary.value] == [1, 2, 3]
    figures = {(value.tag, event.step): value.simple_value for event in events for value in event.summary.value}
    with (out / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = {
        (name.replace("_", "/", 1), int(row["epoch"])): pytest.approx(float(value), rel=1e-6)
        for row in rows
        for name, value in row.items()
        if name not in ("epoch", "best") and value
    }
    assert figures == expected
    assert ("train/loss", 1) not in figures
    assert figures["val/dice_mean_per_patient", 3] > 0


def test_there_are_none_unasked(tmp_path: Path) -> None:
    assert train(write_patients(tmp_path / "data"), tmp_path / "run", "--epochs", "1") == 0
    assert not (tmp_path / "run/events").exists()
