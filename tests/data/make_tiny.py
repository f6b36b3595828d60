"""Write a model whose masks can be told by eye, so that runtime tests need neither torch nor weights.

Its logit is (FLAIR - 127.5) / 10, whatever the other two channels hold: tumour is where FLAIR is 128 or more. The
second file leaves out components below a tenth of a patient's largest. Run with the onnx package:
python tests/data/make_tiny.py tests/data/tiny.onnx && python tests/data/make_tiny.py tests/data/ruled.onnx 0.1
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from segport.contract import KEY, Export, Input, ModelContract, Origin, Output
from segport.golden import make_golden
from segport.segmenter import Segmenter

SIZE = 64


def make_model(contract: ModelContract, size: int = SIZE) -> onnx.ModelProto:
    weight = np.array([0, 0.1, 0], np.float32).reshape(1, 3, 1, 1)
    nodes = [
        helper.make_node("Transpose", ["pixels"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["nchw"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["float", "weight", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", size, size, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1, size, size])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(np.array([-12.75], np.float32), "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="tiny")
    helper.set_model_props(model, {KEY: contract.to_json()})
    return model


def main(target: Path, smallest_component: float = 0.0) -> None:
    export, output = Export(17, "by hand", "fp32"), Output(smallest_component=smallest_component)
    contract = ModelContract(Input(SIZE), output, origin=Origin("tiny", 1), export=export)
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder, "tiny.onnx")
        onnx.save(make_model(contract), first)
        golden = make_golden(Segmenter(first, device="cpu"), tolerance=1e-3, flip_share=1e-5)
    from dataclasses import replace

    onnx.save(make_model(replace(contract, golden=golden)), target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
