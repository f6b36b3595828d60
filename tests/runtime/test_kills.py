"""Processes that end by force, or are asked to: what they leave is whole, and the next run completes it."""

import os
import random
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from faults import start_child
from helpers import rows
from trees import check_whole, contents, write_slices

OPTIONS = ("--overlay", "--score", "--batch-size", "2")
SMALL = 1  # bytes of READ_AHEAD: reading goes on through the whole run
KILLS = int(os.environ.get("SEGPORT_KILLS", "50"))  # `make soak` takes more
WORKERS, MOST_OF_ONE_TREE = 2, 13
# where a process ends itself: step, when, at which time; "half" leaves a torn write
STEPS: list[tuple[str, str, int]] = [
    ("mask rename", "after", 2),
    ("ledger write", "half", 4),
    ("mask rename", "before", 7),
    ("picture write", "half", 13),
    ("ledger fsync", "after", 5),
    ("reading", "before", 21),
    ("overlay rename", "after", 6),
    ("at-work write", "half", 33),
    ("ledger write", "before", 3),
    ("picture fsync", "before", 14),
    ("summary write", "after", 5),
    ("file open", "before", 15),
    ("mkdir", "after", 3),
    ("sheet rename", "before", 1),
    ("sheet rename", "after", 1),
]


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Return a folder of slices, one patient of 16 bits and one slice truncated, and how many have a mask."""
    folder = tmp_path_factory.mktemp("slices") / "in"
    number = write_slices(folder, 16)
    broken = folder / "p1/p1_9.png"
    broken.write_bytes(broken.read_bytes()[:99])
    return folder, number - 1


@pytest.fixture(scope="module")
def undisturbed(slices: tuple[Path, int], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert finish(start_child(slices[0], "--out", out, *OPTIONS)) == 1
    assert check_whole(out) == slices[1]
    return contents(out)


def finish(child: "subprocess.Popen[str]") -> int:
    child.communicate(timeout=120)
    return child.returncode


def count_masks(out: Path) -> int:
    return sum(1 for _ in out.glob("*/*_mask.png"))


def wait_for_masks(child: "subprocess.Popen[str]", out: Path, number: int) -> None:
    while child.poll() is None and count_masks(out) < number:
        time.sleep(0.002)


def start_to_be_killed(turn: int, folder: Path, out: Path) -> "subprocess.Popen[str]":
    """Start a run that ends itself at a step, or, every fourth time, kill one from outside at any moment."""
    if turn % 4 != 3:
        step, when, nth = STEPS[(turn - turn // 4) % len(STEPS)]
        fault = {"step": step, "act": "kill", "when": when, "nth": nth}
        return start_child(folder, "--out", out, *OPTIONS, fault=fault, ahead=SMALL)
    chance = random.Random(turn)
    before = count_masks(out)
    child = start_child(folder, "--out", out, *OPTIONS, ahead=chance.choice([0, SMALL]))
    wait_for_masks(child, out, before + chance.randint(1, 4))
    time.sleep(chance.uniform(0, 0.02))
    child.kill()
    return child


def test_fifty_kills_leave_whole_masks_and_the_last_run_completes_them(
    slices: tuple[Path, int], undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    folder, number = slices

    def check_complete(out: Path) -> None:
        assert check_whole(out) == number
        assert contents(out) == undisturbed
        assert [file.name for file in (out / ".segport").iterdir()] == ["lock"]

    def work(worker: int) -> list[tuple[int, int]]:
        """Return the turns that ended with a kill, and how many masks there were then."""
        kills: list[tuple[int, int]] = []
        tree = 0
        turn = worker * (KILLS // WORKERS + 5)
        while len(kills) < KILLS // WORKERS:
            out = tmp_path / f"{worker}_{tree}" / "out"
            for _ in range(min(MOST_OF_ONE_TREE, KILLS // WORKERS - len(kills))):
                ended = finish(start_to_be_killed(turn, folder, out))
                turn += 1
                if ended == 1:  # it came to the end before
                    break
                assert ended == -signal.SIGKILL
                kills.append((turn - 1, check_whole(out)))
            assert finish(start_child(folder, "--out", out, *OPTIONS)) == 1
            check_complete(out)
            tree += 1
        return kills

    with ThreadPoolExecutor(WORKERS) as pool:
        kills = [kill for found in pool.map(work, range(WORKERS)) for kill in found]
    assert len(kills) >= KILLS
    assert sum(0 < masks < number for _, masks in kills) >= 40
    struck = {(turn - turn // 4) % len(STEPS) for turn, _ in kills if turn % 4 != 3}
    assert struck == set(range(len(STEPS))), "a step was never come to"


def start_and_wait(folder: Path, out: Path) -> "subprocess.Popen[str]":
    child = start_child(folder, "--out", out, *OPTIONS, ahead=SMALL)
    wait_for_masks(child, out, 3)
    return child


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_end_finishes_what_is_under_way(
    slices: tuple[Path, int], undisturbed: dict[str, bytes], tmp_path: Path, number: signal.Signals
) -> None:
    folder, out = slices[0], tmp_path / "out"
    child = start_and_wait(folder, out)
    child.send_signal(number)
    said = child.communicate(timeout=60)[1]
    assert child.returncode == 130
    assert "interrupted; what was written is whole; run it again to go on" in said.splitlines()[-1]
    masks = check_whole(out)
    assert 3 <= masks < slices[1]
    assert sum(row["status"] == "written" for row in rows(out)) == masks
    assert [file.name for file in (out / ".segport").iterdir()] == ["lock"]
    assert infer_again(folder, out) == undisturbed


def test_a_second_interrupt_ends_a_run_that_does_not_end(
    slices: tuple[Path, int], undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    folder, out = slices[0], tmp_path / "out"
    child = start_and_wait(folder, out)
    child.send_signal(signal.SIGINT)
    time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    said = child.communicate(timeout=60)[1]
    assert child.returncode == 130
    assert "interrupted; what was written is whole; run it again to go on" in said
    assert "Traceback" not in said
    assert 3 <= check_whole(out) < slices[1]
    assert infer_again(folder, out) == undisturbed


def infer_again(folder: Path, out: Path) -> dict[str, bytes]:
    assert finish(start_child(folder, "--out", out, *OPTIONS)) == 1
    check_whole(out)
    return contents(out)
