"""How all three commands end: errors become one line on stderr and an exit code."""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from threading import current_thread, main_thread

import click

from segport.errors import SegportError
from segport.limits import pixel_limit
from segport.text import printable_lines


def run_command(command: click.Command, arguments: Sequence[str] | None, *, name: str, interrupted: str) -> int:
    """Run a click command and return its exit code.

    SIGTERM interrupts as Ctrl+C does. The command's own return value where it ends well; 2 for wrong usage; `exit_code`
    of a `SegportError`; 130 when interrupted, after printing `interrupted`; 3 when the operating system says no.
    """
    try:
        pixel_limit()  # OpenCV ends the process where its variable is no number
        _print_any_name()
        with _interrupted_by_sigterm():
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


def _print_any_name() -> None:
    """Have the streams escape what their encoding lacks: a name must not end a run (Windows writes files as cp1252)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if current_thread() is not main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
