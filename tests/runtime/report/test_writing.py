"""Reports are written whole, gone on with, made later, and never over what is another's."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from faults import start_child
from helpers import TINY, infer, square, write
from segport.cli import main
from segport.plan import plan_run
from segport.report import patient as drawing
from segport.report import writer
from segport.report.view import PatientView, SliceFacts, SliceView
from segport.run import run
from segport.segmenter import Segmenter
from segport.settings import RunSettings
from trees import segment_three


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return segment_three(tmp_path)


def files(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in (out / "report").rglob("*") if p.is_file()}


def data_of(out: Path, name: str) -> dict:
    """Return a patient's data as the page gets it."""
    for path in out.glob("report/patients/*/data.js"):
        document = json.loads("[" + path.read_text().removeprefix("showPatient(").removesuffix(");\n") + "]")[1]
        if document["name"] == name:
            return document
    raise AssertionError(f"no data of {name}")


def test_a_report_holds_what_the_run_found(tree: Path, capsys) -> None:
    assert infer(tree / "in", "--report", "--score", "--spacing", 1, 1, 5) == 0
    out = tree / "in-masks"
    assert f"report: {out / 'report/index.html'}" in capsys.readouterr().out
    a, b = data_of(out, "a"), data_of(out, "b")
    assert [s["label"] for s in a["slices"]] == ["1", "2"]
    assert a["slices"][0]["mask"] == "M16 16h32v32h-32z" == a["slices"][0]["truth"]
    assert ["Tumour", "1,024 pixels (25.00%)"] in b["slices"][0]["facts"]
    assert ["Area", "10.24 cm²"] in b["slices"][0]["facts"]
    page = (out / "report/index.html").read_text(encoding="utf-8")
    assert "5.12 ml" in page
    assert "Not a medical device" in page
    assert "licence not stated" in page  # tiny.onnx is nobody's
    assert json.loads((out / "run.json").read_text())["started"][:10] in page


def test_two_runs_give_the_same_bytes_and_unchanged_patients_are_not_drawn_again(tree: Path, monkeypatch) -> None:
    assert infer(tree / "in", "--report") == 0
    assert infer(tree / "in", "--out", tree / "other", "--report") == 0
    first, other = files(tree / "in-masks"), files(tree / "other")
    assert first.keys() == other.keys()
    assert all(first[n] == other[n] for n in first if not n.endswith("index.html"))
    drawn = []
    real = drawing.draw_patient
    monkeypatch.setattr(
        writer, "draw_patient", lambda key, patient, *more: [drawn.append(patient.name), real(key, patient, *more)]
    )
    write(tree / "in/b_1.png", square(low=20))
    (next((tree / "in-masks/report/patients").glob("*/1.png"))).touch()  # another time, the same bytes
    assert infer(tree / "in", "--report") == 0
    assert drawn == ["b"]


def test_pictures_of_slices_that_are_gone_go(tree: Path) -> None:
    assert infer(tree / "in", "--report") == 0
    before = files(tree / "in-masks")
    (tree / "in/a_2.png").unlink()
    assert infer(tree / "in", "--report") == 0
    gone = before.keys() - files(tree / "in-masks").keys()
    assert [Path(name).name for name in gone] == ["2.png"]


def test_a_report_is_made_later_and_is_the_same(tree: Path, capsys, monkeypatch) -> None:
    out = tree / "in-masks"
    monkeypatch.chdir(tree)
    assert main(["--report-only", "in-masks"]) == 0
    assert "report: in-masks/report/index.html" in capsys.readouterr().out
    later = files(out)
    assert infer(tree / "in", "--out", tree / "other", "--report") == 0
    other = files(tree / "other")
    assert all(later[n] == other[n] for n in other if not n.endswith("index.html"))


def test_an_interrupted_run_has_a_report_of_what_is_there(tree: Path) -> None:
    out = tree / "in-masks"
    lines = (out / "ledger.jsonl").read_text().splitlines(keepends=True)
    (out / "ledger.jsonl").write_text(
        "".join(line for line in lines if '"stem":"a_2"' not in line and '"stem":"b_1"' not in line)
    )
    document = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(document | {"finished": False}))
    assert main(["--report-only", str(out)]) == 0
    page = (out / "report/index.html").read_text()
    assert "The run was interrupted" in page
    assert page.count("1 not come to") == 2
    assert len(data_of(out, "a")["slices"]) == 1
    assert data_of(out, "b")["slices"] == []


def test_slices_and_masks_that_changed_since_are_said_and_not_shown(tree: Path) -> None:
    write(tree / "in/a_1.png", square(value=210))
    write(tree / "in-masks/b_1_mask.png", np.zeros((64, 64), np.uint8))
    assert main(["--report-only", str(tree / "in-masks")]) == 0
    (one, _), (other,) = (data_of(tree / "in-masks", name)["slices"] for name in "ab")
    assert "no picture: a_1.png is gone, or was changed" in one["problem"]
    assert "picture" not in one
    assert "mask" in one
    assert "b_1_mask.png is gone, or was altered" in other["problem"]
    assert "mask" not in other


def test_folders_that_no_run_left_are_refused(tree: Path, capsys) -> None:
    def error(*arguments: object) -> str:
        assert main([*map(str, arguments)]) == 2
        return capsys.readouterr().err

    out = tree / "in-masks"
    assert "holds no run.json; expected the output folder of a run" in error("--report-only", tree / "in")
    assert "takes an output folder alone" in error(tree / "in", "--report-only", out)
    assert "the settings of the run that is there" in error("--report-only", out, "--threshold", 0.9)
    assert not (tree / "in/.segport").exists()
    os.rename(tree / "in", tree / "moved")  # noqa: PTH104
    assert "which is not there; remedy: put them back" in error("--report-only", out)
    (out / "run.json").write_text('{"finished": false}')
    assert "says too little of its run" in error("--report-only", out)
    (out / "ledger.jsonl").unlink()
    assert "holds no ledger.jsonl" in error("--report-only", out)


