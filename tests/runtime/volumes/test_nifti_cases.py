"""Which NIfTI files form a case, what it is called, and what it says where its names leave something open."""

import gzip
import unicodedata
from pathlib import Path, PurePath
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from segport.errors import SliceError, UsageError
from segport.folders import fold
from segport.settings import RunSettings
from segport.volumes.case import Case, ModelName, Role
from segport.volumes.nifti_cases import NiftiCase, NiftiListing, find_nifti_cases
from segport.volumes.nifti_channels import parse_channels
from segport.volumes.nifti_names import group_by_names

MODEL = ModelName("a.onnx", "ab" * 32)
ROOT = Path("/data/study")
AFFINE = np.diag([-1.0, 1, 3, 1])


def find(*names: str, channels: dict[Role, str] | None = None, root: Path = ROOT) -> NiftiListing:
    return find_nifti_cases(root, [PurePath(name) for name in names], channels)


def found(*names: str, **options: Any) -> dict[str, dict[str, str]]:
    """Return, by case name, which file stands for what; fails on a problem."""
    cases = find(*names, **options).cases
    assert [case.problem for case in cases] == [""] * len(cases)
    return {case.name: {role: path.as_posix() for role, path in case.sequences.items()} for case in cases}


def only(*names: str, **options: Any) -> NiftiCase:
    (case,) = find(*names, **options).cases
    return case


