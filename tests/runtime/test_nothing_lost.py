"""No mask is faked, swapped or lost: names that collide, truths in the way, failures halfway."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from helpers import TINY, infer, read, rows, square, write
from segport import folders
from segport.errors import ModelError, UsageError
from segport.onnxruntime_engine import OrtRunner
from segport.outputs import write_bytes
from segport.segmenter import Segmenter
from segport.session import Session
from segport.sources import list_slices
from trees import segment_three


def test_long_names_that_end_alike_are_not_mixed_up_between_threads(tmp_path: Path) -> None:
    paths = [tmp_path / f"{letter}_{'x' * 120}.png" for letter in "abcdefgh"]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            list(pool.map(lambda path: write_bytes(path, path.name.encode()), paths))
    assert all(path.read_bytes() == path.name.encode() for path in paths)
    assert len(list(tmp_path.iterdir())) == 8


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("{0}/in/p_1.png --out {0}/in", 2),
        ("{0}/in --out {0}/truth --score --masks {0}/truth", 2),
        ("{0}/in --out {0}/truth/new --score --masks {0}/truth", 2),
        ("{0}/in --out {0}/in/masks", 2),
    ],
)
def test_a_true_mask_is_never_replaced(tmp_path: Path, capsys, options: str, code: int) -> None:
    write(tmp_path / "in/p_1.png", square())
    write(tmp_path / "in/p_1_mask.png", np.full((64, 64), 7, np.uint8))
    write(tmp_path / "in/masks/p_1_mask.png", np.full((64, 64), 7, np.uint8))
    write(tmp_path / "truth/p_1_mask.png", np.full((64, 64), 7, np.uint8))
    assert infer(*options.format(tmp_path).split(), "--overwrite") == code
    error = capsys.readouterr().err
    assert "choose another folder" in error or "choose a folder beside" in error
    assert (read(tmp_path / "in/p_1_mask.png") == 7).all()
    assert (read(tmp_path / "in/masks/p_1_mask.png") == 7).all()
    assert (read(tmp_path / "truth/p_1_mask.png") == 7).all()


def test_every_slice_gets_a_mask_of_its_own_name(tmp_path: Path) -> None:
    names = ["a.tif", "a.png", "a.png.tif", "b.tif"]
    for i, name in enumerate(names):
        write(tmp_path / "in" / name, square(64 + i))
    assert infer(tmp_path / "in") == 0
    sizes = {p.name: read(p).shape[0] for p in (tmp_path / "in-masks").glob("*_mask.png")}
    assert sizes == {f"{name}_mask.png": 64 + i for i, name in enumerate(names)}


def test_another_runs_summary_is_not_replaced(tmp_path: Path, capsys) -> None:
    write(tmp_path / "a/p_1.png", square())
    write(tmp_path / "b/q_1.png", square())
    assert infer(tmp_path / "a", "--out", tmp_path / "out") == 0
    before = (tmp_path / "out/summary.csv").read_bytes()
    assert infer(tmp_path / "b", "--out", tmp_path / "out") == 3
    assert "holds the results of another run, over a" in capsys.readouterr().err
    assert (tmp_path / "out/summary.csv").read_bytes() == before


def test_an_old_overlay_does_not_stay_beside_a_new_mask(tmp_path: Path) -> None:
    write(tmp_path / "in/p_1.png", square())
    assert infer(tmp_path / "in", "--overlay") == 0
    assert infer(tmp_path / "in", "--overwrite") == 0
    assert not (tmp_path / "in-masks/p_1_overlay.png").exists()


def test_patients_of_the_same_name_in_two_inputs_stay_two(tmp_path: Path, capsys) -> None:
    for site, value in (("siteA", 200), ("siteB", 0)):
        write(tmp_path / site / "p1/p1_1.png", square(value=value))
        write(tmp_path / site / "p1/p1_1_mask.png", square()[..., 1])
    out = tmp_path / "out"
    assert infer(tmp_path / "siteA", tmp_path / "siteB", "--out", out, "--score") == 0
    assert [r["patient"] for r in rows(out)] == ["siteA/p1", "siteB/p1"]
    assert "2 patients" in capsys.readouterr().out
    assert infer(tmp_path / "siteA", tmp_path / "siteB", "--out", out, "--score", "--masks", tmp_path) == 2
    assert "--masks mirrors one input" in capsys.readouterr().err


def test_a_second_mask_of_a_slice_is_reported_and_the_first_taken(tmp_path: Path) -> None:
    write(tmp_path / "p_1.png", square())
    for suffix in ("png", "tif"):
        write(tmp_path / f"p_1_mask.{suffix}", square()[..., 1])
    listing = list_slices(tmp_path)
    assert [s.mask and s.mask.suffix for s in listing.slices] == [".png"]
    assert [m.suffix for m in listing.lone_masks] == [".tif"]


def test_masks_and_outputs_below_the_input_are_not_segmented(tmp_path: Path) -> None:
    write(tmp_path / "in/p_1.png", square())
    write(tmp_path / "in/annotations/p_1.png", square()[..., 1])
    write(tmp_path / "in/old/p_1_overlay.png", square())
    write(tmp_path / "in/old/p_1_probability.png", square())
    listing = list_slices(tmp_path / "in", masks=tmp_path / "in/annotations")
    assert [s.relative.as_posix() for s in listing.slices] == ["p_1.png"]
    assert listing.slices[0].mask == tmp_path / "in/annotations/p_1.png"
    assert listing.ignored == 2


def test_a_folder_that_cannot_be_listed_fails_and_the_others_go_on(tmp_path: Path, monkeypatch, capsys) -> None:
    write(tmp_path / "in/a/a_1.png", square())
    write(tmp_path / "in/b/b_1.png", square())
    real = os.scandir

    def denied(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(folders.os, "scandir", denied)
    assert infer(tmp_path / "in") == 1
    assert "in/b: the folder cannot be listed" in capsys.readouterr().err
    assert (tmp_path / "in-masks/a/a_1_mask.png").exists()
    document = json.loads((tmp_path / "in-masks/run.json").read_text())
    assert document["counts"]["unreadable"] == 1
    assert document["problems"][0]["path"] == str(tmp_path / "in/b")


class Runner:
    """Stands in for a session whose second call fails."""

    def __init__(self, failure) -> None:
        self.calls, self.failure = 0, failure

    def get_inputs(self):
        return [type("Port", (), {"shape": ["batch", 64, 64, 3]})()]

    def run(self, _, feed):
        self.calls += 1
        if self.calls > 1:
            return [self.failure()]
        return [np.zeros((len(feed["pixels"]), 1, 64, 64), np.float32)]


def nan() -> np.ndarray:
    return np.full((4, 1, 64, 64), np.nan, np.float32)


def out_of_memory() -> np.ndarray:
    raise RuntimeError("bad allocation\nmore")


def interrupt() -> np.ndarray:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (nan, 3, "not finite"),
        (out_of_memory, 3, "bad allocation; remedy: a smaller --batch-size"),
        (interrupt, 130, "what was written is whole"),
    ],
)
def test_when_inference_ends_the_run_what_was_written_is_in_the_summary(
    tmp_path: Path, monkeypatch, capsys, failure, code: int, message: str
) -> None:
    for n in range(1, 13):
        write(tmp_path / f"in/p_{n}.png", square())
    runner = Runner(failure)
    real_open = Segmenter.__init__

    def opened(self, *arguments, **options) -> None:
        real_open(self, *arguments, **options)
        self.session = Session(OrtRunner(runner), "CPUExecutionProvider", 1)

    monkeypatch.setattr(Segmenter, "__init__", opened)
    assert infer(tmp_path / "in", "--batch-size", 4) == code
    assert message in capsys.readouterr().err
    assert [r["slice"] for r in rows(tmp_path / "in-masks")] == ["1", "2", "3", "4"]
    assert len(list((tmp_path / "in-masks").glob("*_mask.png"))) == 4


def test_names_that_are_not_utf8_are_segmented_and_listed(tmp_path: Path) -> None:
    write(tmp_path / "in/p_1.png", square())
    source = os.fsencode(tmp_path / "in") + b"/caf\xe9_1.png"
    try:
        os.rename(tmp_path / "in/p_1.png", source)  # noqa: PTH104  (bytes)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    assert infer(tmp_path / "in") == 0
    assert rows(tmp_path / "in-masks")[0]["path"] == "caf\\udce9_1.png"
    assert len(list((tmp_path / "in-masks").glob("*_mask.png"))) == 1


def test_one_array_is_not_taken_for_a_list_of_slices(tiny: Segmenter) -> None:
    with pytest.raises(UsageError, match=r"predict\(\[pixels\]\)"):
        tiny.predict(square())  # type: ignore[arg-type]


def test_a_nan_logit_is_an_error_and_no_empty_mask() -> None:
    runner = Runner(nan)
    runner.calls = 1
    with pytest.raises(ModelError, match="not finite"):
        Session(OrtRunner(runner), "CPUExecutionProvider", 1).run(np.zeros((4, 64, 64, 3), np.uint8))


def test_a_dry_run_for_machines(tmp_path: Path, capsys) -> None:
    write(tmp_path / "in/p_1.png", square())
    assert infer(tmp_path / "in", "--dry-run", "--json") == 0
    (job,) = json.loads(capsys.readouterr().out)
    assert job["mask"].endswith("in-masks/p_1_mask.png")


def test_masks_of_a_linked_folder_go_beside_the_link(tmp_path: Path) -> None:
    write(tmp_path / "archive/case/p_1.png", square())
    (tmp_path / "work").mkdir()
    (tmp_path / "work/today").symlink_to(tmp_path / "archive/case")
    assert infer(tmp_path / "work/today") == 0
    assert (tmp_path / "work/today-masks/p_1_mask.png").exists()
    assert not (tmp_path / "archive/case-masks").exists()


def test_masks_without_score_are_a_misunderstanding(tmp_path: Path, capsys) -> None:
    write(tmp_path / "in/p_1.png", square())
    assert infer(tmp_path / "in", "--masks", tmp_path) == 2
    assert "needs --score" in capsys.readouterr().err


def test_inputs_can_be_added_to_a_run_but_not_taken_from_it(tmp_path: Path, capsys) -> None:
    for name in ("p1", "p2", "p3"):
        write(tmp_path / f"{name}/{name}_1.png", square())
    p1, p2, p3 = (tmp_path / name for name in ("p1", "p2", "p3"))
    out = ("--out", tmp_path / "out")
    assert infer(p1, p2, *out) == 0
    assert infer(p3, p2, p1, *out) == 0
    assert "2 of them up to date before" in capsys.readouterr().out
    assert [r["path"] for r in rows(tmp_path / "out")] == ["p3/p3_1.png", "p2/p2_1.png", "p1/p1_1.png"]
    assert infer(p1, p2, *out) == 3  # p3's rows would go
    assert infer(p1, "--out", tmp_path / "one") == 0
    assert infer(p1, p2, "--out", tmp_path / "one") == 3  # p1's mask would lie in another place


def test_a_pipe_in_the_place_of_a_true_mask_does_not_hang_the_run(tmp_path: Path, capsys) -> None:
    write(tmp_path / "in/a_1.png", square())
    os.mkfifo(tmp_path / "in/a_1_mask.png")
    assert infer(tmp_path / "in", "--score") == 1
    assert "its mask a_1_mask.png cannot be read (not a regular file)" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--self-test", "--info"])
def test_what_looks_at_the_model_alone_takes_no_slices(tmp_path: Path, capsys, option: str) -> None:
    write(tmp_path / "in/a_1.png", square())
    assert infer(tmp_path / "in", option) == 2
    assert infer(option, "--out", tmp_path / "out") == 2
    assert "look at the model alone" in capsys.readouterr().err


def test_names_that_the_stream_cannot_hold_do_not_end_a_run(tmp_path: Path) -> None:
    write(tmp_path / "患者/患者_1.png", square())
    command = [
        str(Path(sys.executable).parent / "seg-infer"),
        str(tmp_path / "患者"),
        "--model",
        str(TINY),
        "--device",
        "cpu",
    ]
    for more in ([], ["--dry-run"], ["--json"]):
        done = subprocess.run(
            [*command, *more], check=False, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "cp1252"}
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "患者-masks/患者_1_mask.png").exists()


def test_a_sheet_and_a_report_of_masks_that_are_replaced_do_not_pass_for_new(tmp_path: Path, capsys) -> None:
    segment_three(tmp_path)
    assert infer(tmp_path / "in", "--overlay", "--report") == 0
    assert (tmp_path / "in-masks/a_sheet.png").exists()
    write(tmp_path / "in/a_1.png", square(low=20))
    assert infer(tmp_path / "in") == 0
    assert f"shows an earlier run; seg-infer --report-only {tmp_path / 'in-masks'}" in capsys.readouterr().out
    assert not (tmp_path / "in-masks/a_sheet.png").exists()
    assert (tmp_path / "in-masks/b_sheet.png").exists()
    assert infer(tmp_path / "in", "--overlay") == 0
    assert (tmp_path / "in-masks/a_sheet.png").exists()


def test_a_dry_run_says_what_cannot_be_listed(tmp_path: Path, capsys, monkeypatch) -> None:
    write(tmp_path / "in/a_1.png", square())
    (tmp_path / "in/closed").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert infer(tmp_path / "in", "--dry-run") == 0
    assert f"will fail: {tmp_path / 'in/closed'}: the folder cannot be listed" in capsys.readouterr().err
