"""Where a training stands, as its checkpoint says it; all else is a function of the seed and of this."""

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Progress:
    """`epoch` epochs are finished, and `step` steps of the next one, whose losses sum to `loss`.

    `best`: the highest score of an epoch so far. `scaler`: the state of fp16's loss scaling, empty without.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    best: float = -1.0
    scaler: dict[str, Any] = field(default_factory=dict)


class Clock:
    """Says when a checkpoint within an epoch is due: so many minutes after the last one."""

    def __init__(self, minutes: float) -> None:
        self._seconds = minutes * 60
        self.restart()

    def restart(self) -> None:
        """Count from now on."""
        self._start = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() - self._start >= self._seconds
