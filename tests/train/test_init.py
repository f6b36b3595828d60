"""What a run starts from: every kind of file, what is said of it, and what is refused."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet50
from torchvision.models.segmentation import deeplabv3_resnet50

from helpers import TINY, square, write
from segport.contract import Input, ModelContract, Origin
from segport.errors import ModelError
from segport_train import init, loop
from segport_train.adopt import load_start
from segport_train.checkpoint import load_checkpoint, load_network, save_checkpoint
from segport_train.cli import main
from segport_train.init import IMAGENET_MEAN, IMAGENET_STD, IMAGENET_URL, Init, find_init, follow_model
from segport_train.model import PLUS, SegmentationNetwork
from segport_train.progress import Progress

CONTRACT = ModelContract(Input(32), origin=Origin(output_stride=16))
OPTIONS = {"out": Path("run"), "resume": False, "size": None, "output_stride": None, "architecture": None}


def small(build: Any, **options: Any) -> dict[str, torch.Tensor]:
    """Return the names and shapes of a network of torchvision, all values 0.01, which take no time to draw."""
    with torch.device("meta"):
        state = build(weights=None, **options).state_dict()
    return {name: torch.full(t.shape, 0.01) if t.is_floating_point() else torch.ones(()) for name, t in state.items()}


def no_step(trainer: object, data: object, progress: Progress, *more: object) -> Progress:
    return replace(progress, step=1, loss=0.5)


@pytest.fixture(scope="module")
def backbone() -> dict[str, torch.Tensor]:
    return small(resnet50)


@pytest.fixture(scope="module")
def whole() -> dict[str, torch.Tensor]:
    return small(deeplabv3_resnet50, weights_backbone=None, num_classes=21, aux_loss=True)


@pytest.fixture(scope="module")
def network() -> SegmentationNetwork:
    with torch.device("meta"):
        return SegmentationNetwork(CONTRACT, output_stride=16, auxiliary=True)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for p in range(4):
        for n in range(1, 3):
            write(tmp_path / f"data/p{p}/p{p}_{n}.png", square(32, low=8, high=24, value=100 * n + p))
            write(tmp_path / f"data/p{p}/p{p}_{n}_mask.png", square(32, low=8, high=24)[..., 1])
    return tmp_path / "data"


def saved(path: Path, state: object) -> Init:
    torch.save(state, path)
    return find_init(str(path))


def test_a_resnet50_is_the_backbone_and_its_classifier_of_pictures_is_left_out(backbone, network, tmp_path) -> None:
    start = load_start(saved(tmp_path / "a.pth", backbone), network)
    assert all(n.startswith("net.backbone.") for n in start.weights)
    assert len(start.weights) == len(backbone) - 2
    assert start.note.endswith(
        "took 318 of the network's 370 tensors;"
        " at random: pyramid (not in the file), head (not in the file), aux_classifier (not in the file)"
    )


def test_a_deeplabv3_comes_whole_but_for_its_classes(whole, network, tmp_path) -> None:
    start = load_start(saved(tmp_path / "a.pth", whole), network)
    assert "classifier.4.weight (21 classes in the file, 1 here)" in start.note
    assert "aux_classifier.4.bias (21 classes in the file, 1 here)" in start.note
    assert set(network.state_dict()) - set(start.weights) == {
        f"net.{head}.4.{kind}" for head in ("classifier", "aux_classifier") for kind in ("weight", "bias")
    }
    main_head = {n: t for n, t in whole.items() if not n.startswith("aux_classifier")}
    assert "aux_classifier (not in the file)" in load_start(saved(tmp_path / "b.pth", main_head), network).note


def test_a_decoder_is_at_random_and_what_is_not_used_is_said(whole, network, tmp_path) -> None:
    with torch.device("meta"):
        contract = replace(CONTRACT, origin=Origin(architecture=PLUS, output_stride=16))
        plus = SegmentationNetwork(contract, output_stride=16, auxiliary=True)
    one_class = {n: t[:1] if n.startswith(("classifier.4", "aux_classifier.4")) else t for n, t in whole.items()}
    start = load_start(saved(tmp_path / "a.pth", one_class), plus)
    own, given = set(plus.state_dict()), set(start.weights)
    assert {n.split(".")[1] for n in own - given} == {"decoder"}
    assert start.note.endswith("; the file's head is not used; at random: decoder (not in the file)")
    save_checkpoint(
        tmp_path / "plus.safetensors", SegmentationNetwork(contract, output_stride=16, auxiliary=True), contract
    )
    back = load_start(find_init(str(tmp_path / "plus.safetensors")), network)
    assert {n.split(".")[2] for n in set(network.state_dict()) - set(back.weights)} == {"1", "2", "4"}
    assert back.note.endswith("; the file's decoder is not used; at random: head (not in the file)")


def test_an_architecture_of_another_version_is_named(tmp_path: Path) -> None:
    contract = replace(CONTRACT, origin=Origin(architecture="unet"))
    with pytest.raises(ModelError, match="its architecture is unet, this version knows deeplabv3_resnet50 and"):
        SegmentationNetwork(contract, output_stride=16, auxiliary=True)
    save_checkpoint(tmp_path / "a.safetensors", torch.nn.Linear(1, 1), contract)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"a\.safetensors: its architecture is unet.*remedy: a newer segport"):
        load_network(tmp_path / "a.safetensors")


def test_names_of_torchvision_are_taken_from_safetensors_too(backbone, network, tmp_path) -> None:
    save_file(backbone, tmp_path / "a.safetensors")
    found = find_init(str(tmp_path / "a.safetensors"))
    assert found.kind == "torchvision"
    assert len(load_start(found, network).weights) == 318


class Danger:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("danger"),)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([1, 2], "holds no state dict"),
        ({3: torch.zeros(1)}, "holds no state dict"),
        ({}, "holds no tensors"),
        ({"model": {"a": torch.zeros(1)}}, "holds no state dict"),
        ({"a": torch.zeros(1)}, "holds a; expected a resnet50"),
        (Danger(), "no weights that can be read safely"),
        (nn.Linear(1, 1), "no weights that can be read safely"),
    ],
)
def test_a_pickle_that_is_no_state_dict_is_refused_and_never_run(
    network, tmp_path: Path, monkeypatch, content: object, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=expected):
        load_start(saved(tmp_path / "a.pth", content), network)
    assert not Path("danger").exists()


def test_bytes_that_are_no_file_of_torch_are_refused(network, tmp_path: Path) -> None:
    for content in (b"", b"hello", pickle.dumps({"a": 1}, 2)):
        (tmp_path / "a.pth").write_bytes(content)
        with pytest.raises(ModelError, match="holds no"):
            load_start(find_init(str(tmp_path / "a.pth")), network)
    with pytest.raises(ModelError, match="is not a file"):
        find_init(str(tmp_path / "b.pth"))


def test_values_that_are_no_numbers_are_refused(backbone, network, tmp_path: Path) -> None:
    state = backbone | {"conv1.weight": torch.full_like(backbone["conv1.weight"], float("nan"))}
    with pytest.raises(ModelError, match=r"net.backbone.conv1.weight: hold values that are not finite"):
        load_start(saved(tmp_path / "a.pth", state), network)


def test_tensors_that_do_not_fit_are_named(backbone, whole, network, tmp_path: Path) -> None:
    deeper = backbone | {"layer3.6.conv1.weight": torch.zeros(1)}
    wider = backbone | {"layer1.0.conv1.weight": torch.zeros(128, 64, 1, 1)}
    shorter = {n: t for n, t in backbone.items() if not n.startswith("layer4.2.bn3")}
    headless = {n: t for n, t in whole.items() if n != "classifier.1.weight"}
    for state, expected in (
        (deeper, "knows no net.backbone.layer3.6.conv1.weight"),
        (wider, r"other shapes for net.backbone.layer1.0.conv1.weight \[128, 64, 1, 1\]"),
        (shorter, "also has net.backbone.layer4.2.bn3.weight"),
        (headless, "also has net.classifier.1.weight"),
    ):
        with pytest.raises(ModelError, match=expected):
            load_start(saved(tmp_path / "a.pth", state), network)


def test_older_files_that_count_no_batches_are_taken(backbone, network, tmp_path: Path) -> None:
    older = {n: t for n, t in backbone.items() if "num_batches" not in n}
    assert len(load_start(saved(tmp_path / "a.pth", older), network).weights) == 265


def test_normalisation_is_that_of_the_weights(backbone, tmp_path: Path) -> None:
    found = saved(tmp_path / "a.pth", backbone)
    pixels = found.adapt(Input(32, levels=(1, 99)))
    assert (pixels.size, pixels.levels, pixels.mean, pixels.std) == (32, (1, 99), IMAGENET_MEAN, IMAGENET_STD)
    own = replace(CONTRACT, input=Input(32, scale=1, mean=(9, 8, 7), std=(6, 5, 4)))
    pixels = Init("checkpoint", "x", Path("x"), own).adapt(Input(64))
    assert (pixels.size, pixels.scale, pixels.mean, pixels.std) == (64, 1, (9, 8, 7), (6, 5, 4))
    assert Init().adapt(Input(64)) == Input(64)


def test_size_and_stride_follow_the_model_unless_they_are_given(tmp_path: Path) -> None:
    assert (follow_model(OPTIONS | {"init": "none"})["size"], init.SIZE) == (128, 128)
    options = OPTIONS | {"init": str(TINY)}
    assert follow_model(options)["size"] == 64
    assert follow_model(options | {"output_stride": 16})["output_stride"] == 16
    assert follow_model(options)["output_stride"] == 1
    embedded = find_init("default")
    assert embedded.contract is not None
    assert f"{follow_model(OPTIONS | {'init': 'default'})['architecture']}_resnet50" == (
        embedded.contract.origin.architecture
    )
    assert follow_model(OPTIONS | {"init": "default"})["size"] == embedded.contract.input.size
    notes = embedded.differences(embedded.contract.input.size * 2, embedded.contract.origin.output_stride)
    assert len(notes) == 2
    assert "trained at size" in notes[0]
    assert "CC-BY-NC-SA" in notes[1]


def test_a_run_from_torchvisions_weights_says_so_and_is_resumed_with_its_own(
    data: Path, backbone, tmp_path: Path, monkeypatch, capsys
) -> None:
    torch.save(backbone, tmp_path / "a.pth")
    monkeypatch.setattr(loop, "_train_epoch", no_step)
    options = f"--epochs 1 --init {tmp_path}/a.pth --size 32 --output-stride 16 --batch-size 4 --device cpu"
    arguments = [str(data), "--out", str(tmp_path / "run"), *options.split()]
    assert main(arguments) == 0
    assert "note: --init" in capsys.readouterr().err
    checkpoint = load_checkpoint(tmp_path / "run/last.safetensors")
    assert (checkpoint.weights["net.backbone.layer3.2.conv2.weight"] == 0.01).all()
    assert checkpoint.contract.input.mean == IMAGENET_MEAN
    stated = checkpoint.contract.origin.settings
    assert stated["init"] == "torchvision"
    assert len(stated["init_sha256"]) == 64
    assert str(tmp_path) not in checkpoint.contract.to_json()
    (tmp_path / "a.pth").unlink()
    assert main([*arguments, "--resume"]) == 0
    resumed = load_checkpoint(tmp_path / "run/last.safetensors").contract
    assert (resumed.input, resumed.origin.settings) == (checkpoint.contract.input, stated)


def test_a_checkpoint_hands_on_size_stride_and_normalisation(data: Path, tmp_path: Path, monkeypatch) -> None:
    contract = replace(CONTRACT, input=Input(32, mean=(0.5, 0.5, 0.5)))
    network = SegmentationNetwork(contract, output_stride=16, auxiliary=True)
    save_checkpoint(tmp_path / "a.safetensors", network, contract)
    monkeypatch.setattr(loop, "_train_epoch", no_step)
    options = f"--epochs 1 --init {tmp_path}/a.safetensors --batch-size 4 --device cpu"
    assert main([str(data), "--out", str(tmp_path / "run"), *options.split()]) == 0
    found = load_checkpoint(tmp_path / "run/last.safetensors")
    assert (found.contract.input.size, found.contract.origin.output_stride) == (32, 16)
    assert found.contract.input.mean == (0.5, 0.5, 0.5)
    assert (found.weights["net.classifier.4.weight"] == network.state_dict()["net.classifier.4.weight"]).all()


@pytest.mark.parametrize(
    ("architecture", "count", "random"),
    [("deeplabv3", 59, "the head, the auxiliary head"), ("deeplabv3plus", 62, "the auxiliary head")],
)
def test_a_run_from_the_embedded_model_is_stated(
    data: Path, tmp_path: Path, monkeypatch, capsys, architecture: str, count: int, random: str
) -> None:
    monkeypatch.setattr(loop, "_train_epoch", no_step)
    options = "--epochs 1 --init default --size 32 --output-stride 16 --batch-size 4 --device cpu"
    options += f" --architecture {architecture}"
    assert main([str(data), "--out", str(tmp_path / "run"), *options.split()]) == 0
    error = capsys.readouterr().err
    for part in (f"{count} convolutions recovered from", f"at random: {random}", "trained at size", "CC-BY-NC-SA"):
        assert part in error
    assert load_checkpoint(tmp_path / "run/last.safetensors").contract.origin.settings["init"] == "model"


def test_imagenet_without_a_network_names_the_file_to_fetch(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(init, "IMAGENET_URL", "https://nowhere.invalid/resnet50-0676ba61.pth")
    assert main([str(data), "--out", str(tmp_path / "run"), "--init", "imagenet", "--device", "cpu"]) == 3
    error = capsys.readouterr().err
    assert "https://nowhere.invalid/resnet50-0676ba61.pth could not be downloaded" in error
    assert "--init with the path of the file" in error


def test_imagenet_is_downloaded_once_and_checked_by_its_hash(tmp_path: Path, monkeypatch) -> None:
    calls = []

    def fetch(url: str, target: str, hash_prefix: str, *, progress: bool) -> None:
        calls.append((url, hash_prefix))
        Path(target).write_bytes(b"weights")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    found = [find_init("imagenet") for _ in range(2)]
    assert calls == [(IMAGENET_URL, "0676ba61")]
    assert found[0] == found[1]
    assert found[0].kind == "torchvision"
    assert found[0].path.read_bytes() == b"weights"


def test_a_download_of_other_bytes_is_refused(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "resnet50-0676ba61.pth").write_bytes(b"other")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(init, "IMAGENET_URL", (tmp_path / "resnet50-0676ba61.pth").as_uri())
    with pytest.raises(ModelError, match=r"could not be downloaded .*hash"):
        find_init("imagenet")
    assert not list((tmp_path / "hub").rglob("*.pth"))


def test_the_embedded_model_must_be_there(monkeypatch) -> None:
    monkeypatch.setattr("segport.segmenter.DEFAULT_MODEL", "absent.onnx")
    with pytest.raises(ModelError, match=r"absent.onnx is missing"):
        find_init("default")
