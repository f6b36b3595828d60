"""The command seg-infer."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segport import __version__
from segport.command import run_command
from segport.errors import UsageError
from segport.settings import DEVICES, ENGINES, VOLUME_FORMATS, RunSettings
from segport.text import printable

if TYPE_CHECKING:
    from segport.plan import Plan
    from segport.segmenter import Segmenter

PATH = click.Path(path_type=Path)
INTERRUPTED = "interrupted; what was written is whole; run it again to go on"


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
@click.option("--overlay", is_flag=True, help="Also write slices with outlines, and a sheet a patient.")
@click.option("--probabilities", is_flag=True, help="Also write probabilities as 16-bit PNG (65535 is 1).")
@click.option("--report", is_flag=True, help="Also write OUT/report/index.html, to look at what was found.")
@click.option(
    "--report-only", type=PATH, metavar="OUT", help="Write that page of an earlier run from its output folder."
)
@click.option("--score", is_flag=True, help="Compare with the _mask files that are there: Dice, IoU, HD95.")
@click.option("--masks", type=PATH, help="Folder that mirrors INPUT and holds the true masks.")
@click.option("--spacing", type=(float, float, float), metavar="H W D", help="Pixel height, width, slice distance: mm.")
@click.option("--channel", multiple=True, metavar="ROLE=GLOB", help="NIfTI: which files are flair, pre and post.")
@click.option("--series", multiple=True, metavar="ROLE=WHAT", help="DICOM: which series is flair, pre or post.")
@click.option(
    "--format",
    "volume_format",
    type=click.Choice(VOLUME_FORMATS),
    default=RunSettings.volume_format,
    help="Masks of volumes: NIfTI from NIfTI and SEG from DICOM, or NIfTI from both.",
)
@click.option("--min-volume", type=float, metavar="MM3", help="Leave out smaller components of a volume's mask.")
@click.option("--all-components", is_flag=True, help="Keep components that the model's rule for small ones leaves out.")
@click.option("--keep-identity", is_flag=True, help="Name outputs of DICOM by patient; else by a hash.")
@click.option("--overwrite", is_flag=True, help="Segment all slices anew, and replace whatever is in the way.")
@click.option("--verify", is_flag=True, help="Trust no file times: compare contents with those of the earlier run.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and why; write nothing.")
@click.option("--self-test", is_flag=True, help="Check the model on its golden slices, on this machine.")
@click.option("--info", is_flag=True, help="Show the model's contract.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.version_option(__version__, prog_name="seg-infer")
def command(
    inputs: tuple[Path, ...],
    out: Path | None,
    *,
    report_only: Path | None,
    dry_run: bool,
    self_test: bool,
    info: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Write a tumour mask for every slice (.tif, .png, .jpg, .bmp) and volume (NIfTI, DICOM) in INPUT."""
    settings = RunSettings(**options)
    if (info or self_test) and (inputs or out is not None or report_only is not None):
        raise UsageError("--info and --self-test look at the model alone: they take no INPUT, --out or --report-only")
    if info:
        return _show_info(settings, as_json)
    if self_test:
        return _self_test(settings, as_json)
    if report_only is not None:
        if inputs or out is not None or replace(settings, overwrite=False, verify=False) != RunSettings():
            raise UsageError(
                "--report-only takes an output folder alone, and the settings of the run that is there;"
                " for INPUT there is --report"
            )
        return _report_later(report_only, settings, as_json=as_json, quiet=quiet)
    if not inputs:
        raise UsageError("name a folder of slices, as in: seg-infer folder/ (or --info, --self-test, --help)")
    return _infer(inputs, out, settings, dry_run=dry_run, as_json=as_json, quiet=quiet)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code: 0, 1 a slice failed, 2 usage, 3 cannot go on, 130 interrupted."""
    return run_command(
        command,
        arguments,
        name="seg-infer",
        interrupted=INTERRUPTED,
    )


def _infer(
    inputs: tuple[Path, ...], out: Path | None, settings: RunSettings, *, dry_run: bool, as_json: bool, quiet: bool
) -> int:
    from segport.console import Console, summarise
    from segport.plan import RUN, plan_run

    plan = plan_run(inputs, out, settings)
    if dry_run:
        return _show_plan(plan, settings, as_json)
    from segport.run import run
    from segport.session import divide_threads, usable_cores

    segmenter = _open(settings, lanes=divide_threads(settings.threads or usable_cores()))
    print(printable(f"{segmenter.model.name} on {segmenter.session.describe()}"), file=sys.stderr)
    with Console(plan, settings, quiet=quiet) as console:
        result = run(plan, settings, segmenter, console.tick, console.stop, console.draw)
    console.say_problems(result)
    if as_json:
        click.echo((plan.out / RUN).read_text(encoding="utf-8"), nl=False)
    else:
        click.echo(summarise(result, settings))
    return result.exit_code


def _report_later(out: Path, settings: RunSettings, *, as_json: bool, quiet: bool) -> int:
    from segport.console import Console
    from segport.report.later import write_later

    def ask(slices: int) -> bool:
        console.draw(slices)
        return console.stop()

    with Console(None, settings, quiet=quiet) as console:
        page = write_later(out, overwrite=settings.overwrite, verify=settings.verify, stop=ask)
    if page is None:
        print(INTERRUPTED, file=sys.stderr)
        return 130
    name = click.format_filename(page)
    click.echo(json.dumps({"report": name}) if as_json else f"report: {name}")
    return 0


def _show_plan(plan: "Plan", settings: RunSettings, as_json: bool) -> int:
    """Say for every slice what would be done, and why; nothing is written, not even the output folder."""
    from segport.freshness import Freshness, Verdict
    from segport.ledger import Ledger
    from segport.maskrule import MaskRule
    from segport.modelfile import read_contract
    from segport.run import UNLISTED, refuse_others_results
    from segport.segmenter import default_model
    from segport.stacks import group_stacks
    from segport.work import Work

    model = settings.model or default_model()
    counts: Counter[str] = Counter()
    lines: list[dict[str, str]] = []
    with closing(Ledger(plan.out, writable=False)) as ledger:
        refuse_others_results(plan, settings, ledger)
        contract = read_contract(model)
        freshness = Freshness(ledger, plan, settings, model, contract)
        unlisted = list[tuple[str, str]]()

        def slices() -> Iterator[tuple[Work, Verdict]]:
            for folder in plan.folders():
                if not folder.readable:
                    unlisted.append((str(folder.path), UNLISTED))
                for stack in group_stacks(folder.jobs, MaskRule.of(settings, contract), contract.input.size):
                    yield from zip(stack, freshness.judge_stack(stack), strict=True)

        volumes = ((job, freshness.judge(job)) for job in plan.volumes.jobs)
        for job, verdict in chain[tuple[Work, Verdict]](slices(), volumes):
            counts[verdict.kind] += 1
            source, target = job.shown, str(job.target(plan.out, job.endings(settings)[-1]))
            if as_json:
                told = {"notes": "; ".join(job.notes)} if job.notes else {}
                state = {"state": verdict.kind, "reason": verdict.reason}
                lines.append({"slice": source, "mask": target} | state | told)
            else:
                why = f"{verdict.kind}: {verdict.reason}" if verdict.reason else "up to date"
                click.echo(printable(f"{source} -> {target} ({why})"))
                for note in job.notes:
                    click.echo(printable(f"    {note}"))
    for what, why in [*plan.volumes.problems, *unlisted]:
        print(printable(f"will fail: {what}: {why}" if what else why), file=sys.stderr)
    if as_json:
        click.echo(json.dumps(lines))
        return 0
    kinds = "slices and volumes" if plan.volumes.jobs else "slices"
    click.echo(
        f"{counts['stale']} {kinds} to segment, {counts['fresh']} up to date, {counts['refused']} refused;"
        " nothing was written"
    )
    return 0


def _open(settings: RunSettings, *, lanes: int = 1) -> "Segmenter":
    from segport.segmenter import Segmenter

    return Segmenter(
        settings.model,
        engine=settings.engine,
        device=settings.device,
        threads=settings.threads,
        allow_fallback=settings.allow_fallback,
        batch_size=settings.batch_size,
        lanes=lanes,
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
    click.echo(printable(f"{path.name} (schema {contract.schema})"))
    for section in ("input", "output", "training_range", "origin", "export"):
        click.echo(f"\n{section}")
        for name, value in (document[section] or {"": "absent"}).items():
            click.echo(printable(f"  {name:18} {value}"))
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