def save(path: Path, voxels: NDArray[Any], affine: NDArray[Any] | None = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


# names


def test_brats_names_form_a_case() -> None:
    folder = "BraTS20_001/BraTS20_001"
    names = [f"{folder}_{ending}.nii.gz" for ending in ("flair", "seg", "t1", "t1ce", "t2")]
    listing = find(*names)
    (case,) = listing.cases
    assert case.sequences == {"flair": PurePath(names[0]), "pre": PurePath(names[2]), "post": PurePath(names[3])}
    assert case.truths == (PurePath(names[1]),)
    assert (case.name, case.stem, case.source) == ("BraTS20_001", PurePath(folder), names[0])
    assert case.roles == {"pre", "flair", "post"}
    assert case.files == (ROOT / names[0], ROOT / names[2], ROOT / names[3])
    assert (listing.lone_masks, listing.ignored, case.guesses) == ([], 1, ())


def test_newer_brats_names_form_a_case() -> None:
    assert found("x-t2f.nii.gz", "x-t1n.nii.gz", "x-t1c.nii.gz", "x-t2w.nii.gz") == {
        "x": {"flair": "x-t2f.nii.gz", "pre": "x-t1n.nii.gz", "post": "x-t1c.nii.gz"}
    }


def test_bids_names_form_a_case_named_once() -> None:
    folder = "sub-01/ses-1/anat/"
    names = ("sub-01_ses-1_FLAIR.nii.gz", "sub-01_ses-1_T1w.nii.gz", "sub-01_ses-1_ce-gadolinium_T1w.nii.gz")
    case = only(*(folder + name for name in names))
    assert {path.name: role for role, path in case.sequences.items()} == {
        names[0]: "flair",
        names[1]: "pre",
        names[2]: "post",
    }
    assert (case.name, case.stem) == ("sub-01_ses-1", PurePath(folder, "sub-01_ses-1"))


def test_the_agent_may_stand_before_other_entities() -> None:
    case = only("sub-01_run-2_FLAIR.nii", "sub-01_ce-Gd_run-2_T1w.nii")
    assert (case.name, set(case.sequences)) == ("sub-01_run-2", {"flair", "post"})
    assert only("sub-1_FLAIR.nii", "sub-1_ce-gadolinium.nii").roles == {"flair", "post"}


def test_other_entities_stay_in_the_name() -> None:
    assert list(found("sub-1_run-1_FLAIR.nii", "sub-1_run-2_FLAIR.nii", "sub-1_acq-3D_FLAIR.nii")) == [
        "sub-1_acq-3D",
        "sub-1_run-1",
        "sub-1_run-2",
    ]


@pytest.mark.parametrize("ending", ["_FLAIR", ".flair", "-Flair", "__flair", "_t2f", "_T2F"])
def test_endings_are_found_in_any_case_behind_any_separator(ending: str) -> None:
    assert found(f"a/p{ending}.NII.GZ", "a/p_T1Gd.nii") == {
        "a/p": {"flair": f"a/p{ending}.NII.GZ", "post": "a/p_T1Gd.nii"}
    }


def test_an_ending_needs_a_separator() -> None:
    assert list(found("preflair.nii", "ct1.nii")) == ["ct1", "preflair"]


def test_files_named_for_their_sequence_alone_are_named_by_the_folder(tmp_path: Path) -> None:
    listing = find("case7/flair.nii.gz", "case7/t1.nii.gz", "case7/seg.nii.gz", "b/case8/flair.nii.gz")
    assert [(c.name, c.stem.as_posix(), sorted(c.roles), len(c.truths)) for c in listing.cases] == [
        ("b/case8", "b/case8/case8", ["flair"], 0),
        ("case7", "case7/case7", ["flair", "pre"], 1),
    ]
    case = only("flair.nii.gz", root=tmp_path)
    assert (case.name, case.stem) == (tmp_path.name, PurePath(tmp_path.name))


def test_a_name_that_says_nothing_is_a_flair_and_this_is_said(tmp_path: Path) -> None:
    save(tmp_path / "scan_1.nii", np.zeros((2, 3, 4), np.uint8))
    case = only("scan_1.nii", root=tmp_path)
    assert (case.name, case.sequences) == ("scan_1", {"flair": PurePath("scan_1.nii")})
    assert case.notes == ("its name does not say which sequence it is: taken for a FLAIR",)


def test_further_pictures_of_a_case_are_left_out_and_this_is_said() -> None:
    listing = find("p1/p1_flair.nii", *(f"p1/p1_{n}.nii" for n in ("ADC", "DWI", "FLAIR_bias", "SWI")), "p1/q.nii")
    first, second = listing.cases
    assert first.guesses == (
        "left out, since no sequence's name is at the end of theirs: p1_ADC.nii, p1_DWI.nii, p1_FLAIR_bias.nii and"
        " 1 more",
    )
    assert (second.name, listing.ignored) == ("p1/q", 4)
    assert find("case7/flair.nii", "case7/adc.nii").ignored == 1
    assert list(found("p1_flair.nii", "p10.nii", "p1a_2.nii")) == ["p1", "p1a_2", "p10"]


def test_a_label_beside_folders_of_other_names_keeps_them() -> None:
    assert list(found("north/p1_flair.nii", "south/p1_flair.nii")) == ["north/p1", "south/p1"]


def test_masks_find_their_case_by_its_label_or_its_flair() -> None:
    names = ("a_flair.nii", "a_flair_mask.nii", "b_t2f.nii", "b_dseg.nii", "c.nii", "c_seg.nii", "d_mask.nii")
    listing = find(*names, "e_probability.nii", "e_labels.nii", "e_label.nii", "e_T2w.nii")
    assert {case.name: [t.name for t in case.truths] for case in listing.cases} == {
        "a": ["a_flair_mask.nii"],
        "b": ["b_dseg.nii"],
        "c": ["c_seg.nii"],
    }
    assert (listing.lone_masks, listing.ignored) == ([PurePath("d_mask.nii")], 4)


def test_cases_come_in_natural_order() -> None:
    assert list(found("p10/p10_flair.nii", "p9/p9_flair.nii", "p1.nii")) == ["p1", "p9", "p10"]


# problems


def test_a_t1_alone_is_a_problem_that_names_the_remedy() -> None:
    case = only("p/p_t1.nii.gz", "p/p_t1ce.nii.gz")
    assert case.problem == (
        "has T1 (p_t1.nii.gz) and T1 after contrast (p_t1ce.nii.gz) and no FLAIR, which the model cannot do without;"
        " remedy: let its FLAIR's name begin alike and end in _flair, or use --channel flair=GLOB; the wildcards must"
        " match the same text in all files of a case"
    )
    assert (case.name, case.source, len(case.files)) == ("p", "p/p_t1.nii.gz", 2)
    assert case.notes == ()


def test_two_files_of_one_role_are_a_problem_that_names_both() -> None:
    case = only("p_flair.nii", "p_flair.nii.gz")
    assert case.problem == (
        "has 2 files that may be its FLAIR: p_flair.nii, p_flair.nii.gz; expected one; remedy: move the others, or"
        " choose with --channel flair=GLOB"
    )
    assert len(case.files) == 2
    assert (
        "may be its T1 after contrast: p_t1ce.nii, p_t1gd.nii;"
        in only("p_flair.nii", "p_t1ce.nii", "p_t1gd.nii").problem
    )


def test_a_problem_does_not_touch_other_cases() -> None:
    cases = find("a_t1.nii", "b_flair.nii").cases
    assert [bool(case.problem) for case in cases] == [True, False]


# outputs


@pytest.mark.parametrize(
    ("names", "stems"),
    [
        (("a.nii", "a.nii.gz", "b.nii"), ["a.nii", "a.nii.gz", "b"]),
        (("a.nii", "a.nii.gz", "a.nii.nii"), ["a.nii~2", "a.nii.gz", "a.nii"]),
        (("A/x.nii", "a/x.nii"), ["A/x.nii", "a/x.nii~2"]),
        (("p.nii", "P.nii"), ["P.nii", "p.nii~2"]),
        (("x/flair.nii", "x/x_flair.nii"), ["x/flair.nii", "x/x_flair.nii"]),
    ],
)
def test_outputs_and_names_never_collide(names: tuple[str, ...], stems: list[str]) -> None:
    cases = find(*names).cases
    assert sorted(case.stem.as_posix() for case in cases) == sorted(stems)
    assert len({fold(case.stem.as_posix()) for case in cases}) == len(cases)
    assert len({fold(case.name) for case in cases}) == len(cases)


def test_one_name_in_two_normal_forms_is_one_case() -> None:
    names = [unicodedata.normalize(form, f"ä_{ending}.nii") for form, ending in (("NFC", "flair"), ("NFD", "t1"))]
    assert only(*names).roles == {"flair", "pre"}


def test_a_label_of_dots_does_not_leave_the_folder() -> None:
    case = only("p/x...nii", channels={"flair": "x*.nii"})
    assert case.stem == PurePath("p/p")


# channels


def test_globs_over_names_pair_within_a_folder() -> None:
    names = ("n/p1_FL.nii.gz", "n/p1_CE.nii.gz", "n/p2_FL.nii.gz", "s/p1_FL.nii.gz", "s/p1_CE.nii.gz", "s/p1_X.nii.gz")
    channels: dict[Role, str] = {"flair": "*_FL.nii.gz", "post": "*_CE.nii.gz"}
    assert found(*names, channels=channels) == {
        "n/p1": {"flair": names[0], "post": names[1]},
        "n/p2": {"flair": names[2]},
        "s/p1": {"flair": names[3], "post": names[4]},
    }
    assert find(*names, channels=channels).ignored == 1


def test_globs_over_folders_pair_across_them() -> None:
    names = ("flair/p1.nii", "flair/p2.nii", "t1/p1.nii", "t1/deep/p2.nii")
    assert found(*names, channels={"flair": "flair/*.nii", "pre": "t1/*.nii"}) == {
        "p1": {"flair": names[0], "pre": names[2]},
        "p2": {"flair": names[1]},
    }


def test_folders_that_a_wildcard_matched_name_the_case() -> None:
    names = ("p1/mr/FL.nii", "p1/mr/CE.nii", "p2/mr/FL.nii")
    cases = find(*names, channels={"flair": "*/mr/FL.nii", "post": "*/mr/CE.nii"}).cases
    assert [(c.name, c.stem.as_posix(), sorted(c.roles)) for c in cases] == [
        ("p1", "p1/mr/p1", ["flair", "post"]),
        ("p2", "p2/mr/p2", ["flair"]),
    ]


def test_patients_are_not_mixed_where_wildcards_matched_different_text() -> None:
    cases = find("p1_FL.nii", "p2_CE.nii", channels={"flair": "*_FL.nii", "post": "*_CE.nii"}).cases
    assert [(case.name, bool(case.problem)) for case in cases] == [("p1", False), ("p2", True)]


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("p?.nii", {"p1.nii", "p2.nii"}),
        ("p[13].nii", {"p1.nii"}),
        ("p[!1].nii", {"p2.nii"}),
        ("p[0-1].nii", {"p1.nii"}),
        ("*.nii", {"p1.nii", "p2.nii", "p2+.nii", "d/q.nii"}),
        ("d/*.nii", {"d/q.nii"}),
        ("*/*.nii", {"d/q.nii"}),
        ("p2+.nii", {"p2+.nii"}),
    ],
)
def test_wildcards_work_as_in_a_shell(glob: str, expected: set[str]) -> None:
    names = ("p1.nii", "p2.nii", "p2+.nii", "d/q.nii")
    assert {c.source for c in find(*names, channels={"flair": glob}).cases} == expected


