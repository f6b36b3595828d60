"""Which series is which: names as scanners of several makers and countries give them, else times."""

from typing import Any

import pytest

from segport.errors import UsageError
from segport.volumes.dicom_index import Parameters, Series
from segport.volumes.dicom_roles import choose, describe, guess_role, parse_choices

NOTHING = Parameters("", "", None, None, None, False)
FLAIR = Parameters("SE\\IR", "SK", 120, 9000, 2500, False)
T1 = Parameters("SE", "SK", 10, 500, None, False)
MPRAGE = Parameters("GR\\IR", "SP\\MP", 2.9, 2000, 900, False)


def make(words: str = "", parameters: Parameters = NOTHING, kinds: str = "ORIGINAL PRIMARY", **more: Any) -> Series:
    given = {"uid": "1.2.3", "number": 4, "description": words, "identity": (), **more}
    return Series(
        study="1.2", words=words, image_type=tuple(kinds.split()), parameters=parameters, frame_of_reference="1",
        patient_id="", **given
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "role"),
    [
        ("t2_flair_tra", "flair"), ("AX FLAIR", "flair"), ("t2_tirm_tra_dark-fluid", "flair"),
        ("Sag CUBE T2 FLAIR", "flair"),
        ("3D_FLAIR_post_Gd", "flair"), ("FLAIR longTR", "flair"), ("s3DI_FLAIR FS", "flair"),
        ("t1_se_tra", "pre"), ("AX T1", "pre"), ("t1_mprage_sag_p2_iso", "pre"), ("Ax FSPGR BRAVO", "pre"),
        ("T1 nativ", "pre"),
        ("AX T1 PRE GD", "pre"), ("T1W_TSE ohne KM", "pre"), ("T1 FLAIR sag", "pre"), ("T1 posterior fossa", "pre"),
        ("t1_mprage_tra_km", "post"), ("AX T1 +C", "post"), ("AX T1 POST", "post"), ("T1+Gd", "post"),
        ("T1 GAD", "post"),
        ("t1_tse_tra_CE", "post"), ("T1C", "post"), ("t1ce", "post"), ("t1gd", "post"), ("T1W 3D contrast", "post"),
        ("T1 FLAIR +C", "post"),
        ("localizer", None), ("3-plane loc", None), ("AAHead_Scout", None), ("ep2d_diff_trace_p2", None), ("ADC", None),
        ("t2_swi_tra", None), ("TOF_3D", None), ("T1 perfusion DCE", None),
        ("t2_tse_tra", None), ("FLAIR MPR cor", None),
        ("t1_sub", None), ("", None),
    ],
)  # fmt: skip
def test_names_speak(words: str, role: str | None) -> None:
    assert guess_role(make(words)).role == role


@pytest.mark.parametrize(
    ("parameters", "role"),
    [
        (FLAIR, "flair"), (T1, "pre"), (MPRAGE, "pre"), (T1._replace(contrast=True), "post"), (NOTHING, None),
        (FLAIR._replace(inversion_time=None), None), (FLAIR._replace(inversion_time=160), None),
        (FLAIR._replace(scanning_sequence="EP\\IR"), None), (Parameters("GR", "SP", 5, 20, None, False), None),
    ],
)  # fmt: skip
def test_times_speak_where_names_are_silent(parameters: Parameters, role: str | None) -> None:
    guess = guess_role(make("Serie 12", parameters))
    assert guess.role == role
    assert role is None or guess.reason.startswith("by its times (TR")


def test_contrast_agent_decides_where_the_name_does_not() -> None:
    assert guess_role(make("t1_se", T1._replace(contrast=True))).reason == "by its contrast agent"
    assert guess_role(make("t1_se_nativ", T1._replace(contrast=True))).role == "pre"


def test_derived_pictures_are_known_and_localisers_never_taken() -> None:
    assert guess_role(make("FLAIR", kinds="DERIVED SECONDARY MPR")).derived
    assert not guess_role(make("FLAIR", kinds="DERIVED PRIMARY M NORM")).derived
    assert guess_role(make("FLAIR", kinds="ORIGINAL PRIMARY LOCALIZER")).role is None


def test_choices_are_parsed() -> None:
    assert parse_choices(["flair=4", "post=t1 = km "]) == {"flair": "4", "post": "t1 = km"}


@pytest.mark.parametrize("given", ["flair", "t2=4", "flair=", "=4", "flair= "])
def test_a_choice_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match="expected ROLE=WHAT, ROLE one of pre, flair, post"):
        parse_choices([given])
    with pytest.raises(UsageError, match="flair is given twice"):
        parse_choices(["flair=1", "flair=2"])


def test_a_choice_finds_by_number_uid_and_description() -> None:
    study = [make("T2 FLAIR tra", uid="1.5"), make("T1 4 mm", uid="1.6", number=5)]
    for what, found in (("4", 0), ("5", 1), ("1.6", 1), ("flair TRA", 0)):
        assert choose(study, "flair", what, named=False) is study[found]
    assert choose(study, "flair", "6", named=False) is None
    with pytest.raises(UsageError, match=r"matches 2 series of one study: series 4 'T2 FLAIR tra', series 5 'T1 4 mm'"):
        choose(study, "flair", "t", named=False)


def test_descriptions_are_shown_without_names() -> None:
    series = make("FLAIR Doe_John 4711 3mm tra T1", identity=("TRA^John", "4711"))
    assert describe(series, named=False) == "series 4 'FLAIR * T1'"
    assert describe(series, named=True) == "series 4 'FLAIR Doe_John 4711 3mm tra T1'"
    assert describe(make(number=None), named=False) == "a series without number"
