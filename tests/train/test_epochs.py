"""Rows of metrics.csv and the line of an epoch: nothing that was not measured is shown as a number."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from helpers import read
from scored import row, scored
from segport.errors import OutputError
from segport_train import plots
from segport_train.epochs import MEASURED, EpochReport, read_metrics, report_epoch, write_metrics
from segport_train.plots import draw_curves

FIGURES = {f"{part}_{name}": 0.1 + 0.2 for part in ("train", "val") for name in MEASURED}


def report(**changes: float | None) -> EpochReport:
    return EpochReport(**{"epoch": 1, "lr": 1e-3, "step_loss": 2 / 3 * 1e-7, "best": True} | FIGURES | changes)


def test_metrics_survive_a_resume_to_the_last_digit(tmp_path: Path) -> None:
    rows = [report(), report(epoch=2, **dict.fromkeys(f"train_{name}" for name in MEASURED)), report(epoch=3)]
    write_metrics(tmp_path / "metrics.csv", rows)
    assert read_metrics(tmp_path / "metrics.csv", 2) == rows[:2]
    assert "nan" not in (tmp_path / "metrics.csv").read_text()
    assert "None" not in (tmp_path / "metrics.csv").read_text()


def test_rows_of_an_older_version_say_nan_for_what_was_not_measured(tmp_path: Path) -> None:
    row = asdict(report()) | {"val_loss": float("nan")}
    text = "\n".join(",".join(map(str, cells)) for cells in (row.keys(), row.values()))
    (tmp_path / "metrics.csv").write_text(text + "\n")
    assert read_metrics(tmp_path / "metrics.csv", 1) == [report(val_loss=None)]


@pytest.mark.parametrize("part", ["train", "val"])
def test_the_line_of_an_epoch_leaves_out_what_was_not_measured(part: str) -> None:
    assert report().line.count("(nothing 0.3000)") == 2
    line = report(**dict.fromkeys(f"{part}_{name}" for name in MEASURED)).line
    assert f"{part}:" not in line
    assert "nan" not in line
    assert "None" not in line
    assert line.count("(nothing 0.3000)") == 1
    assert line.endswith("best")


def test_curves_are_drawn_from_what_was_measured(tmp_path: Path) -> None:
    nothing = dict.fromkeys(FIGURES)
    sizes = set()
    for name, rows in (("none", [report(**nothing)]), ("some", [report(**nothing), report(epoch=2)])):
        draw_curves(tmp_path / f"{name}.png", [asdict(r) for r in rows])
        sizes.add(read(tmp_path / f"{name}.png").shape)
    assert len(sizes) == 1
    assert (read(tmp_path / "none.png") != read(tmp_path / "some.png")).any()


def test_a_row_has_each_figure_in_its_own_place() -> None:
    one = scored(("a", row(4), row(8)), ("b", row(2), row(0)), ("c", row(3), row(3)))
    found = report_epoch(3, 0.1, 0.2, {"val": replace(one, loss_sum=0.9)}, best=False)
    assert (found.epoch, found.lr, found.step_loss, found.best, found.train_accuracy) == (3, 0.1, 0.2, False, None)
    assert found.val_loss == pytest.approx(0.3)
    assert found.val_accuracy == pytest.approx(24 / 30)
    assert found.val_nothing == pytest.approx(19 / 30)
    assert found.val_dice_pooled == pytest.approx(14 / 20)
    assert found.val_dice_mean_per_patient == pytest.approx((8 / 12 + 0 + 1) / 3)


def test_metrics_that_lack_epochs_are_refused(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.csv", [report()])
    with pytest.raises(OutputError, match="1 of 2 are there"):
        read_metrics(tmp_path / "metrics.csv", 2)


def test_each_panel_shows_its_own_figures(tmp_path: Path, monkeypatch) -> None:
    drawn = {}
    monkeypatch.setattr(plots, "_save", lambda figure, path: drawn.update(enumerate(figure.axes)))
    figures = {name: n / 10 for n, name in enumerate(FIGURES)}
    draw_curves(tmp_path / "curves.png", [asdict(report(**figures))])
    shown = [{line.get_label(): line.get_ydata()[0] for line in axes.lines} for axes in drawn.values()]
    assert [set(one) for one in shown] == [
        {"step_loss", "train_loss", "val_loss"},
        {f"{part}_dice_{name}" for part in ("train", "val") for name in ("pooled", "mean_per_patient")},
        {f"{part}_{name}" for part in ("train", "val") for name in ("accuracy", "nothing")},
    ]
    assert all(value == figures[name] for one in shown for name, value in one.items() if name != "step_loss")
