"""What a network starts from, when not from random numbers."""

from pathlib import Path

from segport_train.checkpoint import load_checkpoint, load_weights
from segport_train.model import SegmentationNetwork
from segport_train.settings import TrainSettings


def initialise(network: SegmentationNetwork, settings: TrainSettings) -> None:
    """Copy the weights that `settings.init` names into the network; raises `ModelError` when they do not fit."""
    if settings.init != "none":
        load_weights(network, load_checkpoint(Path(settings.init)).weights, settings.init)
