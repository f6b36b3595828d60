"""`assert_parity` in other people's tests, and the gate's figures for their CI."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from helpers import SAMPLE_DATA
from segport.errors import GateError
from segport_export import assert_parity
from segport_export.cli import main
from tampering import shift_last_bias


def test_three_lines_prove_a_model(trained: Path, exported) -> None:
    report = assert_parity(trained / "best.safetensors", exported["int8"], SAMPLE_DATA)
    assert report.precision == "int8"
    assert report.compared == 48 + 8
    assert report.truth is not None
    assert report.truth.patients == 4


def test_a_model_that_no_longer_agrees_fails_their_test(trained: Path, tampered) -> None:
    with pytest.raises(GateError, match=r"tampered\.onnx: a logit differs by 1.*worst slice: "):
        assert_parity(trained / "best.safetensors", tampered(shift_last_bias), SAMPLE_DATA)


def test_their_own_budget_counts(trained: Path, exported) -> None:
    with pytest.raises(GateError, match="at most -1 is allowed"):
        assert_parity(trained / "best.safetensors", exported["fp32"], SAMPLE_DATA, dice_budget=-1)


def test_junit_holds_a_case_for_each_check(trained: Path, tmp_path: Path, capsys) -> None:
    arguments = [str(trained / "best.safetensors"), "--out", str(tmp_path / "m.onnx"), "--parity", str(SAMPLE_DATA)]
    assert main([*arguments, "--junit", str(tmp_path / "fine.xml")]) == 0
    fine = ElementTree.parse(tmp_path / "fine.xml").getroot()
    assert {c.get("name") for c in fine.iter("testcase")} >= {"logits", "farthest flip", "flips", "Dice", "Dice budget"}
    assert not list(fine.iter("failure"))
    assert "Dice lost" in capsys.readouterr().out


def test_junit_and_an_overlay_say_what_failed(trained: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    from segport_export import export
    from segport_export.parity import check_parity

    def strict(reference, path, precision, *, budget=None):
        return check_parity(reference, path, precision, budget=-1.0)

    monkeypatch.setattr(export, "check_parity", strict)
    arguments = [str(trained / "best.safetensors"), "--out", str(tmp_path / "m.onnx"), "--parity", str(SAMPLE_DATA)]
    assert main([*arguments, "--junit", str(tmp_path / "bad.xml")]) == 1
    (failure,) = ElementTree.parse(tmp_path / "bad.xml").getroot().iter("failure")
    assert "Dice against the truth falls by" in failure.get("message", "")
    assert "worst slice: " in (failure.text or "")
    assert (tmp_path / "m.rejected.png").stat().st_size > 1000
    assert ".rejected.png beside it" in capsys.readouterr().err
