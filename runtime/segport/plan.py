"""What a run will do: which slices it reads, and where each mask goes."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from segport.errors import OutputError, UsageError
from segport.settings import RunSettings
from segport.sources import Slice, list_slices

MASK, OVERLAY, PROBABILITY = "_mask.png", "_overlay.png", "_probability.png"
SUMMARY, RUN = "summary.csv", "run.json"


@dataclass(frozen=True)
class Job:
    """One slice and its outputs. `stem`: their path below the output folder, without ending."""

    slice: Slice
    stem: PurePath

    def target(self, out: Path, ending: str) -> Path:
        """Return the path of one output (MASK, OVERLAY or PROBABILITY)."""
        return out / self.stem.with_name(self.stem.name + ending)


@dataclass(frozen=True)
class Plan:
    """The jobs of a run in natural order, and its output folder.

    `unreadable`: folders that cannot be listed. `ignored`: how many files are neither slices nor masks.
    """

    jobs: list[Job]
    out: Path
    unreadable: list[Path]
    ignored: int


def plan_run(inputs: Sequence[Path], out: Path | None, settings: RunSettings) -> Plan:
    """Return what a run over `inputs` (folders or single files) would do; nothing is written.

    The tree is mirrored below `out`, by default `<input>-masks` beside the one input; several inputs each go under
    their own name, which also comes before their patients' names. Two slices whose outputs would share a name
    (`a.tif`, `a.png`) keep their ending. Raises `UsageError` (no slice, an output that is or holds an input or its
    masks, several inputs without `out`) and `OutputError` when a file is there that the run would write and
    `settings.overwrite` is off.
    """
    if len(inputs) > 1 and out is None:
        raise UsageError("several inputs need --out, so that each gets a folder of its own name there")
    if len(inputs) > 1 and settings.masks is not None:
        raise UsageError("--masks mirrors one input; run several inputs one after the other")
    twice = [name for name, n in Counter(_own_name(i).casefold() for i in inputs).items() if n > 1]
    if twice:
        raise UsageError(f"two inputs are named {twice[0]}; rename one, or run them one after the other")
    out = out or _beside(inputs[0])
    plan = Plan([], out, [], 0)
    for root in inputs:
        _refuse_nested(root, out)
        listing = list_slices(root, masks=settings.masks, patient_pattern=settings.patient_pattern, exclude=out)
        slices, prefix = listing.slices, PurePath()
        if len(inputs) > 1:
            prefix = PurePath(_own_name(root))
            slices = [replace(s, patient=f"{prefix}/{s.patient}") for s in slices]
        jobs = [*plan.jobs, *_name_outputs(slices, prefix)]
        plan = Plan(jobs, out, plan.unreadable + listing.unreadable, plan.ignored + listing.ignored)
    if not plan.jobs:
        raise UsageError(f"{', '.join(map(str, inputs))}: found no slice; expected .tif, .png, .jpg or .bmp files")
    _refuse_replacing(plan, settings)
    return plan


def _name_outputs(slices: Sequence[Slice], prefix: PurePath) -> list[Job]:
    """Return jobs whose outputs never share a name, also where the file system ignores case."""
    stems = Counter(str(s.relative.with_suffix("")).casefold() for s in slices)
    shared = {s.relative for s in slices if stems[str(s.relative.with_suffix("")).casefold()] > 1}
    jobs = [Job(s, prefix / (s.relative if s.relative in shared else s.relative.with_suffix(""))) for s in slices]
    if len({str(j.stem).casefold() for j in jobs}) < len(jobs):  # such as a.png, a.tif and a.png.tif
        jobs = [Job(s, prefix / s.relative) for s in slices]
    if len({str(j.stem).casefold() for j in jobs}) < len(jobs):
        raise UsageError("two slices differ only in the case of their names; rename one")
    return jobs


def _own_name(path: Path) -> str:
    return _typed(path).stem if path.is_file() else _typed(path).name


def _beside(path: Path) -> Path:
    return _typed(path).parent / f"{_own_name(path)}-masks"


def _typed(path: Path) -> Path:
    """Return the path made absolute as the user wrote it: masks of a linked folder go beside the link."""
    return Path(os.path.abspath(path))  # noqa: PTH100  (resolve() would follow the link)


def _refuse_nested(root: Path, out: Path) -> None:
    folder, target = root.resolve(), out.resolve()
    if folder.is_file():
        folder = folder.parent
    if target == folder or (root.is_dir() and target in folder.parents):
        raise UsageError(f"--out {out} is or contains the input {root}; choose a folder beside it")


def _refuse_replacing(plan: Plan, settings: RunSettings) -> None:
    """Raise unless every target is free, or an earlier run's and may be replaced; inputs never are."""
    sources = {p.resolve() for j in plan.jobs for p in (j.slice.path, j.slice.mask) if p is not None}
    targets = [plan.out / SUMMARY, plan.out / RUN]
    targets += [j.target(plan.out, ending) for j in plan.jobs for ending in (MASK, OVERLAY, PROBABILITY)]
    there = [t for t in targets if t.exists()]
    own = [t for t in there if t.resolve() in sources]
    if own:
        raise UsageError(f"--out {plan.out}: {own[0].name} there is an input of this run; choose another folder")
    foreign = [] if (plan.out / RUN).exists() else there
    if foreign:
        raise OutputError(
            f"{plan.out}: holds {len(foreign)} files that this run would replace, such as {foreign[-1].name}, and that"
            f" no run of seg-infer left there (there is no {RUN}); remedy: another --out"
        )
    if there and not settings.overwrite:
        raise OutputError(
            f"{plan.out}: already holds {len(there)} files that this run would write, such as {there[-1].name};"
            " remedy: --overwrite to replace them, or another --out"
        )
