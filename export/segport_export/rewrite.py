"""Exact rewrites of the graph: the same logits with fewer multiplications. Each has an equality test of its own.

Not done: normalisation folded into the first convolution (its padding would no longer be background, so inexact); the
pooled branch as a bias of the projection (exact in float, but no faster, and one more rounding in int8: the mean
difference of a logit rose from 0.024 to 0.030).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import Sequential
from onnx_ir.passes.common import (
    IdentityEliminationPass,
    LiftConstantsToInitializersPass,
    RemoveUnusedNodesPass,
    ShapeInferencePass,
)

from segport.errors import GateError
from segport_export.branches import merge_parallel_branches
from segport_export.graph import given, static_shape, values
from segport_export.taps import crop_to_centre, cut_into_bands

Rewrite = Callable[[ir.Graph], int]


def take_pixels_as_quantized(graph: ir.Graph) -> int:
    """Drop Cast, Mul and QuantizeLinear behind the uint8 pixels where they give back the pixels, in place.

    That is so where a grey level is one quantum: the factor is the scale and the zero point is 0. Returns 0 or 1.
    """
    for quantize in [n for n in graph if n.op_type == "QuantizeLinear"]:
        multiply = given(quantize.inputs[0]).producer()
        cast = given(multiply.inputs[0]).producer() if multiply is not None and multiply.op_type == "Mul" else None
        if multiply is None or cast is None or cast.op_type != "Cast":
            continue
        pixels = given(cast.inputs[0])
        scale, zero = (values(given(quantize.inputs[k])) for k in (1, 2))
        if pixels.dtype == ir.DataType.UINT8 and np.all(values(given(multiply.inputs[1])) == scale) and not zero.any():
            ir.convenience.replace_all_uses_with(quantize.outputs[0], pixels)
            return 1
    return 0


# For every precision, before quantisation: merged branches share a scale.
FLOAT_REWRITES: tuple[Rewrite, ...] = (crop_to_centre, merge_parallel_branches)
# After it, keeping the scales: ONNX Runtime's float kernels skip padding by themselves, bands gain nothing there.
INT8_REWRITES: tuple[Rewrite, ...] = (cut_into_bands, take_pixels_as_quantized)


def rewrite(source: Path, target: Path, rewrites: Sequence[Rewrite]) -> tuple[str, ...]:
    """Write `source`, rewritten, to `target`; return the names of the rewrites that changed something.

    With no rewrites, only constants are gathered and identities and unused nodes dropped. Raises `GateError` for a
    graph whose height and width are not constants: which taps read padding then depends on the slice.
    """
    model = ir.load(source)
    pixels = model.graph.inputs[0]
    if rewrites and 0 in static_shape(pixels)[1:]:
        raise GateError(f"rewrites need a constant height and width, {pixels.name} is {pixels.shape}")
    tidy = Sequential(LiftConstantsToInitializersPass(size_limit=0), IdentityEliminationPass(), RemoveUnusedNodesPass())
    tidy(model)
    applied = []
    for change in rewrites:
        ShapeInferencePass(strict_mode=True)(model)
        if change(model.graph):
            applied.append(change.__name__.replace("_", "-"))
        tidy(model)
    ir.save(model, target)
    return tuple(applied)
