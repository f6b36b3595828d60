"""Leave out the taps of dilated convolutions that read nothing but padding: exact, in float and in int8.

On a 16x16 map a 3x3 kernel of rate 24 sees padding with all taps but the centre one; at rate 4 the first four rows of
the output never use the kernel's first row. ONNX Runtime multiplies those zeros all the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from segport_export.graph import Builder, Convolution, convolution_attributes, given, same_convolutions, values

# Bands of an axis save up to 2/3 of dilation / size of the taps and cost copies. Measured with int8, two cores, 16x16
# maps: rows pay from dilation 4; columns, whose bands are not contiguous, from 8; at dilation 2 neither does.
ROWS_FROM, COLUMNS_FROM = 1 / 4, 1 / 2


@dataclass(frozen=True)
class Band:
    """Consecutive output positions of one axis that use the same taps, and the input positions those read.

    `taps`, `source`: first and one past the last; `pad`: padding that is left, on both sides.
    """

    taps: tuple[int, int]
    source: tuple[int, int]
    pad: int = 0

    @property
    def kernel(self) -> int:
        """How many taps."""
        return self.taps[1] - self.taps[0]


def bands(size: int, kernel: int, dilation: int) -> list[Band]:
    """Return the bands of an axis, in order, for a stride of 1 and padding that keeps the size."""
    reach = [(tap - kernel // 2) * dilation for tap in range(kernel)]
    found: dict[tuple[int, int], list[int]] = {}
    for position in range(size):
        used = [tap for tap in range(kernel) if 0 <= position + reach[tap] < size]
        found.setdefault((used[0], used[-1] + 1), []).append(position)
    return [
        Band(taps, (positions[0] + reach[taps[0]], positions[-1] + reach[taps[1] - 1] + 1))
        for taps, positions in found.items()
    ]


def crop_to_centre(graph: ir.Graph) -> int:
    """Turn kernels of which only the centre tap reads data into 1x1 kernels, in place; return how many."""
    found = [c for c in same_convolutions(graph) if c.kernel > 1 and c.dilation >= c.size]
    for conv in found:
        centre = values(conv.weights)[:, :, conv.kernel // 2, conv.kernel // 2][:, :, np.newaxis, np.newaxis]
        conv.node.replace_input_with(1, Builder(graph).constant(centre, f"{conv.weights.name}_centre"))
        for name, value in convolution_attributes((1, 1), (0, 0), 1).items():
            conv.node.attributes.add(ir.AttrInt64s(name, value))
    return len(found)


def cut_into_bands(graph: ir.Graph) -> int:
    """Replace dilated convolutions by one for each group of output positions that use the same taps, in place.

    Works on float convolutions and on those between DequantizeLinear and QuantizeLinear, whose bands keep the scales:
    the integers that come out are the same. Kernels are cut by Slice nodes on the one stored tensor, which engines
    fold while loading, so that the file does not grow. Returns how many convolutions were replaced.
    """
    found = 0
    for conv in same_convolutions(graph):
        by_rows, by_columns = (conv.size * share <= conv.dilation < conv.size for share in (ROWS_FROM, COLUMNS_FROM))
        if conv.kernel > 1 and (by_rows or by_columns):
            cut = bands(conv.size, conv.kernel, conv.dilation)
            whole = [Band((0, conv.kernel), (0, conv.size), conv.dilation * (conv.kernel // 2))]
            _replace(graph, conv, cut if by_rows else whole, cut if by_columns else whole)
            found += 1
    return found


def _replace(graph: ir.Graph, conv: Convolution, rows: Sequence[Band], columns: Sequence[Band]) -> None:
    build = Builder(graph)
    quantize = _quantize_after(conv.node)
    # Cells that read the same input with as many taps (the four corners, say) become one convolution.
    groups: dict[tuple[tuple[int, int], tuple[int, int], int, int], list[tuple[int, int]]] = {}
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            groups.setdefault((row.source, column.source, row.kernel, column.kernel), []).append((i, j))
    cells: dict[tuple[int, int], ir.Value] = {}
    for places in groups.values():
        y = _convolve(build, conv, [(rows[i], columns[j]) for i, j in places])
        if quantize is not None:
            y = build.node("QuantizeLinear", [y, *quantize.inputs[1:]])
        channels = len(values(_source(conv.node, 1)))
        for k, place in enumerate(places):
            cells[place] = y if len(places) == 1 else build.slice(y, {1: (k * channels, (k + 1) * channels)})
    lines = [build.join([cells[i, j] for j in range(len(columns))], axis=3) for i in range(len(rows))]
    whole, last = build.join(lines, axis=2), quantize or conv.node
    build.place_after(last)
    ir.convenience.replace_all_uses_with(last.outputs[0], whole)
    graph.remove([n for n in (quantize, conv.node) if n is not None], safe=True)


def _convolve(build: Builder, conv: Convolution, cells: Sequence[tuple[Band, Band]]) -> ir.Value:
    """Return the convolution of cells that read the same input: their channels one after the other."""
    row, column = cells[0]
    x = build.slice(_source(conv.node, 0), {2: row.source, 3: column.source})
    kernels = [build.slice(_source(conv.node, 1), {2: r.taps, 3: c.taps}) for r, c in cells]
    inputs = [x, build.join(kernels, axis=0)]
    inputs += [_repeat(build, _source(conv.node, k), len(cells)) for k in range(2, len(conv.node.inputs))]
    for k, source in enumerate(inputs):
        dequantize = _dequantize_before(conv.node, k)
        if dequantize is not None:
            times = len(cells) if k > 0 else 1
            scales = [_repeat(build, given(s), times) for s in dequantize.inputs[1:]]
            inputs[k] = build.node("DequantizeLinear", [source, *scales], dict(dequantize.attributes))
    shape = row.kernel, column.kernel
    return build.node("Conv", inputs, convolution_attributes(shape, (row.pad, column.pad), conv.dilation))


def _repeat(build: Builder, constant: ir.Value, times: int) -> ir.Value:
    """Return a value per channel for `times` as many channels; a scalar as it is."""
    if times == 1 or values(constant).ndim == 0:
        return constant
    return build.constant(np.tile(values(constant), times), f"{constant.name}_repeated")


def _source(conv: ir.Node, index: int) -> ir.Value:
    """Return what lies behind the DequantizeLinear of an input, or the input."""
    dequantize = _dequantize_before(conv, index)
    return given((conv if dequantize is None else dequantize).inputs[0 if dequantize else index])


def _dequantize_before(conv: ir.Node, index: int) -> ir.Node | None:
    producer = given(conv.inputs[index]).producer()
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None


def _quantize_after(conv: ir.Node) -> ir.Node | None:
    users = conv.outputs[0].consumers()
    return users[0] if _dequantize_before(conv, 0) and [u.op_type for u in users] == ["QuantizeLinear"] else None
