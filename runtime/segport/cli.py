"""The command seg-infer."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segport import __version__
from segport.command import run_command
from segport.errors import UsageError
from segport.settings import DEVICES, ENGINES, RunSettings

if TYPE_CHECKING:
    from segport.plan import Plan
    from segport.run import RunResult
    from segport.scoring import Scores
    from segport.segmenter import Segmenter

PATH = click.Path(path_type=Path)


@click.command(context_settings={"show_default": True, "max_content_width": 110})
@click.argument("inputs", nargs=-1, type=PATH, metavar="[INPUT]...")
@click.option("--model", type=PATH, show_default="the embedded model", help="An .onnx that seg-export wrote.")
@click.option("--out", type=PATH, show_default="INPUT-masks beside INPUT", help="Folder for masks and summary.")
@click.option("--engine", type=click.Choice(ENGINES), default=RunSettings.engine, help="What computes the network.")
@click.option("--device", type=click.Choice(DEVICES), default=RunSettings.device)
@click.option("--allow-fallback", is_flag=True, help="With --device cuda: go on on the CPU when CUDA is not usable.")
@click.option("--batch-size", default=RunSettings.batch_size, help="Slices a call of the network.")
@click.option("--threads", type=int, show_default="all usable cores", help="Threads of the network on the CPU.")
@click.option("--threshold", type=float, show_default="the model's", help="Probability from which a pixel is tumour.")
@click.option("--window", type=(float, float), metavar="LO HI", help="Intensities that become 0 and 255 (not uint8).")
@click.option("--patient-pattern", help="Regular expression whose first group in the path names the patient.")
@click.option("--overlay", is_flag=True, help="Also write each slice with the mask's outline.")
@click.option("--probabilities", is_flag=True, help="Also write probabilities as 16-bit PNG (65535 is 1).")
@click.option("--score", is_flag=True, help="Compare with the _mask files that are there: Dice, IoU, accuracy.")
@click.option("--masks", type=PATH, help="Folder that mirrors INPUT and holds the true masks.")
@click.option("--overwrite", is_flag=True, help="Replace masks that are already in --out.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing.")
@click.option("--self-test", is_flag=True, help="Check the model on its golden slices, on this machine.")
@click.option("--info", is_flag=True, help="Show the model's contract.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.version_option(__version__, prog_name="seg-infer")
def command(
    inputs: tuple[Path, ...],
    out: Path | None,
    *,
    dry_run: bool,
    self_test: bool,
    info: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Write a tumour mask for every slice in INPUT (folders, or single files): .tif, .png, .jpg, .bmp."""
    settings = RunSettings(**options)
    if info:
        return _show_info(settings, as_json)
    if self_test:
        return _self_test(settings, as_json)
    if not inputs:
        raise UsageError("name a folder of slices, as in: seg-infer folder/ (or --info, --self-test, --help)")
    return _infer(inputs, out, settings, dry_run=dry_run, as_json=as_json, quiet=quiet)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code: 0, 1 a slice failed, 2 usage, 3 cannot go on, 130 interrupted."""
    return run_command(
        command, arguments, name="seg-infer", interrupted="interrupted; the masks that were written are whole"
    )


def _infer(
    inputs: tuple[Path, ...], out: Path | None, settings: RunSettings, *, dry_run: bool, as_json: bool, quiet: bool
) -> int:
    from tqdm import tqdm

    from segport.plan import RUN, plan_run
    from segport.run import run

    plan = plan_run(inputs, out, settings)
    if dry_run:
        return _show_plan(plan, as_json)
    segmenter = _open(settings)
    print(f"{segmenter.model.name} on {segmenter.session.provider}", file=sys.stderr)
    with tqdm(total=len(plan.jobs), unit="slice", disable=True if quiet else None) as bar:
        result = run(plan, settings, segmenter, lambda _: bar.update())
    _report_problems(result)
    if as_json:
        click.echo((plan.out / RUN).read_text(encoding="utf-8"), nl=False)
        return result.exit_code
    folder = click.format_filename(result.out)
    click.echo(f"{result.written} masks in {folder} ({len(result.failed)} failed, {result.ignored} ignored)")
    if settings.overlay:
        click.echo(f"overlays beside them: *_overlay.png (red: mask{', green: truth' if settings.score else ''})")
    if settings.score:
        click.echo(_describe_scores(result.scores))
    return result.exit_code


def _show_plan(plan: "Plan", as_json: bool) -> int:
    from segport.plan import MASK

    pairs = [(str(job.slice.path), str(job.target(plan.out, MASK))) for job in plan.jobs]
    if as_json:
        click.echo(json.dumps([{"slice": source, "mask": target} for source, target in pairs]))
        return 0
    for source, target in pairs:
        click.echo(f"{click.format_filename(source)} -> {click.format_filename(target)}")
    click.echo(f"{len(plan.jobs)} slices, {plan.ignored} other files ignored; nothing was written")
    return 0


def _report_problems(result: "RunResult") -> None:
    for r in result.failed:
        print(f"failed: {r.job.slice.path}: {r.message}", file=sys.stderr)
    for folder in result.unreadable:
        print(f"failed: {folder}: the folder cannot be listed; are its permissions right?", file=sys.stderr)
    for r in result.unscored:
        print(f"{r.job.slice.path}: {r.message}", file=sys.stderr)
    if result.note:
        print(result.note, file=sys.stderr)


def _describe_scores(scores: "Scores | None") -> str:
    if scores is None:
        return "no slice has a true mask to score against"
    return (
        f"Dice pooled {scores.dice_pooled:.4f}, mean per patient {scores.dice_mean_per_patient:.4f},"
        f" median {scores.dice_median_per_patient:.4f}; IoU pooled {scores.iou_pooled:.4f}\n"
        f"accuracy {scores.accuracy:.4f}, where predicting nothing scores {scores.nothing_accuracy:.4f}"
        f" ({scores.patients} patients, {scores.slices} slices)"
    )


def _open(settings: RunSettings) -> "Segmenter":
    from segport.segmenter import Segmenter

    return Segmenter(
        settings.model,
        engine=settings.engine,
        device=settings.device,
        threads=settings.threads,
        allow_fallback=settings.allow_fallback,
    )


def _show_info(settings: RunSettings, as_json: bool) -> int:
    from segport.modelfile import read_contract
    from segport.segmenter import default_model

    path = settings.model or default_model()
    contract = read_contract(path)
    document = asdict(contract)
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return 0
    click.echo(f"{path.name} (schema {contract.schema})")
    for section in ("input", "output", "training_range", "origin", "export"):
        click.echo(f"\n{section}")
        for name, value in (document[section] or {"": "absent"}).items():
            click.echo(f"  {name:18} {value}")
    click.echo(f"\ngolden\n  {'slices':18} {len(contract.golden.names) if contract.golden else 0}")
    return 0


def _self_test(settings: RunSettings, as_json: bool) -> int:
    from segport.golden import self_test

    segmenter = _open(settings)
    test = self_test(segmenter)
    if as_json:
        click.echo(json.dumps(asdict(test) | {"passed": test.passed, "provider": segmenter.session.provider}))
    else:
        click.echo(
            f"{'passed' if test.passed else 'FAILED'} on {segmenter.session.provider},"
            f" {segmenter.session.threads} threads: {test.flips} of {test.pixels} mask pixels flip"
            f" (at most {test.flip_share:.3%} may), the farthest {test.worst_flip:.3f} from the threshold"
            f" (at most {test.tolerance:g}); largest difference of a logit {test.max_difference:.3f}"
        )
    return 0 if test.passed else 1
