"""The files of a report, from a network whose masks are known."""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from helpers import read, square, write
from scored import CPU, FLAIR
from segport.contract import Input, ModelContract
from segport.errors import UsageError
from segport_train.dataset import SliceDataset
from segport_train.evaluation import evaluate
from segport_train.report import write_report
from segport_train.results import read_part
from segport_train.settings import TrainSettings
from segport_train.table import Problem, build_table
from segport_train.webpage import read_blocks

CONTRACT = ModelContract(Input(40))
NAMES = ("p|0", "腫瘍", "p2")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a run folder; two patients are in both parts, slices 2 and 5 of each are val."""
    root = tmp_path / "data"
    for name in NAMES:
        for n in range(1, 6):
            write(root / f"{name}/{name}_{n}.png", square(40, low=8, high=8 if n == 5 else 24 + n, value=60 * (n % 4)))
            write(root / f"{name}/{name}_{n}_mask.png", square(40, low=8, high=24 if n < 5 else 8)[..., 1])
    report(tmp_path, TrainSettings(root, tmp_path / "run", size=40, split="slice"), problems=[])
    return tmp_path / "run"


def report(folder: Path, settings: TrainSettings, *, problems: list[Problem], unseen: bool = False) -> None:
    table, _ = build_table(settings)
    table["site"] = table.patient.str[:2]
    later = table.number.isin([2, 5]) if settings.split == "slice" else table.patient == NAMES[0]
    data = {
        part: SliceDataset(rows, CONTRACT, seed=0, augmented=False)
        for part, rows in (("train", table[~later]), ("val", table[later]))
    }
    parts = {part: evaluate(FLAIR, one, CPU, "bce", 4, detailed=True) for part, one in data.items()}
    prepared = SimpleNamespace(problems=problems, hardware=CPU, unseen=unseen)
    write_report(settings, CONTRACT, prepared, FLAIR, data, parts)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_report_of_a_slice_split_shows_the_leak(run: Path) -> None:
    text = (run / "report.md").read_text(encoding="utf-8")
    assert "## val: 3 patients, 6 slices, 3 of them with tumour" in text
    train, val = text.split("## val:")
    assert "copying the nearest training slice" not in train
    assert "read the scores as optimistic" in val
    copied = next(line for line in val.splitlines() if line.startswith("| Dice, pooled pixels"))
    assert copied.endswith("| 0.6667 |")  # slice 2 takes 1's mask, which is the same; slice 5, empty, takes 4's
    assert "There is no test part" in text
    assert "The epoch was chosen by mean Dice over val's patients with tumour" in text
    notes = text.split("## What the figures mean")[1]
    assert [notes.count(f"- *{name}*") for name in ("ECE", "Copying the nearest training slice", "Loss")] == [1, 1, 1]
    assert "| p\\|" in text
    assert "腫瘍/腫瘍_2.png" in text


def test_a_report_of_a_patient_split_copies_nothing(run: Path, tmp_path: Path) -> None:
    settings = TrainSettings(tmp_path / "data", tmp_path / "other", size=40, tumour_only=True, fold=(1, 3))
    report(tmp_path, settings, problems=[Problem(Path("a"), "is odd")])
    text = (tmp_path / "other/report.md").read_text(encoding="utf-8")
    assert "copying" not in text.split("## What the figures mean")[0]
    assert "optimistic" not in text
    assert "Split by patient, fold 1 of 3." in text
    assert "Left out: 1 files" in text
    assert "`--tumour-only`" in text


def test_the_page_has_what_the_markdown_has_and_names_stay_text(run: Path) -> None:
    page, text = (run / "report.html").read_text(encoding="utf-8"), (run / "report.md").read_text(encoding="utf-8")
    assert page.count("<h2>") == text.count("\n## ")
    assert page.count("<table>") == text.count("\n| --- |")
    assert '<img src="worst.png" alt="Worst slices">' in page
    assert "<bdi>p|0/p|0_2.png</bdi>" in page
    assert "<em>Pooled pixels</em>" in page
    assert "Not a medical device" in page
    assert "script-src &#39;none&#39;" in page
    assert (run / "report.css").exists()
    (row,) = (
        block.rows[1]
        for block in read_blocks("# t\n\n| a | b |\n| --- | ---: |\n| *x* | <b>\\|</b> |")
        if block.kind == "table"
    )
    assert row == ["*x*", "<b>|</b>"]


def test_the_worst_slices_are_drawn_with_both_outlines(run: Path) -> None:
    picture = read(run / "worst.png").astype(int)  # BGR
    blue, green, red = picture[..., 0], picture[..., 1], picture[..., 2]
    assert ((green > 150) & (red < 120) & (blue < 120)).sum() > 100
    assert ((red > 150) & (green < 120) & (blue < 120)).sum() > 100
    assert read(run / "calibration.png").ndim == 3


def test_a_perfect_network_has_no_worst_slice(run: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "data").rglob("*[0-9].png"):
        mask = read(path.with_name(f"{path.stem}_mask.png"))
        write(path, np.stack([np.zeros_like(mask), mask, np.zeros_like(mask)], axis=2))
    report(tmp_path, TrainSettings(tmp_path / "data", tmp_path / "perfect", size=40), problems=[])
    assert not (tmp_path / "perfect/worst.png").exists()
    assert "worst.png" not in (tmp_path / "perfect/report.md").read_text(encoding="utf-8")
    assert "| Dice, pooled pixels | 1.0000 |" in (tmp_path / "perfect/report.md").read_text(encoding="utf-8")


def test_every_slice_and_patient_has_its_row(run: Path) -> None:
    patients = [r for r in rows(run / "patients.csv") if r["part"] == "val"]
    assert [r["patient"] for r in patients] == sorted(NAMES)
    assert {(r["slices"], r["tumour_pixels"]) for r in patients} == {("2", "256")}
    slices = [r for r in rows(run / "slices.csv") if r["part"] == "val"]
    for r in patients:
        of_patient = [s for s in slices if s["patient"] == r["patient"]]
        assert all(int(r[n]) == sum(int(s[n]) for s in of_patient) for n in ("tp", "fp", "fn", "tn"))
        assert {s["site"] for s in of_patient} == {r["site"]}
        assert float(r["recall"]) == round(int(r["tp"]) / 256, 4)
    assert {s["hd95"] for s in slices if s["tumour_pixels"] == s["mask_pixels"] == "0"} == {""}


def test_what_was_written_is_read_back_as_it_was(run: Path, tmp_path: Path) -> None:
    table, _ = build_table(TrainSettings(tmp_path / "data", tmp_path / "run"))
    table["site"] = table.patient.str[:2]
    data = SliceDataset(table[table.number.isin([2, 5])], CONTRACT, seed=0, augmented=False)
    measured, back = evaluate(FLAIR, data, CPU, "bce", 4, detailed=True), read_part(run, "val")
    assert back.slices == measured.slices
    assert back.calibration is not None
    assert measured.calibration is not None
    assert (back.calibration.probability == measured.calibration.probability).all()
    assert back.calibration.error() == measured.calibration.error()


def test_results_that_are_not_whole_are_refused(run: Path) -> None:
    with pytest.raises(UsageError, match="holds 0 slices and 0 bins of the part test"):
        read_part(run, "test")
    lines = (run / "calibration.csv").read_text().splitlines()
    (run / "calibration.csv").write_text("\n".join(lines[:-3]))
    with pytest.raises(UsageError, match="97 bins of the part val"):
        read_part(run, "val")
    (run / "calibration.csv").write_text("\n".join(lines)[:-12])  # within the last line
    with pytest.raises(UsageError, match="cannot be read"):
        read_part(run, "val")
    (run / "slices.csv").write_text("part,slice\nval,a\n")
    with pytest.raises(UsageError, match="cannot be read"):
        read_part(run, "val")
    (run / "slices.csv").unlink()
    with pytest.raises(UsageError, match="is it a finished run"):
        read_part(run, "val")
