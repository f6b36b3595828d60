"""Which volumes the inputs of a run hold: NIfTI files by their names, DICOM series by their headers."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from segport.errors import UsageError
from segport.settings import RunSettings
from segport.volumes.case import Case
from segport.volumes.dicom_mark import is_dicom
from segport.volumes.job import VolumeJob

if TYPE_CHECKING:
    from segport.sources import SliceTree

NIFTI = (".nii", ".nii.gz")
LACKING = "{count} {kind} need the extra medical ({name} is missing); remedy: pip install 'segport[medical]'"


@dataclass
class VolumeListing:
    """The volumes of all inputs. `problems`: what could not be read while listing, and why.

    `used`: how many files belong to them, truth included. `skipped`: how many DICOM files are none of them, by reason.
    """

    jobs: list[VolumeJob] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    used: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


def list_volumes(trees: Mapping[PurePath, "SliceTree"], settings: RunSettings) -> VolumeListing:
    """List the volumes of the inputs, each below the folder that mirrors it.

    Where a package is missing that a kind of volume needs, that is a problem, and the rest is listed. Raises
    `UsageError` where `settings.channel` or `settings.series` do not fit what is there.
    """
    listing = VolumeListing()
    wanted = {"NIfTI files": settings.channel, "DICOM files": settings.series}
    for prefix, tree in trees.items():
        others = [folder.relative / name for folder in tree.folders() for name in folder.others]
        nifti = [path for path in others if path.name.lower().endswith(NIFTI)]
        dicom = [path for path in others if not path.name.lower().endswith(NIFTI) and is_dicom(tree.base / path)]
        for kind, add, found in (("NIfTI files", _add_nifti, nifti), ("DICOM files", _add_dicom, dicom)):
            if found:
                wanted.pop(kind, None)
                try:
                    add(listing, prefix, tree.base, found, settings)
                except ModuleNotFoundError as error:
                    why = LACKING.format(count=len(found), kind=kind, name=error.name)
                    listing.problems.append((str(tree.root), why))
    for kind, options in wanted.items():
        if options:
            raise UsageError(f"{options[0]}: chooses among {kind}, and there are none")
    return listing


def _add_nifti(
    listing: VolumeListing, prefix: PurePath, base: Path, found: list[PurePath], settings: RunSettings
) -> None:
    from segport.volumes.nifti_cases import find_nifti_cases
    from segport.volumes.nifti_channels import parse_channels

    cases = find_nifti_cases(base, found, parse_channels(settings.channel) if settings.channel else None)
    listing.used += len(found) - cases.ignored
    listing.jobs += _jobs(prefix, cases.cases)


def _add_dicom(
    listing: VolumeListing, prefix: PurePath, base: Path, found: list[PurePath], settings: RunSettings
) -> None:
    import highdicom  # noqa: F401  (what writes masks is missing before anything is read)

    from segport.volumes.dicom_cases import find_dicom_cases

    cases = find_dicom_cases(
        base,
        found,
        series=settings.series,
        keep_identity=settings.keep_identity,
        format="nii" if settings.volume_format == "nii" else "dcm",
    )
    listing.problems += cases.problems
    listing.skipped += cases.ignored
    listing.used += len(found) - cases.ignored.total()
    listing.jobs += _jobs(prefix, cases.cases)


def _jobs(prefix: PurePath, cases: Sequence[Case]) -> Iterator[VolumeJob]:
    for case in cases:
        name = case.name if prefix == PurePath() else f"{prefix}/{case.name}"
        yield VolumeJob(prefix / case.stem, name, case)
