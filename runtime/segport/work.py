"""One thing to segment, whatever it is read from, and where its outputs go."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path, PurePath

from segport.settings import RunSettings


@dataclass(frozen=True, slots=True)
class Work(ABC):
    """A slice or a volume. `stem`: its outputs' path below the output folder, without ending.

    `patient`: the patient's name in the tables; among several inputs, that of the input comes before it.
    """

    stem: PurePath
    patient: str

    @property
    def name(self) -> str:
        """The stem as the ledger has it."""
        return self.stem.as_posix()

    @property
    @abstractmethod
    def source(self) -> str:
        """What it is read from, as the ledger has it."""

    @property
    @abstractmethod
    def shown(self) -> str:
        """What it is read from, as messages have it."""

    @property
    @abstractmethod
    def truth(self) -> Path | None:
        """The file of its true mask; None where there is none, or none was looked for."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was guessed while it was listed."""
        return ()

    @abstractmethod
    def endings(self, settings: RunSettings) -> list[str]:
        """Return the endings of the outputs that a run writes; the mask's is the last."""

    def target(self, out: Path, ending: str) -> Path:
        """Return the path of one output."""
        return out / self.stem.with_name(self.stem.name + ending)
