"""seg-export: a checkpoint in, an .onnx out that is proven to give the same masks."""

from typing import TYPE_CHECKING, Any

import segport as segport  # first of all: it switches ONNX Runtime's telemetry off, which the quantiser imports

if TYPE_CHECKING:
    from segport_export.assertion import assert_parity

__all__ = ["assert_parity"]


def __getattr__(name: str) -> Any:
    """Import `assert_parity` (and PyTorch with it) when it is asked for: `seg-export --help` must not wait for it."""
    if name != "assert_parity":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from segport_export.assertion import assert_parity

    return assert_parity
