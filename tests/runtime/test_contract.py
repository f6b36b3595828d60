import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segport.contract import SCHEMA, Export, Golden, Input, ModelContract, Origin, Output, TrainingRange
from segport.errors import ModelError

share = st.floats(0.01, 0.99)
texts = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3)
contracts = st.builds(
    ModelContract,
    input=st.builds(Input, size=st.integers(8, 512), scale=st.floats(1e-4, 1)),
    output=st.builds(Output, threshold=share, smallest_component=share),
    training_range=st.builds(
        TrainingRange,
        sizes=st.lists(st.tuples(st.integers(1, 999), st.integers(1, 999)), max_size=3).map(tuple),
        intensity=st.lists(st.tuples(st.floats(0, 255), st.floats(0, 255)), max_size=3).map(tuple),
    ),
    origin=st.builds(Origin, versions=texts, dice=st.dictionaries(st.text(max_size=8), share, max_size=3)),
    export=st.none()
    | st.builds(
        Export, opset=st.integers(11, 25), exporter=st.text(max_size=8), precision=st.just("int8"), parity=texts
    ),
    golden=st.none()
    | st.builds(Golden, names=st.just(("a",)), logits=st.text(max_size=9), tolerance=share, flip_share=share),
)


@given(contracts)
def test_json_gives_back_the_same_contract(contract: ModelContract) -> None:
    assert ModelContract.from_json(contract.to_json(), "model.onnx") == contract


def test_entries_of_a_later_version_within_the_schema_are_passed_over(contract: ModelContract) -> None:
    document = json.loads(contract.to_json())
    document["input"]["new_in_a_later_version"] = 1
    assert ModelContract.from_json(json.dumps(document), "m") == contract


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema=SCHEMA + 1), "pip install --upgrade segport"),
        (lambda d: d.update(schema="1"), "names no schema version"),
        (lambda d: d.pop("schema"), "names no schema version"),
        (lambda d: d["input"].pop("size"), "lacks a required entry"),
        (lambda d: d["input"].update(size="128"), "contract.input.size is '128', expected int"),
        (lambda d: d["input"].update(size=True), "contract.input.size is 'True', expected int"),
        (lambda d: d["input"].update(size=4), "input.size is 4"),
        (lambda d: d["input"].update(size=10**9), "input.size is 1000000000, expected 8 to 2048"),
        (lambda d: d["output"].update(threshold=10**400), "is not a number a contract may hold"),
        (lambda d: d["output"].update(threshold=2**63 + 1), "is not a number a contract may hold"),
        (lambda d: d["origin"].update(seed=-(10**4000)), "is not a number a contract may hold"),
        (lambda d: d["origin"].update(settings=[[]] * 200_000), "entries, at most 100000 are read"),
        (lambda d: d["input"].update(channel_order="BGR"), "contract.input.channel_order is 'BGR'"),
        (lambda d: d["input"].update(std=[1, 0, 1]), "input.std"),
        (lambda d: d["input"].update(levels=[9, 9]), "input.levels"),
        (lambda d: d["input"].update(percentiles=[1]), "contract.input.percentiles"),
        (lambda d: d["output"].update(threshold=1), "output.threshold"),
        (lambda d: d["output"].update(smallest_component=1.5), "output.smallest_component"),
        (lambda d: d["output"].update(classes=["a", "b"]), "output.classes"),
        (lambda d: d.update(origin=3), "contract.origin is '3', expected an object"),
    ],
)
def test_a_wrong_contract_is_refused_with_what_was_expected(contract: ModelContract, change, message: str) -> None:
    document = json.loads(contract.to_json())
    change(document)
    with pytest.raises(ModelError) as refusal:
        ModelContract.from_json(json.dumps(document), "model.onnx")
    assert message in str(refusal.value)


def test_a_contract_of_the_first_schema_leaves_out_no_component(contract: ModelContract) -> None:
    document = json.loads(contract.to_json()) | {"schema": 1}
    del document["output"]["smallest_component"]
    read = ModelContract.from_json(json.dumps(document), "model.onnx")
    assert (read.schema, read.output.smallest_component) == (1, 0.0)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"schema": NaN}', '{"schema": 1e400}', "[" * 90_000, "[" * 10**6])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="contract"):
        ModelContract.from_json(text, "model.onnx")


def test_a_contract_cannot_be_built_with_values_that_contradict_each_other(contract: ModelContract) -> None:
    with pytest.raises(ModelError, match="contradicts itself"):
        replace(contract, input=replace(contract.input, percentiles=(99, 1)))
