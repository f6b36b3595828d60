"""What runs of seg-train in tests share: thin networks, and four patients to train on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from thin import thin_networks
from tiny_runs import write_patients


@pytest.fixture
def thin() -> Iterator[None]:
    """Make networks of an eighth of the width: `pytestmark = pytest.mark.usefixtures("thin")`."""
    with thin_networks():
        yield


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder of four patients of four slices."""
    return write_patients(tmp_path / "data")
