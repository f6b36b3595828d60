"""Which slices are handed on together: those of a patient that may be a stack, others one by one."""

from pathlib import Path, PurePath
from typing import Any, cast

from segport.maskrule import MaskRule
from segport.plan import Job
from segport.sources import Slice
from segport.stacks import LONGEST, group_stacks

RULE, SIDE = MaskRule(0.5, 0.1), 64


def job(number: int | None, patient: str = "p") -> Job:
    path = PurePath(patient, f"{number}.png")
    return Job(path.with_suffix(""), patient, Slice(Path(path), path, patient, number), cast(Any, None))


def test_a_folder_too_long_for_a_stack_is_not_listed_whole() -> None:
    asked = 0

    def jobs() -> Any:
        nonlocal asked
        for n in range(10 * LONGEST):
            asked += 1
            yield job(n)

    assert len(next(group_stacks(jobs(), RULE, SIDE))) == 1
    assert asked == LONGEST + 1
    assert [len(stack) for stack in group_stacks((job(n) for n in range(LONGEST)), RULE, SIDE)] == [LONGEST]
    assert {len(stack) for stack in group_stacks(jobs(), MaskRule(0.5, 0.0), SIDE)} == {1}


def test_stacks_end_where_the_patient_does() -> None:
    jobs = [job(n, patient) for patient in ("p", "q") for n in range(9)]
    assert [len(stack) for stack in group_stacks([*jobs, job(None, "r")], RULE, SIDE)] == [9, 9, 1]


def test_a_stack_takes_half_a_gigabyte_at_most() -> None:
    jobs = [job(n) for n in range(18)]
    assert [len(stack) for stack in group_stacks(jobs[:17], RULE, 2048)] == [17]
    assert [len(stack) for stack in group_stacks(jobs, RULE, 2048)] == [1] * 18
