"""Gives broken pictures to child processes and says what became of each.

From the repository: `PYTHONPATH=tests python -m fuzz.harness --cases 20000`, or one case: `... --case tif-lzw 17`
(`--keep FILE` writes it).
"""

import argparse
import collections
import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fuzz.mutate import FORMATS, make

READER = "segport.reading:read_slice"
PATIENCE = 20.0  # seconds a case may take
GIVE_UP = 5  # failures among the cases that one process is to read
TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Outcome:
    """`verdict`: read, refused or failed; `why`: the refusal's message, or what went wrong."""

    case: str
    seed: int
    verdict: str
    why: str

    def __str__(self) -> str:
        again = f"PYTHONPATH=tests python -m fuzz.harness --case {self.case} {self.seed}"
        return f"{self.case} {self.seed}: {self.verdict}: {self.why}\n    again: {again}"


class Child:
    """A process that reads one picture after the other; a dead or silent one is known by its case."""

    def __init__(self, reader: str, folder: Path, noise: Path) -> None:
        paths = [str(TESTS), *filter(None, sys.path)]
        self._noise = noise.open("a")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fuzz.child", reader, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._noise, text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def ask(self, case: str, seed: int, patience: float) -> tuple[str, str]:
        try:
            self._process.stdin.write(f"{case} {seed}\n")
            self._process.stdin.flush()
            answer = self._answers.get(timeout=patience)
        except queue.Empty:
            return "failed", f"no answer after {patience:g} seconds"
        except BrokenPipeError:
            answer = ""
        return tuple(json.loads(answer)) if answer else ("failed", f"the process died ({self._process.wait()})")

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._noise):
            pipe.close()


def run_cases(
    cases: Iterable[tuple[str, int]],
    *,
    reader: str = READER,
    patience: float = PATIENCE,
    noise: Path = Path(os.devnull),
) -> list[Outcome]:
    """Return the outcome of each (format, seed), up to `GIVE_UP` failures; a new process follows each failure."""
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        child = None
        for case, seed in cases:
            child = child or Child(reader, Path(folder), noise)
            outcome = Outcome(case, seed, *child.ask(case, seed, patience))
            outcomes.append(outcome)
            if outcome.verdict == "failed":
                child.end()
                child = None
                if sum(o.verdict == "failed" for o in outcomes) == GIVE_UP:
                    break
        if child:
            child.end()
    return outcomes


def run_all(per_format: int, *, workers: int = 2, noise: Path = Path(os.devnull)) -> list[Outcome]:
    with ThreadPoolExecutor(workers) as pool:
        shares = [[(name, seed) for seed in range(per_format)] for name in FORMATS]
        return [o for part in pool.map(lambda share: run_cases(share, noise=noise), shares) for o in part]


def summarise(outcomes: list[Outcome]) -> str:
    """Return how many were read and refused, by format and by reason."""
    lines = []
    for name in FORMATS:
        counts = collections.Counter(o.verdict for o in outcomes if o.case == name)
        lines.append(f"{name:16} " + "  ".join(f"{v} {counts[v]:6}" for v in ("read", "refused", "failed")))
    reasons = collections.Counter(
        re.sub(r"b'.*?'|b\".*?\"|\d[\d,]*", "_", o.why) for o in outcomes if o.verdict == "refused"
    )
    lines += [f"{count:6}  {reason}" for reason, count in reasons.most_common()]
    counts = collections.Counter(o.verdict for o in outcomes)
    return "\n".join([*lines, f"{len(outcomes)} cases: {dict(counts)}"])


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Read broken pictures; exit 1 if one is neither read nor refused.")
    parser.add_argument("--cases", type=int, default=20_000, help="of all formats together")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--case", nargs=2, metavar=("FORMAT", "SEED"), help="this one alone")
    parser.add_argument("--keep", type=Path, help="write the file of --case")
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        noise = Path(folder) / "stderr"
        if arguments.case:
            name, seed = arguments.case[0], int(arguments.case[1])
            if arguments.keep:
                arguments.keep.write_bytes(make(name, seed))
            outcomes = run_cases([(name, seed)], noise=noise)
            print(outcomes[0])
        else:
            outcomes = run_all(-(-arguments.cases // len(FORMATS)), workers=arguments.workers, noise=noise)
            print(summarise(outcomes))
            print(*[o for o in outcomes if o.verdict == "failed"], sep="\n")
        for line, count in collections.Counter(noise.read_text().splitlines()).most_common(20):
            print(f"stderr, {count} times: {line}")
    return int(any(o.verdict == "failed" for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
