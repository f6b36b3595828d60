"""Every error segport raises on purpose, and the exit code each one means.

    SegportError
    ├── UsageError    wrong or impossible combination of arguments          exit 2
    ├── SliceError    one slice or mask cannot be read or used              exit 1
    ├── ModelError    a model or checkpoint is refused                      exit 3
    ├── DeviceError   the device that was asked for is not there            exit 3
    ├── OutputError   results cannot be written, or would replace others    exit 3
    └── GateError     an exported model does not give the same masks        exit 1

The library raises; only commands (`cli`, `command`, `console`) print and set the exit code.
"""


class SegportError(Exception):
    """Base of all errors; `exit_code` is what a command returns when one of them ends it."""

    exit_code = 3


class UsageError(SegportError):
    """Arguments that are wrong, or that cannot be combined."""

    exit_code = 2


class SliceError(SegportError):
    """A slice or mask that cannot be read or used; other slices go on."""

    exit_code = 1


class ModelError(SegportError):
    """A model file or checkpoint that is refused."""


class DeviceError(SegportError):
    """A device that was asked for and is not usable."""


class OutputError(SegportError):
    """An output that cannot be written, or that would replace earlier results."""


class GateError(SegportError):
    """An exported model whose masks differ from the reference, or a comparison that proves nothing."""

    exit_code = 1
