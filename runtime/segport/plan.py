"""What a run will do: which slices it reads, and where each mask goes."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from segport.errors import UsageError
from segport.folders import LEDGER, MASK_FOLDERS, Folder, fold, typed_path, unlike_names
from segport.settings import RunSettings
from segport.sources import Slice, SliceTree
from segport.volumes.listing import VolumeListing, list_volumes
from segport.work import Work

MASK, OVERLAY, PROBABILITY, HEAT = "_mask.png", "_overlay.png", "_probability.png", "_heat.png"
SUMMARY, PATIENTS, RUN = "summary.csv", "patients.csv", "run.json"


@dataclass(frozen=True, slots=True)
class Job(Work):
    """One slice and its outputs. `tree`: its input."""

    slice: Slice
    tree: SliceTree

    @property
    def source(self) -> str:
        """The slice's absolute path, links not followed."""
        return str(typed_path(self.slice.path))

    @property
    def shown(self) -> str:
        """The slice's path as the user wrote it."""
        return str(self.slice.path)

    @property
    def truth(self) -> Path | None:
        """The file of its true mask."""
        return self.slice.mask

    @property
    def row_path(self) -> str:
        """The slice's path as the tables have it."""
        return self.stem.with_name(self.slice.relative.name).as_posix()

    def endings(self, settings: RunSettings) -> list[str]:
        """Return the endings of the outputs that a run writes; the mask's is the last."""
        chosen = ((settings.overlay, OVERLAY), (settings.probabilities, PROBABILITY))
        heat = ((settings.overlay and settings.probabilities, HEAT),)
        return [ending for wanted, ending in (*chosen, *heat, (True, MASK)) if wanted]


@dataclass(frozen=True, slots=True)
class PlannedFolder:
    """One folder of an input, its jobs in natural order, `slices` of them.

    `others`: how many of its files are neither slices nor masks. `readable`: whether it could be listed.
    """

    path: Path
    slices: int
    jobs: Iterator[Job]
    others: int
    readable: bool


