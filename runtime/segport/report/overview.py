"""What the first screen shows: the run in numbers, what needs eyes, and a card a patient."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from segport.folders import unlike_names
from segport.report.curve import Curve, draw_curve
from segport.report.doubts import Doubt, find_doubts
from segport.report.patient import SHEET, label_slices, small_name
from segport.report.view import PatientView
from segport.scoring import Agreement
from segport.settings import RunSettings
from segport.text import printable

MOST_DOUBTS = 300  # of the run on the first screen, the gravest; a patient's page marks all of its own


@dataclass(frozen=True, slots=True)
class Card:
    """A patient on the first screen. `key`: its folder's name in the report.

    `size`: tumour, as text; `volume`: to sort by. `dice`: of all its pixels, None without truth. `sheet`: its contact
    sheet's path in the report, empty where no slice could be shown.
    """

    key: str
    name: str
    slices: int
    positive: int
    failed: int
    pending: int
    doubts: int
    volume: int
    size: str
    dice: float | None
    sheet: str
    curve: Curve | None


@dataclass(frozen=True, slots=True)
class Eyes:
    """A slice that needs eyes, on the first screen. `picture`: its small picture's path, empty where there is none."""

    weight: int
    key: str
    patient: str
    label: str
    reasons: tuple[str, ...]
    picture: str


@dataclass
class Overview:
    """Collects the first screen while patients are written. `settings`: those of the run."""

    settings: RunSettings
    threshold: float
    cards: list[Card] = field(default_factory=list)
    eyes: list[Eyes] = field(default_factory=list)
    doubtful: int = 0
    warnings: int = 0
    dice: list[float] = field(default_factory=list)

    def find_doubts(self, patient: PatientView) -> list[Doubt]:
        """Return the patient's slices that need eyes."""
        return find_doubts(patient.facts, self.threshold)

    def add(self, key: str, patient: PatientView, doubts: Sequence[Doubt], files: frozenset[str]) -> None:
        """Count a patient in. `files`: the names of those that were written of it."""
        folder, name, labels = f"patients/{key}", printable(patient.name), label_slices(patient.facts)
        found = [f.found for f in patient.facts if f.found is not None]
        agreements = [f.agreement for f in found if f.agreement is not None]
        dice = sum(agreements, Agreement()).counts.dice if agreements else None
        pixels = sum(f.tumour_pixels for f in found)
        card = Card(
            key,
            name,
            len(patient.facts),
            sum(f.tumour_pixels > 0 for f in found),
            len(patient.facts) - len(found),
            patient.pending,
            len(doubts),
            pixels,
            self._size(pixels, patient),
            dice,
            f"{folder}/{SHEET}" if SHEET in files else "",
            draw_curve(patient.facts, [d.position for d in doubts]) if patient.facts else None,
        )
        self.cards.append(card)
        self.warnings += sum(bool(f.warnings) for f in patient.facts)
        self.dice += [dice] if dice is not None else []
        self.doubtful += len(doubts)
        for doubt in doubts:
            small = small_name(doubt.position)
            picture = f"{folder}/{small}" if small in files else ""
            self.eyes.append(
                Eyes(doubt.weight, key, name, labels[doubt.position], tuple(map(printable, doubt.reasons)), picture)
            )
        self.eyes = sorted(self.eyes, key=lambda one: -one.weight)[:MOST_DOUBTS]

    def numbers(self) -> list[tuple[str, str]]:
        """Return the run in numbers, as (term, number)."""
        counts = {
            "patients": len(self.cards),
            "slices": sum(card.slices for card in self.cards),
            "slices with tumour": sum(card.positive for card in self.cards),
            "need eyes": self.doubtful,
            "unlike training": self.warnings,
            "failed": sum(card.failed for card in self.cards),
        }
        numbers = [(term, f"{count:,}") for term, count in counts.items()]
        if self.dice:
            numbers.append(("Dice, mean per patient", f"{sum(self.dice) / len(self.dice):.3f}"))
        return numbers

    def link_names(self) -> dict[str, str]:
        """Return what names each patient in the page's address, by its key; all differ."""
        return dict(zip((c.key for c in self.cards), unlike_names([c.name for c in self.cards]), strict=True))

    def pixel_mm2(self, patient: PatientView) -> float | None:
        """Return the area of a pixel in square millimetres, where it is known."""
        spacing = patient.spacing or self.settings.spacing
        return spacing[0] * spacing[1] if spacing else None

    def _size(self, pixels: int, patient: PatientView) -> str:
        spacing = patient.spacing or self.settings.spacing
        if spacing is None:
            return f"{pixels:,} tumour pixels" if pixels else "no tumour"
        height, width, distance = spacing
        return f"{pixels * height * width * distance / 1000:.2f} ml" if pixels else "no tumour"
