"""Merge the parallel 1x1 branches of the atrous pyramid into one convolution: exact, on the float graph."""

import numpy as np
import onnx_ir as ir

from segport_export.graph import Builder, convolution_attributes, given, same_convolutions, static_shape, values


def merge_parallel_branches(graph: ir.Graph) -> int:
    """Turn 1x1 convolutions of one tensor, each with a Relu, that one Concat joins into one, in place.

    The Concat's order changes, so its one reader, a 1x1 convolution, gets its input channels in the new order. Returns
    how many convolutions were merged.
    """
    plain = {c.node for c in same_convolutions(graph) if c.kernel == 1}
    for concat in [n for n in graph if n.op_type == "Concat" and n.attributes["axis"].as_int() == 1]:
        readers = concat.outputs[0].consumers()
        branches = [b if (b := _branch(given(v))) in plain else None for v in concat.inputs]
        pixels = next((b.inputs[0] for b in branches if b is not None), None)
        chosen = [i for i, b in enumerate(branches) if b is not None and b.inputs[0] is pixels]
        if len(chosen) < 2 or len(readers) != 1 or readers[0] not in plain:
            continue
        merged = [b for i in chosen if (b := branches[i]) is not None]
        build = Builder(graph)
        joined = [
            build.constant(np.concatenate([values(given(b.inputs[k])) for b in merged]), f"merged_branches_{k}")
            for k in (1, 2)
        ]
        y = build.node("Conv", [merged[0].inputs[0], *joined], convolution_attributes((1, 1), (0, 0), 1))
        y = build.node("Relu", [y])
        order = chosen + [i for i in range(len(branches)) if i not in chosen]
        widths = [static_shape(given(v))[1] for v in concat.inputs]
        starts = np.cumsum([0, *widths])
        rows = np.concatenate([np.arange(starts[i], starts[i] + widths[i]) for i in order])
        weights = given(readers[0].inputs[1])
        readers[0].replace_input_with(1, build.constant(values(weights)[:, rows], f"{weights.name}_ordered"))
        rest = [concat.inputs[i] for i in order[len(chosen) :]]
        all_of_them = build.node("Concat", [y, *rest], {"axis": 1})
        build.place_after(concat)
        ir.convenience.replace_all_uses_with(concat.outputs[0], all_of_them)
        return len(chosen)
    return 0


def _branch(value: ir.Value) -> ir.Node | None:
    """Return the convolution, with a bias, whose Relu this is, if nothing else reads either."""
    relu = value.producer()
    if relu is None or relu.op_type != "Relu" or len(value.consumers()) != 1:
        return None
    conv = given(relu.inputs[0]).producer()
    if conv is None or conv.op_type != "Conv" or len(conv.outputs[0].consumers()) != 1:
        return None
    return conv if len(conv.inputs) == 3 else None
