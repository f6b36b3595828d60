"""Event files for TensorBoard: the figures of metrics.csv, a file an epoch."""

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from segport.outputs import atomic_path


def write_events(folder: Path, epoch: int, figures: Mapping[str, float | None]) -> None:
    """Write an epoch's event file; train_loss becomes train/loss, and what was not measured is left out.

    An epoch that a resumed run takes again replaces its file, so that nothing is shown twice; TensorBoard reads the
    files of a folder in the order of their names. Raises `OutputError`.
    """
    values = [
        Summary.Value(tag=name.replace("_", "/", 1), simple_value=value)
        for name, value in figures.items()
        if value is not None
    ]
    now = time.time()
    with atomic_path(folder / f"events.out.tfevents.{epoch:06d}") as temporary:
        writer = RecordWriter(str(temporary))
        for event in (
            Event(wall_time=now, file_version="brain.Event:2"),
            Event(wall_time=now, step=epoch, summary=Summary(value=values)),
        ):
            writer.write(event.SerializeToString())
        writer.close()
