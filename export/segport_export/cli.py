"""The command seg-export."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from segport import __version__
from segport.command import run_command
from segport.errors import UsageError
from segport_export.settings import NEWEST_OPSET, OLDEST_OPSET, PRECISIONS, ExportSettings

MISSING = "seg-export needs the export extra ({name} is missing); remedy: pip install 'segport[export]'"
PATH = click.Path(path_type=Path)


class Batch(click.ParamType):  # type: ignore[type-arg]  # generic only in some releases of click
    """`dynamic` (None) or a number."""

    name = "dynamic|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Return the number, None for `dynamic`."""
        return None if value in ("dynamic", None) else int(click.INT.convert(value, param, ctx))


@click.command(context_settings={"show_default": True, "max_content_width": 110})
@click.argument("checkpoint", type=PATH)
@click.option("--out", type=PATH, required=True, help="The .onnx to write.")
@click.option("--opset", default=ExportSettings.opset, help=f"Exactly this one, {OLDEST_OPSET} to {NEWEST_OPSET}.")
@click.option("--precision", type=click.Choice(PRECISIONS), default=ExportSettings.precision)
@click.option("--calibration", type=PATH, show_default="the run's training part", help="Slices for the int8 ranges.")
@click.option("--calibration-slices", default=ExportSettings.calibration_slices, help="How many of them.")
@click.option("--reduce-range", is_flag=True, help="int8 weights of 7 bits, for CPUs without VNNI.")
@click.option("--batch", type=Batch(), default="dynamic", help="Slices a call: any number, or exactly this one.")
@click.option("--rewrite/--no-rewrite", default=ExportSettings.rewrite, help="Make the graph faster, exactly.")
@click.option("--parity", type=PATH, show_default="the run's other patients", help="Slices to compare masks on.")
@click.option(
    "--smallest-component",
    type=float,
    metavar="SHARE",
    show_default="the checkpoint's",
    help="seg-infer leaves out components below this share of a patient's largest; 0 leaves out none.",
)
@click.option("--dice-budget", type=float, show_default="the precision's", help="Dice that may be lost.")
@click.option("--junit", type=PATH, help="Also write the gate's checks as JUnit XML.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.version_option(__version__, prog_name="seg-export")
def command(*, as_json: bool, **options: Any) -> int:
    """Turn CHECKPOINT (of seg-train) into an .onnx that is proven to give the same masks, or refuse."""
    settings = ExportSettings(**options)
    try:
        from segport_export.export import export_model
    except ModuleNotFoundError as error:
        raise UsageError(MISSING.format(name=error.name)) from error

    result = export_model(settings, lambda text: print(text, file=sys.stderr))
    if result.parity.caution:
        print(f"note: {result.parity.caution}", file=sys.stderr)
    if as_json:
        document = {"path": str(result.path), "bytes": result.size, "exporter": result.exporter}
        lists = {"rewrites": result.rewrites, "kept_float": result.kept}
        click.echo(json.dumps(document | lists | {"parity": result.parity.as_json()}))
        return 0
    for name, value in result.parity.rows().items():
        click.echo(f"{name:22} {value}".encode("utf-8", "backslashreplace").decode())  # names may hold any byte
    if settings.rewrite:
        click.echo(f"{'rewritten':22} {', '.join(result.rewrites) or 'nothing to rewrite'}")
    if result.kept:
        click.echo(f"{'kept in fp32':22} {', '.join(result.kept)}")
    click.echo(f"{result.path}: {settings.precision}, opset {settings.opset}, {result.size / 1e6:.1f} MB, passed")
    print(f"next: seg-infer FOLDER --model {result.path}", file=sys.stderr)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code: 0, 1 the gate failed, 2 usage, 3 cannot go on, 130 interrupted."""
    return run_command(command, arguments, name="seg-export", interrupted="interrupted; no file was written")
