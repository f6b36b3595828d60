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


@click.command(context_settings={"show_default": True, "max_content_width": 110})
@click.argument("checkpoint", type=PATH)
@click.option("--out", type=PATH, required=True, help="The .onnx to write.")
@click.option("--opset", default=ExportSettings.opset, help=f"Exactly this one, {OLDEST_OPSET} to {NEWEST_OPSET}.")
@click.option("--precision", type=click.Choice(PRECISIONS), default=ExportSettings.precision)
@click.option("--calibration", type=PATH, show_default="the run's training part", help="Slices for the int8 ranges.")
@click.option("--calibration-slices", default=ExportSettings.calibration_slices, help="How many of them.")
@click.option("--parity", type=PATH, show_default="the run's other patients", help="Slices to compare masks on.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.version_option(__version__, prog_name="seg-export")
def command(*, as_json: bool, **options: Any) -> int:
    """Turn CHECKPOINT (of seg-train) into an .onnx that is proven to give the same masks, or refuse."""
    settings = ExportSettings(**options)
    try:
        from segport_export.export import export_model
    except ModuleNotFoundError as error:
        raise UsageError(MISSING.format(name=error.name)) from error

    result = export_model(settings)
    if as_json:
        document = {"path": str(result.path), "bytes": result.size, "exporter": result.exporter}
        click.echo(json.dumps(document | {"parity": result.parity.as_json()}))
        return 0
    p = result.parity
    rows = {
        "slices compared": f"{p.slices} ({p.foreground:.2%} foreground), batch sizes 1 to {p.batch_sizes[-1]}",
        "logit difference": f"largest {p.max_difference:.3g}, mean {p.mean_difference:.3g}",
        "mask pixels that flip": f"{p.flips} of {p.pixels} ({p.flip_share:.4%}), at most {p.tolerance.flips:.4%} may",
        "farthest flip": f"{p.worst_flip:.3g} from the threshold's logit, at most {p.tolerance.logit:g} is allowed",
        "Dice between masks": f"pooled {p.dice_pooled:.5f}, worst slice {p.worst_slice_dice:.4f} ({p.worst_slice})",
    }
    if p.truth_dice_reference is not None:
        rows["Dice against truth"] = (
            f"PyTorch {p.truth_dice_reference:.4f}, model {p.truth_dice_candidate:.4f} (pooled)"
        )
    for name, value in rows.items():
        click.echo(f"{name:22} {value}")
    click.echo(f"{result.path}: {settings.precision}, opset {settings.opset}, {result.size / 1e6:.1f} MB, passed")
    print(f"next: seg-infer FOLDER --model {result.path}", file=sys.stderr)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code: 0, 1 the gate failed, 2 usage, 3 cannot go on, 130 interrupted."""
    return run_command(command, arguments, name="seg-export", interrupted="interrupted; no file was written")
