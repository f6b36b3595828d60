"""What a tree of DICOM files holds: series by their headers, all else counted or named."""

import os
import shutil
import time
from pathlib import Path, PurePath

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from dicom_phantoms import enhanced, phantom, save, series, slice_of, uid
from segport.settings import RunSettings
from segport.sources import SliceTree
from segport.volumes.dicom_index import DicomIndex, index_dicom
from segport.volumes.dicom_mark import is_dicom
from segport.volumes.listing import list_volumes


def index(root: Path) -> DicomIndex:
    return index_dicom(root, sorted(p.relative_to(root) for p in root.rglob("*") if is_dicom(p)))


def test_series_are_grouped_by_uid_wherever_their_files_are(tmp_path: Path) -> None:
    one, other = series(phantom()), series(phantom(), SeriesInstanceUID=uid("other"))
    save(tmp_path / "a" / "deep" / "er", [one[0], other[0]], "{}")
    save(tmp_path / "b", [*one[1:], *other[1:]], "IM{:04}.jpg.bak")
    found = index(tmp_path)
    assert sorted(len(s.relatives) for s in found.series) == [5, 5]
    assert {s.uid for s in found.series} == {uid("series"), uid("other")}
    assert (sum(found.ignored.values()), found.broken) == (0, [])


def test_what_is_no_mr_image_is_counted_by_what_it_is(tmp_path: Path) -> None:
    save(tmp_path, series(phantom()))
    for name in ("CT_small.dcm", "test-SR.dcm", "rtplan.dcm"):
        shutil.copy(str(get_testdata_file(name, download=False)), tmp_path)
    folder = Path(str(get_testdata_file("DICOMDIR", download=False)))
    shutil.copy(folder, tmp_path / "DICOMDIR")
    shutil.copy(folder, tmp_path / "renamed")
    save(tmp_path / "ct", series(phantom()[:1], Modality="CT"))
    found = index(tmp_path)
    assert len(found.series) == 1
    assert dict(found.ignored) == {
        "CT Image Storage": 1, "Comprehensive SR Storage": 1, "RT Plan Storage": 1, "DICOMDIR": 2,
        "MR images of another modality": 1,
    }  # fmt: skip
    assert found.broken == []


def test_broken_files_are_listed_with_their_reason(tmp_path: Path) -> None:
    (whole,) = save(tmp_path, series(phantom()[:1]))
    data = whole.read_bytes()
    (tmp_path / "cut").write_bytes(data[:400])
    for at in range(420, 900, 60):  # somewhere among the tags that group files, which are 5 a file
        (tmp_path / f"cut{at}").write_bytes(data[:at])
    (tmp_path / "garbage.dcm").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "empty.dcm").write_bytes(b"")
    (tmp_path / "mark").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 90)
    ds = series(phantom()[:1])[0]
    del ds.StudyInstanceUID
    save(tmp_path, [ds], "no_study")
    ds.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    ds.StudyInstanceUID = uid("study")
    save(tmp_path, [ds], "deflated")
    found = index(tmp_path)
    reasons = {p.name: reason for p, reason in found.broken}
    assert {name for name in reasons if not name.startswith("cut")} == {
        "garbage.dcm",
        "empty.dcm",
        "mark",
        "no_study",
        "deflated",
    }
    assert "StudyInstanceUID" in reasons["no_study"]
    assert "is deflated" in reasons["deflated"]
    assert len(found.series) == 1
    assert found.ignored.total() == 0  # no cut file is taken for something else


def test_files_without_preamble_are_read_if_their_ending_is_of_dicom(tmp_path: Path) -> None:
    raw = pydicom.filebase.DicomBytesIO()
    raw.is_little_endian, raw.is_implicit_VR = True, False
    pydicom.filewriter.write_dataset(raw, pydicom.dcmread(str(get_testdata_file("MR_small.dcm", download=False))))
    for name in ("bare", "bare.DCM", "bare.IMA", "bare.dicom"):
        (tmp_path / name).write_bytes(raw.getvalue())
    assert list_volumes({PurePath(): SliceTree(tmp_path)}, RunSettings()).used == 3
    found = index(tmp_path)
    assert [s.relatives for s in found.series] == [[PurePath(f"bare.{e}") for e in ("DCM", "IMA", "dicom")]]
    assert (found.ignored.total(), found.broken) == (0, [])


def test_a_file_is_dicom_by_its_mark_or_its_ending(tmp_path: Path) -> None:
    for name, data in (("notes.txt", b"x" * 500), ("empty", b""), ("short", b"DICM"), ("IM1", b"\0" * 128 + b"DICM")):
        (tmp_path / name).write_bytes(data)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    assert [p.name for p in tmp_path.iterdir() if is_dicom(p)] == ["IM1"]
    assert not is_dicom(tmp_path / "missing")


def test_parameters_come_from_classic_and_enhanced_headers(tmp_path: Path) -> None:
    ds = enhanced(phantom())
    for keyword in ("EchoTime", "RepetitionTime", "InversionTime"):
        delattr(ds, keyword)
    shared = ds.SharedFunctionalGroupsSequence[0]
    for group, keyword, found in (
        ("MREchoSequence", "EffectiveEchoTime", 110.0),
        ("MRTimingAndRelatedParametersSequence", "RepetitionTime", 8000.0),
        ("MRModifierSequence", "InversionTimes", 2400.0),
    ):
        setattr(shared, group, [pydicom.Dataset()])
        setattr(getattr(shared, group)[0], keyword, found)
    save(tmp_path / "e", [ds])
    save(tmp_path / "c", series(phantom(), SeriesInstanceUID=uid("classic")))
    times = [s.parameters[2:5] for s in index(tmp_path).series]
    assert times == [(120, 9000, 2500), (110, 8000, 2400)]


def test_many_files_take_little_time_each(tmp_path: Path) -> None:
    save(tmp_path, [slice_of(np.zeros((256, 256), np.uint16), (0, 0, k), k) for k in range(200)])
    begin = time.perf_counter()
    assert len(index(tmp_path).series[0].relatives) == 200
    assert time.perf_counter() - begin < 200 * 0.05  # 1 ms each when nothing else runs


@pytest.mark.parametrize("name", ["pipe.dcm", "folder.dcm"])
def test_what_is_no_regular_file_is_refused(tmp_path: Path, name: str) -> None:
    if name == "pipe.dcm":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).mkdir()
    found = index_dicom(tmp_path, [PurePath(name)])
    assert [reason for _, reason in found.broken] == ["is not a regular file"]
