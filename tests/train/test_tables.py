"""The report's tables against figures counted by hand."""

from dataclasses import replace

import pytest

from scored import row, scored
from segport_train.calibration import Calibration
from segport_train.evaluation import Evaluation
from segport_train.tables import calibration_table, describe_part, score_table, site_table, size_table
from segport_train.worst import choose_worst

TWO = scored(
    ("a", row(4), row(8)),  # Dice 2 * 4 / 12
    ("a", row(2), row(0)),  # a mask without tumour
    ("b", row(0), row(5)),  # missed
    ("b", row(3, start=1), row(2)),  # one pixel found: 2 * 1 / 5
    ("b", row(0), row(0)),
)


def cells(table: str) -> dict[str, list[str]]:
    """Return the rows of Markdown tables by their first cell."""
    lines = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {first.strip(): [c.strip() for c in rest] for first, *rest in lines}


def test_every_aggregation_gives_the_figure_counted_by_hand() -> None:
    found = {name: values[0] for name, values in cells(score_table(TWO)).items()}
    a, b = 8 / 14, 2 / 10
    assert found["Dice, pooled pixels"] == f"{10 / 24:.4f}"
    assert found["Dice, mean per patient"] == found["Dice, median per patient"] == f"{(a + b) / 2:.4f}"
    assert found["Dice, mean per tumour slice"] == f"{(8 / 12 + 0 + 2 / 5) / 3:.4f}"
    assert found["IoU, pooled pixels"] == f"{5 / 19:.4f}"
    assert found["precision, pooled pixels"] == f"{5 / 9:.4f}"
    assert found["precision, mean per patient"] == f"{(4 / 6 + 1 / 3) / 2:.4f}"
    assert found["recall, pooled pixels"] == f"{5 / 15:.4f}"
    assert found["recall, mean per patient"] == f"{(4 / 8 + 1 / 7) / 2:.4f}"
    assert found["accuracy, pooled pixels"] == f"{1 - 14 / 50:.4f}"
    assert found["slices without tumour that get a mask"] == "1 of 2 (50.0 %)"
    assert found["tumour slices that are missed"] == "1 of 3 (33.3 %)"
    assert found["smallest tumour found in a slice"] == "2 pixels"
    assert found["largest tumour missed in a slice"] == "5 pixels"


def test_predicting_nothing_and_copying_stand_beside_the_network() -> None:
    copied = scored(("a", row(8), row(8)), ("a", row(1), row(0)), ("b", row(0), row(5)), ("b", row(2), row(2)))
    table = cells(score_table(TWO, copied))
    assert table["Dice, pooled pixels"][2:] == ["0.0000", f"{20 / 26:.4f}"]
    assert table["accuracy, pooled pixels"][2:] == [f"{35 / 50:.4f}", f"{34 / 40:.4f}"]
    assert table["tumour slices that are missed"][2:] == ["3 of 3 (100.0 %)", "1 of 3 (33.3 %)"]
    assert "copying" not in score_table(TWO)


def test_intervals_hold_the_patients_and_one_patient_has_none() -> None:
    assert cells(score_table(TWO))["Dice, mean per patient"][1] == "0.200 to 0.571"
    assert cells(score_table(TWO))["Dice, pooled pixels"][1] == "0.200 to 0.571"
    single = cells(score_table(scored(("a", row(4), row(8)))))
    assert {values[1] for name, values in single.items() if "Dice" in name or "accuracy" in name} == {"-"}


def test_a_part_without_tumour_shows_no_score_of_tumour() -> None:
    table = cells(score_table(scored(("a", row(0), row(0)), ("b", row(0), row(0)))))
    assert table["Dice, pooled pixels"][0] == table["Dice, mean per tumour slice"][0] == "-"
    assert table["Dice, mean per patient"][0] == "1.0000"
    assert table["tumour slices that are missed"][0] == "0 of 0"
    assert table["smallest tumour found in a slice"][0] == table["largest tumour missed in a slice"][0] == "none"
    assert table["HD95, mean per patient"][0] == "-"


def test_tumours_are_in_quarters_by_their_size() -> None:
    table = cells(size_table(scored(*(("a", row(n % 2 * n), row(n)) for n in (9, 3, 1, 7, 5, 2, 8)))))
    assert table["smallest quarter"] == ["1 to 2", "2", "1", "0.5000", "-", "0.0000"]
    assert table["second quarter"] == ["3 to 5", "2", "2", "1.0000", "-", "0.0000"]
    assert table["third quarter"] == ["7 to 8", "2", "1", "0.5000", "-", "0.0000"]
    assert table["largest quarter"] == ["9 to 9", "1", "1", "1.0000", "-", "0.0000"]


