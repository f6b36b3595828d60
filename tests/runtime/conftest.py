import pytest

from helpers import TINY
from segport.contract import Input, ModelContract
from segport.segmenter import Segmenter


@pytest.fixture
def contract() -> ModelContract:
    return ModelContract(Input(64))


@pytest.fixture(scope="session")
def tiny() -> Segmenter:
    """Masks every pixel whose FLAIR (channel 1) is 128 or more."""
    return Segmenter(TINY, device="cpu")
