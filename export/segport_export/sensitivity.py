"""Which layers cost int8 its masks: measured one by one, not guessed."""

from pathlib import Path

import numpy as np
import onnx

from segport.preprocess import logit, stack
from segport.session import open_session
from segport_export.parity import Reference
from segport_export.tolerance import TOLERANCES

SLICES = 8  # enough to rank layers: what counts are pixels near the threshold, thousands a slice
KEPT = (2, 4, 8)  # how many layers are kept in fp32, one try after the other; each layer costs speed


def rank_layers(float_graph: Path, int8_graph: Path, reference: Reference, folder: Path) -> list[str]:
    """Return the names of convolutions, the most sensitive first.

    Each in turn gets its fp32 weights back in the int8 graph; what counts is how far logits of pixels near the
    threshold (those that int8 may flip) then still are from the reference. Ranges of activations stay: between two
    quantised layers a tensor is quantised whatever its layer is. `folder`: for temporary files.
    """
    expected, pixels = _near(reference)
    centre = logit(reference.contract.output.threshold)
    near = np.abs(expected - centre) <= TOLERANCES["int8"].logit
    near |= not near.any()  # no pixel near the threshold: all count
    original = onnx.load(float_graph).graph
    weights = {t.name: t for t in original.initializer}
    kernels = {n.name: weights[n.input[1]] for n in original.node if n.op_type == "Conv"}
    model, variant = onnx.load(int8_graph), folder / "variant.onnx"
    dequantized = {o for n in model.graph.node if n.op_type == "DequantizeLinear" for o in n.output}
    left: dict[str, float] = {}
    for conv in model.graph.node:
        if conv.op_type != "Conv" or conv.name not in kernels or conv.input[1] not in dequantized:
            continue
        quantized, conv.input[1] = conv.input[1], f"{conv.name}_fp32"
        model.graph.initializer.add().CopyFrom(kernels[conv.name])
        model.graph.initializer[-1].name = conv.input[1]
        onnx.save(model, variant)
        found = open_session(variant, device="cpu").run(pixels)
        left[conv.name] = float(np.abs(found - expected)[near].mean())
        conv.input[1] = quantized
        del model.graph.initializer[-1]
    return sorted(left, key=left.__getitem__)


def _near(reference: Reference) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and prepared pixels of slices whose mask has most to lose: most pixels near the threshold."""
    centre = logit(reference.contract.output.threshold)
    counts = [
        0 if one.hostile else int((np.abs(logits - centre) <= TOLERANCES["int8"].logit).sum())
        for one, logits in zip(reference.slices, reference.logits, strict=True)
    ]
    chosen = np.argsort(counts, kind="stable")[-SLICES:]
    return reference.logits[chosen], stack([reference.prepared[i] for i in chosen])