def test_quarters_have_intervals_over_patients_and_the_neighbours_masks_beside_them() -> None:
    one = scored(*((p, row(n * (p == "a")), row(n)) for n in (1, 2, 3, 4) for p in "ab"))
    copied = scored(*((p, row(n * (p == "b")), row(n)) for n in (1, 2, 3, 4) for p in "ab"))
    assert cells(size_table(one, copied))["smallest quarter"] == [
        "1 to 1", "2", "1", "0.5000", "0.000 to 1.000", "0.0000", "0.5000",
    ]  # fmt: skip


def test_slices_of_several_runs_keep_their_neighbours_masks_though_their_rows_are_the_same() -> None:
    def runs(*masks: int) -> Evaluation:
        first, second = (scored(*(("ab"[i], row(m), row(n)) for n, m in enumerate(masks[i::2], 1))) for i in (0, 1))
        return first + second

    assert [s.row for s in runs(0, 0, 0, 0).slices] == [0, 0, 1, 1]
    table = cells(size_table(runs(0, 0, 0, 0), runs(1, 0, 0, 2)))
    assert [table[f"{name} quarter"][-1] for name in ("smallest", "second", "third", "largest")] == [
        "1.0000", "0.0000", "0.0000", "1.0000",
    ]  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 3])
def test_fewer_tumour_slices_than_quarters_leave_some_empty(count: int) -> None:
    table = cells(size_table(scored(("a", row(0), row(0)), *(("a", row(n), row(n)) for n in range(1, count + 1)))))
    assert [r[1] for name, r in table.items() if "quarter" in name] == ["1"] * count + ["0"] * (4 - count)
    assert table["largest quarter"] == ["-", "0", "0", "-", "-", "-"]


def test_sites_are_scored_by_themselves_and_slices_of_none_are_left_out() -> None:
    north, south = scored(("a", row(4), row(8)), site="no|rth"), scored(("b", row(2), row(2)), first=1, site="south")
    table = cells(site_table({"test": north + south + scored(("c", row(0), row(5)), first=2)}))
    assert table["no\\|rth"] == ["test", "1", "1", f"{8 / 12:.4f}", "-", f"{8 / 12:.4f}", "-", "0.0000"]
    assert table["south"][3] == "1.0000"
    assert len(table) == 4  # header, line, two sites
    assert site_table({"test": TWO}) == ""


def test_calibration_is_shown_where_it_was_measured() -> None:
    certain = Calibration.empty()
    certain.pixels[[0, -1]], certain.tumour[[0, -1]], certain.probability[-1] = (99, 1), (1, 0), 1.0
    table = cells(calibration_table({"test": replace(TWO, calibration=certain), "val": TWO}))
    assert table["test"] == [f"{(1 + 1) / 100:.4f}", "1.0000", "0.0100", "1.0000"]
    assert "val" not in table
    assert calibration_table({"val": TWO}) == ""


def test_the_heading_counts_what_a_part_holds() -> None:
    assert describe_part("test", TWO) == "test: 2 patients, 5 slices, 3 of them with tumour"
    assert describe_part("val", scored(("a", row(0), row(0)))) == "val: 1 patient, 1 slice, 0 of them with tumour"


def test_the_worst_slices_are_of_several_patients_and_the_gravest_of_equals_first() -> None:
    missed: Evaluation = scored(
        *(("a", row(0), row(n)) for n in (3, 9, 5, 7)), ("b", row(1), row(4)), ("b", row(1), row(1))
    )
    assert [s.row for s in choose_worst(missed)] == [1, 3, 2, 0, 4]
    filled = choose_worst(scored(*(("a", row(0), row(9)) for _ in range(12)), *((p, row(1), row(9)) for p in "bcdef")))
    assert [s.patient for s in filled] == ["a"] * 5 + list("bcdef")
    spread = choose_worst(scored(*((p, row(0), row(9)) for p in "abcd" for _ in range(9))))
    assert [s.patient for s in spread] == ["a"] * 3 + ["b"] * 3 + ["c"] * 3 + ["d"]
    many = scored(*((f"p{n}", row(n % 5), row(9)) for n in range(30)))
    assert [s.counts.tp for s in choose_worst(many)] == [0] * 6 + [1] * 4
    assert choose_worst(scored(("a", row(4), row(4)), ("a", row(0), row(0)))) == []