def test_a_chosen_file_is_no_guess_and_finds_its_mask() -> None:
    case = only("p1_FL.nii", "p1_seg.nii", "p1_flair.nii", channels={"flair": "*_FL.nii"})
    assert (case.sequences["flair"].name, case.guesses) == ("p1_FL.nii", ())
    assert [truth.name for truth in case.truths] == ["p1_seg.nii"]


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        (
            {"flair": "*_FL.nii", "pre": "*_T1.nii"},
            "--channel pre=*_T1.nii: matches none of the 2 NIfTI files; expected a glob over the path below the input",
        ),
        (
            {"flair": "*.nii", "post": "*_CE.nii"},
            "--channel: p_CE.nii is matched by flair=*.nii and post=*_CE.nii; expected one role a file",
        ),
        ({"flair": "[z-a].nii"}, "--channel flair=[z-a].nii: not a glob (bad character range z-a"),
    ],
)
def test_globs_that_cannot_work_are_refused(channels: dict[Role, str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        find("p_FL.nii", "p_CE.nii", channels=channels)
    assert message in str(caught.value)


def test_channels_of_the_command_line_are_parsed() -> None:
    assert parse_channels([]) == {}
    assert parse_channels(["post=*_a=b.nii", "flair=*_f.nii"]) == {"post": "*_a=b.nii", "flair": "*_f.nii"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["t2=*.nii"], "--channel t2=*.nii: expected ROLE=GLOB with the roles flair, pre and post, such as"),
        (["*.nii"], "--channel *.nii: expected ROLE=GLOB"),
        (["flair="], "--channel flair=: expected ROLE=GLOB"),
        (["flair=a", "flair=b"], "--channel flair is given twice: a and b; expected one glob a role"),
        (["pre=a"], "--channel names no flair, which is the one sequence that cannot be missing; add flair=GLOB"),
        (["flair=a/*", "pre=b"], "--channel: either all globs name folders (with /) or none"),
    ],
)
def test_channels_that_say_nothing_are_refused(values: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_channels(values)
    assert message in str(caught.value)


# reading and writing


@pytest.fixture
def case(tmp_path: Path) -> NiftiCase:
    rng = np.random.default_rng(0)
    for ending in ("flair", "t1"):
        save(tmp_path / f"p/p_{ending}.nii.gz", rng.integers(0, 99, (3, 4, 5), np.int16))
    truth = np.zeros((3, 4, 5), np.uint8)
    truth[1, 2, 3], truth[0, 0, 0] = 4, 1
    save(tmp_path / "p/p_seg.nii.gz", truth)
    return only("p/p_flair.nii.gz", "p/p_t1.nii.gz", "p/p_seg.nii.gz", root=tmp_path)


def test_a_case_reads_its_sequences_and_keeps_to_the_protocol(case: NiftiCase) -> None:
    protocol: Case = case
    for role in ("flair", "pre"):
        reference = nibabel.load(case.root / case.sequences[role])
        assert np.array_equal(protocol.read(role).voxels, np.asanyarray(reference.dataobj))
        assert np.array_equal(protocol.read(role).affine, AFFINE)
    assert protocol.notes == ()


def test_a_case_writes_its_mask_and_on_demand_its_probabilities(case: NiftiCase) -> None:
    mask = case.read_truth()
    assert mask is not None
    assert case.endings(RunSettings()) == ["_mask.nii.gz"] == list(case.encode(mask, None, MODEL))
    both = case.encode(mask, mask.astype(np.float32), MODEL)
    assert case.endings(RunSettings(probabilities=True)) == ["_probability.nii.gz", "_mask.nii.gz"] == list(both)
    read = nibabel.Nifti1Image.from_bytes(gzip.decompress(both["_mask.nii.gz"]))
    assert np.array_equal(np.asanyarray(read.dataobj), mask)
    assert np.array_equal(read.affine, AFFINE)


def test_every_label_of_a_true_mask_is_tumour(case: NiftiCase) -> None:
    truth = case.read_truth()
    assert truth is not None
    assert truth.dtype == np.uint8
    assert np.argwhere(truth).tolist() == [[0, 0, 0], [1, 2, 3]]
    assert set(np.unique(truth)) == {0, 1}


def test_a_case_without_a_mask_says_so() -> None:
    assert only("p.nii").read_truth() is None


def refused_truth(case: NiftiCase) -> str:
    with pytest.raises(SliceError) as caught:
        case.read_truth()
    return str(caught.value)


def test_true_masks_on_another_grid_are_refused(case: NiftiCase) -> None:
    path = case.root / case.truths[0]
    save(path, np.zeros((3, 4, 6), np.uint8))
    assert refused_truth(case) == "its mask p_seg.nii.gz is (3, 4, 6), its FLAIR (3, 4, 5) (voxels along i, j, k)"
    moved = AFFINE.copy()
    moved[0, 3] = 0.5
    save(path, np.zeros((3, 4, 5), np.uint8), moved)
    assert "its mask p_seg.nii.gz lies 0.5 voxels beside its FLAIR; expected the same affine" in refused_truth(case)
    save(path, np.zeros((3, 4, 5), np.uint8), AFFINE * [-1, 1, 1, 1])
    assert "its mask p_seg.nii.gz lies 4.0 voxels beside its FLAIR" in refused_truth(case)
    path.write_bytes(b"")
    assert refused_truth(case) == "its mask p_seg.nii.gz is empty (0 bytes); copy it again"


def test_two_true_masks_are_refused() -> None:
    case = only("p_flair.nii", "p_seg.nii", "p_mask.nii")
    assert refused_truth(case) == "has 2 masks: p_mask.nii, p_seg.nii; expected one; remedy: move the others"


def test_a_refusal_names_the_sequence_unless_it_is_the_flair(case: NiftiCase) -> None:
    for file in case.files:
        file.write_bytes(b"")
    with pytest.raises(SliceError, match=r"^is empty"):
        case.read("flair")
    with pytest.raises(SliceError, match=r"^its T1 p_t1\.nii\.gz is empty"):
        case.read("pre")
    assert case.notes == ()


def test_what_headers_leave_open_is_a_note_that_names_the_file(tmp_path: Path) -> None:
    save(tmp_path / "p_flair.nii", np.zeros((3, 4, 5), np.uint8), None)
    (note,) = only("p_flair.nii", root=tmp_path).notes
    assert note.startswith("p_flair.nii states no orientation")


def test_files_in_a_folder_of_masks_are_truths_of_the_images_beside_it() -> None:
    names = [
        "images/p1.nii.gz",
        "masks/p1.nii.gz",
        "images/p2_flair.nii",
        "masks/p2.nii",
        "a/labels/p3_flair.nii",
        "masks/p4.nii",
    ]
    found = group_by_names(map(PurePath, [*names, "a/images/p3_flair.nii"]))
    assert {g.label: [t.as_posix() for t in g.truths] for g in found.groups} == {
        "p1": ["masks/p1.nii.gz"],
        "p2": ["masks/p2.nii"],
        "p3": ["a/labels/p3_flair.nii"],
    }
    assert [p.as_posix() for p in found.lone_masks] == ["masks/p4.nii"]
