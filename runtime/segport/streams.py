"""What libraries print: C++ writes to the process's own stderr, where Python's redirection does not reach it."""

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout

STDERR = 2  # the file descriptor


@contextmanager
def capture() -> Iterator[list[str]]:
    """Keep from the terminal what Python prints on stdout and stderr, and what anything else writes to stderr.

    The list holds both texts once the block is left, also by an exception. Lines of other threads are kept with them.
    Where there is no stderr, or no place for a temporary file, stderr stays as it is.
    """
    said, printed = list[str](), io.StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(printed), _stderr_to(said):
            yield said
    finally:
        said.append(printed.getvalue())


@contextmanager
def _stderr_to(said: list[str]) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            before = os.dup(STDERR)
            stack.callback(os.close, before)
            file = stack.enter_context(tempfile.TemporaryFile())  # a pipe would block whoever writes more than it holds
        except OSError:
            yield
            return
        os.dup2(file.fileno(), STDERR)
        try:
            yield
        finally:
            os.dup2(before, STDERR)
            file.seek(0)
            said.append(file.read().decode("utf-8", "replace"))  # Windows' own messages come in its code page
