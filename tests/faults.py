"""Steps of a write that go wrong, in this process or in a child: `python tests/faults.py '{"step": ...}' ARGUMENTS...`.

A step is "ledger write", "mask rename", "reading" and so on; see `Faults`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any
from unittest import mock

BEGINNINGS = {b"\x89PNG": "picture", b"path,": "summary", b"patient,": "patients", b"{": "run.json"}


class Faults:
    """Strikes at the `nth` (from 1) time of a step, and at all later ones where `lasting`.

    `act`: an errno is raised as OSError; "kill" and "exit" end the process, "stop" halts it. `when`: before the step,
    after it, or in the middle of a write. Steps: open, write, fsync, truncate, rename, unlink, each behind what it
    concerns (ledger, at-work, picture, mask, overlay, sheet, summary, patients, run.json, or "file" for a temporary
    file that says not yet what it will be); and mkdir, reading, and "reading p_1.png".
    """

    def __init__(self, step: str, act: int | str, *, nth: int = 1, when: str = "before", lasting: bool = False) -> None:
        self.step, self.act, self.nth, self.when, self.lasting = step, act, nth, when, lasting
        self.seen: Counter[str] = Counter()
        self._lock = Lock()

    @contextmanager
    def at(self, step: str, half: Callable[[], object] = lambda: None) -> Iterator[None]:
        with self._lock:
            self.seen[step] += 1
            hit = step == self.step and (self.seen[step] >= self.nth if self.lasting else self.seen[step] == self.nth)
        if hit and self.when == "half":
            half()
        if hit and self.when != "after":
            self._strike()
        yield
        if hit:
            self._strike()

    def _strike(self) -> None:
        if self.act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        while self.act == "stop":
            time.sleep(1)
        if self.act == "exit":
            os._exit(7)
        assert isinstance(self.act, int)
        raise OSError(self.act, os.strerror(self.act))

    @contextmanager
    def patched(self) -> Iterator["Faults"]:
        """Replace the functions that the steps go through."""
        from segport import deaths, finisher

        real_open, real_fsync, real_mkdir = Path.open, os.fsync, Path.mkdir
        real_replace, real_unlink, real_read = Path.replace, Path.unlink, deaths.read_slice
        real_decode = deaths.decode_slice
        kinds: dict[int, _File] = {}

        def opened(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
            if mode not in ("wb", "ab"):
                return real_open(path, mode, *args, **options)
            with self.at(f"{_kind(path)} open"):
                pass
            file = _File(real_open(path, mode, *args, **options), _kind(path), self)
            kinds[file.fileno()] = file
            return file

        def fsync(descriptor: int) -> None:
            with self.at(f"{kinds[descriptor].kind} fsync"):
                real_fsync(descriptor)

        def replaced(path: Path, target: Path) -> Path:
            with self.at(f"{_kind(Path(target))} rename"):
                return real_replace(path, target)

        def unlinked(path: Path, missing_ok: bool = False) -> None:
            with self.at(f"{_kind(path)} unlink"):
                real_unlink(path, missing_ok=missing_ok)

        def made(path: Path, *args: Any, **options: Any) -> None:
            with self.at("mkdir"):
                real_mkdir(path, *args, **options)

        def read(path: Path) -> Any:
            with self.at("reading"), self.at(f"reading {path.name}"):
                return real_read(path)

        def decode(reader: Any, path: Path, data: bytes) -> Any:
            with reader._noted(path), self.at("reading"), self.at(f"reading {path.name}"):
                return real_decode(data, path.suffix)

        with (
            mock.patch.object(Path, "open", opened),
            mock.patch.object(os, "fsync", fsync),
            mock.patch.object(Path, "replace", replaced),
            mock.patch.object(Path, "unlink", unlinked),
            mock.patch.object(Path, "mkdir", made),
            mock.patch.object(deaths.CarefulReader, "decode", decode),
            mock.patch.object(deaths, "read_slice", read),
            mock.patch.object(finisher, "read_slice", read),
        ):
            yield self


class _File:
    """A file whose writes are steps."""

    def __init__(self, file: Any, kind: str, faults: Faults) -> None:
        self._file, self.kind, self._faults = file, kind, faults

    def write(self, data: bytes) -> int:
        if self.kind == "file":
            self.kind = next((kind for start, kind in BEGINNINGS.items() if data.startswith(start)), "file")

        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        with self._faults.at(f"{self.kind} write", half):
            return int(self._file.write(data))

    def truncate(self, size: int) -> int:
        with self._faults.at(f"{self.kind} truncate"):
            return int(self._file.truncate(size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _kind(path: Path) -> str:
    if path.parent.name == ".segport":
        return "file" if path.suffix == ".tmp" else path.name
    if path.name.startswith(("summary", "patients", "ledger")):
        return path.stem
    return path.name if path.name == "run.json" else path.stem.rpartition("_")[2]


def start_child(*arguments: object, fault: dict[str, Any] | None = None, ahead: int = 0) -> "subprocess.Popen[str]":
    """Start seg-infer in a process of its own, with the tiny model unless one is named. `ahead`: READ_AHEAD, or 0."""
    root = Path(__file__).parents[1]
    command = [sys.executable, __file__, json.dumps([fault, ahead])]
    model = ["--model", str(root / "tests/data/tiny.onnx"), "--device", "cpu", "--threads", "1", "--quiet"]
    return subprocess.Popen(
        [*command, *model, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root / "runtime")},
    )


def main() -> int:
    from segport import cli, pipeline

    fault, ahead = json.loads(sys.argv[1])
    pipeline.READ_AHEAD = ahead or pipeline.READ_AHEAD
    with Faults(**(fault or {"step": "none", "act": "exit"})).patched():
        return cli.main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