def test_a_ledger_of_an_older_version_does_not_say_where_its_slices_are(tree: Path, capsys) -> None:
    ledger = tree / "in-masks/ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"roots"', '"other"'))
    assert main(["--report-only", str(ledger.parent)]) == 2
    assert "does not say where its slices are" in capsys.readouterr().err


def test_a_report_that_no_run_wrote_is_not_replaced(tree: Path, capsys) -> None:
    out = tree / "in-masks"
    (out / "report").mkdir()
    (out / "report/index.html").write_text("mine")
    assert infer(tree / "in", "--report") == 3
    assert "is already there and no run of seg-infer wrote it" in capsys.readouterr().err
    assert main(["--report-only", str(out)]) == 3
    assert (out / "report/index.html").read_text() == "mine"
    assert infer(tree / "in", "--report", "--overwrite") == 0
    assert "Masks of" in (out / "report/index.html").read_text()


def test_a_report_that_was_stopped_is_gone_on_with(tree: Path, monkeypatch, capsys) -> None:
    out, real = tree / "in-masks", writer.rename

    def kill(*arguments, **options) -> None:
        real(*arguments, **options)
        if arguments[1].name == "1.png":
            raise KeyboardInterrupt

    monkeypatch.setattr(writer, "rename", kill)
    assert main(["--report-only", str(out)]) == 130
    assert not (out / "report/index.html").exists()
    monkeypatch.undo()
    assert main(["--report-only", str(out)]) == 0
    assert (out / "report/index.html").exists()
    assert len(list(out.glob("report/patients/*/data.js"))) == 2
    assert not list((out / ".segport").glob("*.tmp"))


@pytest.mark.parametrize(("step", "nth"), [("data rename", 2), ("index rename", 1), ("run.json rename", 2)])
def test_a_process_that_is_killed_leaves_no_half_report(tree: Path, step: str, nth: int) -> None:
    """run.json is written first when a run begins; what it then says must be enough for a report."""
    out = tree / "out"
    child = start_child(tree / "in", "--out", out, "--report", fault={"step": step, "act": "kill", "nth": nth})
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    assert not (out / "report/index.html").exists()
    assert main(["--report-only", str(out)]) == 0
    assert infer(tree / "in", "--out", tree / "undisturbed", "--report") == 0
    later, whole = files(out), files(tree / "undisturbed")
    assert later.keys() == whole.keys()
    assert all(later[n] == whole[n] for n in whole if not n.endswith("index.html"))


def test_a_run_that_is_stopped_while_it_draws_says_so(tree: Path, tiny: Segmenter) -> None:
    stopped: list[int] = []
    plan = plan_run([tree / "in"], tree / "out", RunSettings(report=True))
    result = run(plan, RunSettings(report=True), tiny, stop=lambda: bool(stopped), drawing=stopped.append)
    assert (result.written, result.finished, result.report, result.exit_code) == (3, True, None, 130)
    assert not (tree / "out/report/index.html").exists()


def test_the_first_screen_of_300_patients_and_10000_slices_is_small(tmp_path: Path) -> None:
    from contextlib import closing

    from segport.ledger import Ledger
    from segport.workspace import open_workspace

    assert infer(segment_three(tmp_path) / "in") == 0
    out = tmp_path / "in-masks"
    document = json.loads((out / "run.json").read_text())
    picture, mask = square(16), square(16)[..., 1]

    def patients() -> Iterator[PatientView]:
        noise = np.random.default_rng(2)
        for p in range(300):
            facts = tuple(
                SliceFacts(f"case {p}/{n}.png", n, "written", found_of(int(noise.integers(0, 3000)))) for n in range(34)
            )
            yield PatientView(f"case {p}", facts, str(p), lambda: iter([SliceView(picture, mask)] * 34))

    with open_workspace(out, 1) as workspace, closing(Ledger(out, writable=True)) as ledger:
        page = writer.ReportWriter(out, RunSettings(), ledger, workspace).write(document, patients(), lambda _: False)
    assert page is not None
    size = sum(path.stat().st_size for path in page.parent.glob("*.*"))
    assert 100_000 < size < 1_000_000, f"{size} bytes; pictures in sight come on top"


def found_of(area: int):
    from segport.entry import Found
    from segport.regions import Regions

    return Found((16, 16), area, 0.9, Regions(1, area))


def test_every_option_is_in_run_json_but_the_settings_of_a_later_version_are_passed_over(tree: Path) -> None:
    path = tree / "in-masks/run.json"
    document = json.loads(path.read_text())
    assert document["settings"]["model"] == str(TINY)
    document["settings"]["of_a_later_version"] = 1
    path.write_text(json.dumps(document))
    assert main(["--report-only", str(path.parent)]) == 0
    document["settings"]["threshold"] = "high"
    path.write_text(json.dumps(document))
    assert main(["--report-only", str(path.parent)]) == 2


def test_a_report_of_moved_folders_still_shows_their_slices(tree: Path) -> None:
    assert infer(tree / "in", "--report") == 0
    (tree / "moved").mkdir()
    for name in ("in", "in-masks"):
        (tree / name).rename(tree / "moved" / name)
    assert infer(tree / "moved/in", "--report") == 0
    assert [s["label"] for s in data_of(tree / "moved/in-masks", "a")["slices"]] == ["1", "2"]
