"""How all three commands end: errors become one line on stderr and an exit code."""

import sys
from collections.abc import Sequence

import click

from segport.errors import SegportError
from segport.limits import pixel_limit
from segport.text import printable_lines


def run_command(command: click.Command, arguments: Sequence[str] | None, *, name: str, interrupted: str) -> int:
    """Run a click command and return its exit code.

    The command's own return value where it ends well; 2 for wrong usage; `exit_code` of a `SegportError`; 130 when
    interrupted, after printing `interrupted`; 3 when the operating system says no.
    """
    try:
        pixel_limit()  # OpenCV ends the process where its variable is no number
        return int(command.main(arguments, prog_name=name, standalone_mode=False) or 0)
    except click.exceptions.Abort:
        print(interrupted, file=sys.stderr)
        return 130
    except click.ClickException as error:
        error.show()
        return 2
    except SegportError as error:
        print(f"error: {printable_lines(str(error))}", file=sys.stderr)
        return error.exit_code
    except (OSError, MemoryError) as error:
        print(f"error: {printable_lines(str(error) or 'out of memory')}", file=sys.stderr)
        return SegportError.exit_code