@dataclass(frozen=True)
class Plan:
    """The inputs of a run, and its output folder. `trees`: by the folder below `out` that mirrors each.

    `volumes`: its NIfTI files and DICOM series; slices are listed while the run goes on.
    """

    out: Path
    trees: dict[PurePath, SliceTree]
    paired: bool
    volumes: VolumeListing

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs: a later run over others must not replace these results."""
        return [_own_name(tree.root) for tree in self.trees.values()]

    @property
    def roots(self) -> list[str]:
        """Absolute paths of the inputs, links not followed: a report can be made later."""
        return [str(typed_path(tree.root)) for tree in self.trees.values()]

    def folders(self) -> Iterator[PlannedFolder]:
        """Yield what there is to do, folder by folder, while the tree is being listed."""
        for prefix, tree in self.trees.items():
            for folder in tree.folders():
                jobs = self._jobs(prefix, tree, folder)
                yield PlannedFolder(
                    tree.base / folder.relative, len(folder.names), jobs, len(folder.others), folder.readable
                )

    def _jobs(self, prefix: PurePath, tree: SliceTree, folder: Folder) -> Iterator[Job]:
        stems = _name_outputs(folder.names)
        for item, stem in zip(tree.slices(folder, paired=self.paired), stems, strict=True):
            patient = item.patient if prefix == PurePath() else f"{prefix}/{item.patient}"
            yield Job(prefix / folder.mirror / stem, patient, item, tree)


def plan_run(inputs: Sequence[Path], out: Path | None, settings: RunSettings) -> Plan:
    """Return what a run over `inputs` (folders or single files) would do; nothing is written, no slice listed yet.

    The tree is mirrored below `out`, by default `<input>-masks` beside the one input; several inputs each go under
    their own name, which also comes before their patients' names. Raises `UsageError`: several inputs without `out` or
    of one name, no slice, an output that is or holds an input, or that is a folder of true masks.
    """
    if len(inputs) > 1 and out is None:
        raise UsageError("several inputs need --out, so that each gets a folder of its own name there")
    if len(inputs) > 1 and settings.masks is not None:
        raise UsageError("--masks mirrors one input; run several inputs one after the other")
    twice = [name for name, n in Counter(fold(_own_name(i)) for i in inputs).items() if n > 1]
    if twice:
        raise UsageError(f"two inputs are named {twice[0]}; rename one, or run them one after the other")
    out = out or _beside(inputs[0])
    trees = {}
    for root in inputs:
        prefix = PurePath(_own_name(root)) if len(inputs) > 1 else PurePath()
        trees[prefix] = SliceTree(root, masks=settings.masks, patient_pattern=settings.patient_pattern, exclude=out)
        _refuse_nested(root, out)
    _refuse_masks(out, settings)
    plan = Plan(out, trees, paired=settings.score, volumes=list_volumes(trees, settings))
    jobs = (job for folder in plan.folders() for job in folder.jobs)
    slices = next(jobs, None) is not None
    if settings.patient_pattern is not None:
        deque(jobs, 0)  # a name that the pattern does not fit is better found before the first slice
    if (settings.asks_for_volumes or not slices) and not plan.volumes.jobs:
        why = "; ".join(why for _, why in plan.volumes.problems) or (
            "found no volume; these options need one"
            if slices
            else "found no slice and no volume; expected .tif, .png, .jpg, .bmp, .nii or .nii.gz files, or DICOM series"
        )
        raise UsageError(f"{', '.join(map(str, inputs))}: {why}")
    if settings.masks is not None and plan.volumes.jobs:
        raise UsageError(
            "--masks is for slices; true masks of volumes lie beside them; remedy: run volumes by themselves"
        )
    return plan


def _name_outputs(names: Sequence[str]) -> Iterator[str]:
    """Yield the stem of the outputs of each slice of one folder, all different where case or normal form is ignored.

    The slice's stem; where two slices would share one, their names with ending (`a.tif`, `a.png`); where those are
    the same but for case or Unicode normal form, the later ones get ~2, ~3 behind.
    """
    shared = _repeated(PurePath(n).stem for n in names)
    if not _repeated(n if fold(PurePath(n).stem) in shared else PurePath(n).stem for n in names):
        yield from (n if fold(PurePath(n).stem) in shared else PurePath(n).stem for n in names)
        return
    yield from unlike_names(names)


def _repeated(names: Iterable[str]) -> frozenset[str]:
    """Return, folded, the names that occur more than once; by hashes, since a folder may hold 100,000."""
    seen, again = set[int](), set[str]()
    for name in map(fold, names):
        if hash(name) in seen:
            again.add(name)
        seen.add(hash(name))
    return frozenset(again)


def _own_name(path: Path) -> str:
    name = typed_path(path).name
    return PurePath(name.removesuffix(".gz")).stem if path.is_file() else name


def _beside(path: Path) -> Path:
    return typed_path(path).parent / f"{_own_name(path)}-masks"


def _refuse_nested(root: Path, out: Path) -> None:
    folder, target = root.resolve(), out.resolve()
    if folder.is_file():
        folder = folder.parent
    if target == folder or (root.is_dir() and target in folder.parents):
        raise UsageError(f"--out {out} is or contains the input {root}; choose a folder beside it")


def _refuse_masks(out: Path, settings: RunSettings) -> None:
    """Raise for an output folder that holds true masks: no option may replace those."""
    if settings.masks is not None and settings.masks.resolve() in (out.resolve(), *out.resolve().parents):
        raise UsageError(f"--out {out} is in --masks {settings.masks}; choose another folder")
    if out.name.casefold() in MASK_FOLDERS and out.is_dir() and any(out.iterdir()) and not (out / LEDGER).exists():
        raise UsageError(
            f"--out {out}: a folder of that name holds true masks, no run of seg-infer made it; choose another folder"
        )
