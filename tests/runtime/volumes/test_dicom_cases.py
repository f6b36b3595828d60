"""Cases of a tree: a FLAIR series each, completed by T1 of the same study, and nothing that tells who it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from dicom_phantoms import phantom, save, series, uid
from segport.errors import SliceError, UsageError
from segport.settings import RunSettings
from segport.volumes.case import Case, ModelName
from segport.volumes.dicom_cases import DicomListing, find_dicom_cases

MODEL = ModelName("tiny.onnx", "ab" * 32)
SECRETS = ("DOE", "JOHN", "4711", "19700131", "ACC0815")
SILENT = {"EchoTime": None, "RepetitionTime": None, "InversionTime": None}


def listing(root: Path, **options: Any) -> DicomListing:
    return find_dicom_cases(root, [p.relative_to(root) for p in root.rglob("*") if p.is_file()], **options)


def add(root: Path, number: int, words: str, study: str = "study", **tags: Any) -> None:
    save(
        root / study / str(number),
        series(
            phantom(len(tags.get("offsets", "123"))), SeriesNumber=number, SeriesDescription=words,
            SeriesInstanceUID=uid(study, number), StudyInstanceUID=uid(study),
            **{"FrameOfReferenceUID": uid("frame"), **tags},
        ),
    )  # fmt: skip


def numbers(case: Case) -> dict[str, int]:
    return {
        role: int(pydicom.dcmread(next(p for p in case.series[role].paths)).SeriesNumber)  # type: ignore[attr-defined]
        for role in case.roles
    }


def test_flair_is_completed_by_both_t1_of_its_study(tmp_path: Path) -> None:
    for number, words in (
        (1, "localizer"),
        (2, "t1_tra"),
        (3, "t2_tra"),
        (4, "t2_flair"),
        (5, "ADC"),
        (6, "t1_tra_km"),
    ):
        add(tmp_path, number, words, **SILENT)
    add(tmp_path, 2, "t1_tra", "other study")
    other, flair = listing(tmp_path).cases
    assert numbers(flair) == {"flair": 4, "pre": 2, "post": 6}
    assert flair.notes == (
        "FLAIR: series 4 't2 flair', by its description",
        "pre: series 2 't1 tra', by its description",
        "post: series 6 't1 tra km', by its description",
    )
    assert len(flair.files) == 9
    assert "no series that is FLAIR" in other.problem


def test_every_flair_is_a_case_of_its_own(tmp_path: Path) -> None:
    add(tmp_path, 2, "t1")
    add(tmp_path, 4, "flair tra")
    add(tmp_path, 7, "flair cor")
    assert [numbers(c) for c in listing(tmp_path).cases] == [{"flair": 4, "pre": 2}, {"flair": 7, "pre": 2}]
    assert len({c.stem for c in listing(tmp_path).cases}) == 2


def test_of_several_t1_the_one_on_flairs_grid_is_taken_then_the_lowest_number(tmp_path: Path) -> None:
    add(tmp_path, 4, "flair")
    add(tmp_path, 2, "t1", PixelSpacing=[2, 2])
    add(tmp_path, 3, "t1")
    add(tmp_path, 1, "t1", FrameOfReferenceUID=uid("elsewhere"))
    add(tmp_path, 9, "t1 gd", PixelSpacing=[2, 2])
    add(tmp_path, 8, "t1 gd", PixelSpacing=[3, 3])
    (case,) = listing(tmp_path).cases
    assert numbers(case) == {"flair": 4, "pre": 3, "post": 8}
    assert case.notes[1] == "pre: series 3 't1', by its description (also there: series 2 't1')"


def test_a_t1_whose_gap_lies_elsewhere_is_on_another_grid(tmp_path: Path) -> None:
    for number, words, offsets in (
        (1, "t1", [0, 4, 8, 16, 20]), (2, "t1", [0, 4, 12, 16, 20]), (4, "flair", [0, 4, 12, 16, 20]),
    ):  # fmt: skip
        add(tmp_path, number, words, offsets=offsets)
    (case,) = listing(tmp_path).cases
    assert numbers(case) == {"flair": 4, "pre": 2}


def test_derived_series_are_taken_only_where_no_measured_one_is(tmp_path: Path) -> None:
    add(tmp_path, 3, "flair", ImageType=["DERIVED", "SECONDARY"])
    assert [numbers(c) for c in listing(tmp_path).cases] == [{"flair": 3}]
    add(tmp_path, 4, "flair")
    assert [numbers(c) for c in listing(tmp_path).cases] == [{"flair": 4}]


def test_a_single_series_is_assumed_to_be_flair_and_several_are_a_problem(tmp_path: Path) -> None:
    add(tmp_path, 3, "head", **SILENT)
    (case,) = listing(tmp_path).cases
    assert "assumed" in case.notes[0]
    assert not case.problem
    add(tmp_path, 5, "t2 tra", **SILENT)
    (case,) = listing(tmp_path).cases
    assert case.problem == (
        "has no series that is FLAIR by its names or times; it has series 3 'head', series 5 't2 tra';"
        " remedy: --series flair=NUMBER says which it is"
    )
    assert (case.roles, list(case.files)) == (frozenset(), [])


def test_a_single_series_of_another_kind_is_not_assumed(tmp_path: Path) -> None:
    add(tmp_path, 3, "dwi", **SILENT)
    assert "no series that is FLAIR" in listing(tmp_path).cases[0].problem
    add(tmp_path, 3, "t1", **SILENT)
    assert "no series that is FLAIR" in listing(tmp_path).cases[0].problem


def test_the_users_choice_goes_before_every_guess(tmp_path: Path) -> None:
    for number, words in ((2, "t1"), (4, "flair"), (5, "t2 tra"), (6, "dwi")):
        add(tmp_path, number, words)
    (case,) = listing(tmp_path, series=["flair=5", "post=DW"]).cases
    assert numbers(case) == {"flair": 5, "pre": 2, "post": 6}
    assert case.notes[0] == "FLAIR: series 5 't2 tra', by --series"
    there = "series 2 't1', series 4 'flair', series 5 't2 tra', series 6 'dwi'"
    with pytest.raises(UsageError, match=f"^--series post=77: matches no series; there are {there}$"):
        listing(tmp_path, series=["post=77"])
    with pytest.raises(UsageError, match="matches 2 series"):
        listing(tmp_path, series=["flair=t"])
    add(tmp_path, 1, "flair", "other study")
    problems = [c.problem for c in listing(tmp_path, series=["flair=5"]).cases]
    assert sorted(map(bool, problems)) == [False, True]
    assert "has no series that --series flair means" in max(problems)


def test_a_choice_that_matches_nothing_shows_ten_series_without_names(tmp_path: Path) -> None:
    for number in range(12):
        add(tmp_path, number, "t1 Doe")
    with pytest.raises(UsageError, match=r"there are series \d+ 't1 \*', .*[^,] and 2 more$") as refused:
        listing(tmp_path, series=["flair=99"])
    assert str(refused.value).count("'t1 *'") == 10
    with pytest.raises(UsageError, match="'t1 Doe'"):
        listing(tmp_path, series=["flair=99"], keep_identity=True)


def test_gaps_and_slices_stored_twice_are_said_when_listing(tmp_path: Path) -> None:
    save(tmp_path, series(phantom(), offsets=[0, 4, 8, 16, 20]))
    save(tmp_path / "again", series(phantom(), offsets=[0, 4, 8, 16, 20])[:2])
    (case,) = listing(tmp_path).cases
    assert case.notes[1:] == (
        "FLAIR: its slices are 4 mm apart, but 8 mm between slices 3 and 4 (slices are missing?)",
        "FLAIR: 2 of its slices are stored more than once; each is taken once",
    )


def test_a_series_that_cannot_lie_anywhere_is_a_problem_of_its_own(tmp_path: Path) -> None:
    slices = series(phantom())
    del slices[2].ImagePositionPatient
    save(tmp_path / "a", slices)
    add(tmp_path, 4, "flair", "other")
    broken, fine = sorted(listing(tmp_path).cases, key=lambda c: not c.problem)
    assert broken.problem.startswith("file 3 of 5 (in the order of their paths): has no ImagePositionPatient")
    assert not fine.problem


def test_a_series_of_impossible_lengths_is_a_problem_of_its_own(tmp_path: Path) -> None:
    for number, length in ((4, "1e300"), (5, "3")):
        add(tmp_path, number, "flair", offsets=[0], SliceThickness=length)
    broken, fine = listing(tmp_path).cases
    assert "has a SliceThickness of 1e+300" in broken.problem
    assert not fine.problem


def test_without_frame_of_reference_only_nifti_can_be_written(tmp_path: Path) -> None:
    add(tmp_path, 4, "flair", FrameOfReferenceUID=None)
    assert "remedy: --format nii" in listing(tmp_path).cases[0].problem
    assert not listing(tmp_path, format="nii").cases[0].problem


def test_with_a_gap_only_a_seg_can_be_written(tmp_path: Path) -> None:
    add(tmp_path, 4, "flair", offsets=[0, 4, 8, 16, 20])
    (gap,) = listing(tmp_path, format="nii").cases
    assert gap.problem.startswith("has slices that are not equally far apart, which NIfTI cannot say")
    (case,) = listing(tmp_path).cases
    assert not case.problem
    mask = np.zeros(case.read("flair").voxels.shape, np.uint8)
    assert list(case.encode(mask, None, MODEL)) == ["_mask.dcm"]
    with pytest.raises(SliceError, match="no --probabilities"):
        case.encode(mask, mask.astype(np.float32), MODEL)


def test_a_case_keeps_its_promises(tmp_path: Path) -> None:
    add(tmp_path, 4, "flair")
    for form, ending in (("dcm", "_mask.dcm"), ("nii", "_mask.nii.gz")):
        case: Case
        (case,) = listing(tmp_path, format=form).cases
        volume = case.read("flair")
        mask = (volume.voxels == 1000).astype(np.uint8)
        written = case.encode(mask, mask.astype(np.float32) / 2, MODEL)
        assert list(written) == case.endings(RunSettings(probabilities=True)) == ["_probability.nii.gz", ending]
        assert case.endings(RunSettings()) == list(case.encode(mask, None, MODEL)) == [ending]
        assert case.read_truth() is None


def hostile(root: Path) -> None:
    folder = root / "DOE_JOHN" / "4711"
    add(folder, 4, "flair DOE^JOHN 4711 19700131")
    add(folder, 5, "t1 John Doe ACC0815")
    add(folder, 6, "t1 johndoe")
    add(folder, 9, "DOE", "JOHN study", **SILENT)
    add(folder, 8, "JOHN4711", "JOHN study", **SILENT)
    whole = next(folder.rglob("*.dcm"))
    (folder / "DOE.dcm").write_bytes(whole.read_bytes()[:500])
    bad = series(phantom(), StudyInstanceUID=uid("bad"), SeriesInstanceUID=uid("bad series"))
    bad[1].PixelData = b"\0\0"
    save(folder / "JOHN bad", bad, "DOE{}")
    worse = series(phantom(), StudyInstanceUID=uid("worse"), SeriesInstanceUID=uid("worse series"))
    del worse[1].PixelSpacing
    save(folder / "JOHN worse", worse, "DOE{}")


def said(found: DicomListing) -> str:
    words = [*found.ignored, *(w for p in found.problems for w in p)]
    for case in found.cases:
        words += [case.name, str(case.stem), case.source, *case.notes, case.problem]
        for role in case.roles:
            try:
                volume = case.read(role)
                case.encode(np.zeros(volume.voxels.shape, np.uint8)[1:], None, MODEL)
            except SliceError as error:
                words.append(str(error))
    return "\n".join(words)


def test_no_name_or_number_of_a_patient_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hostile(tmp_path)
    found = listing(tmp_path)
    words = said(found)
    assert len(found.cases) == 4
    assert "less pixel data" in words
    assert "has no PixelSpacing" in words
    assert len(found.problems) == 1
    assert [s for s in SECRETS if s.casefold() in (words + "".join(capfd.readouterr())).casefold()] == []


def test_keep_identity_names_patients_and_files(tmp_path: Path) -> None:
    hostile(tmp_path)
    found = listing(tmp_path, keep_identity=True)
    words = said(found)
    assert all(case.name.startswith("4711/") for case in found.cases)
    assert found.problems[0][0] == "DOE_JOHN/4711/DOE.dcm"
    assert "(DOE1)" in words
    assert "series 4 'flair DOE^JOHN 4711 19700131'" in words
    flair = next(c for c in found.cases if "4_flair" in c.name)
    assert flair.source == "DOE_JOHN/4711/study/4"
    (alone,) = listing(tmp_path / flair.source, keep_identity=True).cases
    assert alone.source == alone.stem.as_posix()


def test_identities_that_would_leave_the_folder_do_not(tmp_path: Path) -> None:
    add(tmp_path, 4, "../../flair", PatientID="../..\\..")
    (case,) = listing(tmp_path, keep_identity=True).cases
    assert ".." not in case.stem.parts
    assert len(case.stem.parts) == 2


def test_names_stay_the_same_wherever_the_files_are(tmp_path: Path) -> None:
    add(tmp_path / "a", 4, "flair")
    add(tmp_path / "b" / "c", 4, "flair")
    one, other = listing(tmp_path / "a").cases[0], listing(tmp_path / "b").cases[0]
    assert one.name == other.name
    assert one.stem.as_posix() == one.name
    assert len(one.name) == len("study-01234567/series-01234567")
