"""What a run will do: which slices it reads, and where each mask goes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from segport.errors import OutputError, UsageError
from segport.settings import RunSettings
from segport.sources import Slice, list_slices

MASK, OVERLAY, PROBABILITY = "_mask.png", "_overlay.png", "_probability.png"


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
    """The jobs of a run in natural order, its output folder, and how many files are no slices."""

    jobs: list[Job]
    out: Path
    ignored: int


def plan_run(inputs: Sequence[Path], out: Path | None, settings: RunSettings) -> Plan:
    """Return what a run over `inputs` (folders or single files) would do; nothing is written.

    The tree is mirrored below `out`, by default `<input>-masks` beside the one input; several inputs each go under
    their own name. Two slices whose masks would share a name (`a.tif`, `a.png`) both keep their ending.
    Raises `UsageError` (no slice, folders inside one another, several inputs without `out`) and `OutputError`
    when masks are there already and `settings.overwrite` is off.
    """
    if len(inputs) > 1 and out is None:
        raise UsageError("several inputs need --out, so that each gets a folder of its own name there")
    twice = [name for name, n in Counter(_own_name(i) for i in inputs).items() if n > 1]
    if twice:
        raise UsageError(f"two inputs are named {twice[0]}; rename one, or run them one after the other")
    out = out or _beside(inputs[0])
    jobs: list[Job] = []
    ignored = 0
    for root in inputs:
        _refuse_nested(root, out)
        listing = list_slices(root, masks=settings.masks, patient_pattern=settings.patient_pattern, exclude=out)
        prefix = PurePath(_own_name(root)) if len(inputs) > 1 else PurePath()
        jobs += _name_outputs(listing.slices, prefix)
        ignored += listing.ignored
    if not jobs:
        raise UsageError(f"{', '.join(map(str, inputs))}: found no slice; expected .tif, .png, .jpg or .bmp files")
    plan = Plan(jobs, out, ignored)
    there = [j for j in jobs if j.target(out, MASK).exists()]
    if there and not settings.overwrite:
        raise OutputError(
            f"{out}: already holds {len(there)} of the {len(jobs)} masks, such as {there[0].target(out, MASK).name};"
            " remedy: --overwrite to replace them, or another --out"
        )
    return plan


def _name_outputs(slices: Sequence[Slice], prefix: PurePath) -> list[Job]:
    """Return jobs whose outputs never share a name, also where the file system ignores case."""
    stems = Counter(str(s.relative.with_suffix("")).casefold() for s in slices)
    return [
        Job(s, prefix / (s.relative if stems[str(s.relative.with_suffix("")).casefold()] > 1 else _stem(s)))
        for s in slices
    ]


def _stem(item: Slice) -> PurePath:
    return item.relative.with_suffix("")


def _own_name(path: Path) -> str:
    resolved = path.resolve()
    return resolved.stem if resolved.is_file() else resolved.name


def _beside(path: Path) -> Path:
    return path.resolve().parent / f"{_own_name(path)}-masks"


def _refuse_nested(root: Path, out: Path) -> None:
    """Masks beside the slices could replace true masks of the same name."""
    folder, target = root.resolve(), out.resolve()
    if target == folder or (folder.is_dir() and target in folder.parents):
        raise UsageError(f"--out {out} is or contains the input {root}; choose a folder beside it")
