"""JUnit XML of a report, read back; what seg-export writes is in test_assertion.py."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from segport_export.comparison import Comparison
from segport_export.junit import write_junit
from segport_export.subjects import ParitySlice
from segport_export.tolerance import TOLERANCES


def test_junit_holds_no_character_that_xml_forbids(tmp_path: Path) -> None:
    good = np.full((64, 64), -5, np.float32)
    masks = Comparison(0.5, TOLERANCES["fp32"])
    masks.add(ParitySlice("a\x01\udce9<b>", np.zeros((64, 64, 3), np.uint8)), good, good)
    report = masks.report("fp32", 0.0, None)
    write_junit(tmp_path / "j.xml", report, "m\x02.onnx")
    suites = ElementTree.parse(tmp_path / "j.xml").getroot()
    (failure,) = suites.iter("failure")
    assert "a\\x01\\udce9<b>" in (failure.text or "")
    cases = list(suites.iter("testcase"))
    assert [case.get("name") for case in cases] == [check.name for check in report.checks]
    assert {case.get("classname") for case in cases} == {"m\\x02.onnx"}
