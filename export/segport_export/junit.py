"""The gate's checks as JUnit XML, which CI systems show as test cases."""

import re
from pathlib import Path
from xml.etree import ElementTree

from segport.outputs import write_bytes
from segport_export.report import ParityReport

_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2


def write_junit(path: Path, report: ParityReport, model: str) -> None:
    """Write one test case a check of the model file named `model`; raises `OutputError`."""
    suite = ElementTree.Element(
        "testsuite",
        name="seg-export parity",
        tests=str(len(report.checks)),
        failures=str(len(report.failures)),
        errors="0",
    )
    for check in report.checks:
        case = ElementTree.SubElement(suite, "testcase", classname=_xml(model), name=check.name)
        if check.passed:
            ElementTree.SubElement(case, "system-out").text = _xml(check.text)
        else:
            failure = ElementTree.SubElement(case, "failure", message=_xml(check.text))
            failure.text = _xml(f"worst slice: {report.worst_slice}")
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    write_bytes(path, ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True))


def _xml(text: str) -> str:
    """Return text without the characters that XML forbids: file names hold any byte."""
    return _NOT_XML.sub(lambda found: ascii(found[0])[1:-1], text)
