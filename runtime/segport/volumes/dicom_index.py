"""Which series a tree holds: DICOM files of any name and depth, grouped by what their headers say."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import NamedTuple

from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    MediaStorageDirectoryStorage,
    MRImageStorage,
)

from segport.errors import SliceError
from segport.volumes.dicom_files import SeriesFiles, first_item, items, numbers, quiet, read_header, text

ENHANCED = (EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)
MR_IMAGES = (MRImageStorage, *ENHANCED)
IDENTITY = ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "OtherPatientIDs")
_TAGS = (
    "SOPClassUID", "Modality", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription",
    "ProtocolName", "SequenceName", "PulseSequenceName", "ImageType", "ScanningSequence", "SequenceVariant", "EchoTime",
    "RepetitionTime", "InversionTime", "ContrastBolusAgent", "ContrastBolusAgentSequence", "FrameOfReferenceUID",
    "SharedFunctionalGroupsSequence", *IDENTITY,
)  # fmt: skip


class Parameters(NamedTuple):
    """How a series was measured, as far as its first file says; times in ms, None where it does not."""

    scanning_sequence: str
    sequence_variant: str
    echo_time: float | None
    repetition_time: float | None
    inversion_time: float | None
    contrast: bool


@dataclass
class Series:
    """One series of MR pictures. All but `relatives`, the paths of its files, is from its first file.

    `number`: None where it has none. `words`: description, protocol and name of the sequence. `identity`: values that
    no message may show.
    """

    uid: str
    study: str
    number: int | None
    description: str
    words: str
    image_type: tuple[str, ...]
    parameters: Parameters
    frame_of_reference: str
    patient_id: str
    identity: tuple[str, ...]
    relatives: list[PurePath] = field(default_factory=list)

    def files(self, root: Path, *, named: bool) -> SeriesFiles:
        """Return its files below `root`, in the order of their paths."""
        return SeriesFiles([root / r for r in sorted(self.relatives)], named)


@dataclass(frozen=True)
class DicomIndex:
    """What was found: series in the order of their first files, files that are none of them by reason, broken files.

    `broken`: path below the root, and why it cannot be used.
    """

    series: list[Series]
    ignored: Counter[str]
    broken: list[tuple[PurePath, str]]


def index_dicom(root: Path, relatives: Iterable[PurePath]) -> DicomIndex:
    """Read the headers of files below `root` that `is_dicom` takes for DICOM, and group them, without the pixels.

    A few values are kept of each series, of each file its path. Taken are MR images, classic and enhanced; all else is
    counted as ignored.
    """
    found: dict[tuple[str, str], Series] = {}
    ignored: Counter[str] = Counter()
    broken: list[tuple[PurePath, str]] = []
    with quiet():
        for relative in relatives:
            try:
                reason = _add(found, root, relative)
            except SliceError as error:
                broken.append((relative, str(error)))
            else:
                if reason:
                    ignored[reason] += 1
    return DicomIndex(list(found.values()), ignored, broken)


def _add(found: dict[tuple[str, str], Series], root: Path, relative: PurePath) -> str:
    """Put a file to its series; return why it is ignored, if it is. Raises `SliceError`."""
    if relative.name.upper() == "DICOMDIR":
        return "DICOMDIR"
    header = read_header(root / relative, _TAGS)
    other = _is_other(header)
    if other:
        return other
    uid, study = text(header, "SeriesInstanceUID"), text(header, "StudyInstanceUID")
    if not uid or not study:
        raise SliceError(f"has no {'Study' if uid else 'Series'}InstanceUID; it is truncated or damaged; copy it again")
    if (study, uid) not in found:
        found[study, uid] = _series(uid, study, header)
    found[study, uid].relatives.append(relative)
    return ""


def _is_other(header: FileDataset) -> str:
    """Return what a file is, if it is no MR image; raises `SliceError` where it does not say."""
    kind, promised = text(header, "SOPClassUID"), text(header.file_meta, "MediaStorageSOPClassUID")
    if promised == MediaStorageDirectoryStorage:
        return "DICOMDIR"
    if not kind or promised not in ("", kind):
        raise SliceError(f"has no SOPClassUID{' as promised' if kind else ''}: it is no DICOM, truncated or damaged")
    if kind not in MR_IMAGES:
        name = UID(kind).name
        return name if name != kind else "unknown DICOM objects"
    modality = text(header, "Modality")
    if not modality:
        raise SliceError("has no Modality; it is truncated or damaged; copy it again")
    return "" if modality == "MR" else "MR images of another modality"


def _series(uid: str, study: str, header: Dataset) -> Series:
    number = [int(n) for n in numbers(header, "SeriesNumber") if math.isfinite(n)]
    words = (text(header, k) for k in ("SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName"))
    return Series(
        uid, study, number[0] if number else None, text(header, "SeriesDescription"), " ".join(filter(None, words)),
        tuple(text(header, "ImageType").upper().split("\\")), _parameters(header), text(header, "FrameOfReferenceUID"),
        text(header, "PatientID"), tuple(filter(None, (text(header, k) for k in IDENTITY))),
    )  # fmt: skip


def _parameters(header: Dataset) -> Parameters:
    """Return the parameters, of enhanced series from the groups that all frames share."""
    shared = first_item(header, "SharedFunctionalGroupsSequence")
    timing = first_item(shared, "MRTimingAndRelatedParametersSequence")
    agent = text(header, "ContrastBolusAgent").strip().casefold()
    return Parameters(
        text(header, "ScanningSequence"),
        text(header, "SequenceVariant"),
        _time(header, "EchoTime") or _time(first_item(shared, "MREchoSequence"), "EffectiveEchoTime"),
        _time(header, "RepetitionTime") or _time(timing, "RepetitionTime"),
        _time(header, "InversionTime") or _time(first_item(shared, "MRModifierSequence"), "InversionTimes"),
        agent not in ("", "no", "none", "n", "0") or bool(items(header, "ContrastBolusAgentSequence")),
    )


def _time(item: Dataset, keyword: str) -> float | None:
    found = numbers(item, keyword)
    return found[0] if found else None
