"""The files of one patient in a report: a script with its data, a picture a slice, a contact sheet, small pictures."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segport.folders import unlike_names
from segport.report.doubts import Doubt
from segport.report.outline import outline_path
from segport.report.pictures import encode_heat, encode_jpeg, encode_slice
from segport.report.view import PatientView, SliceFacts, SliceView
from segport.sheet import choose_slices, contact_sheet, draw_tile
from segport.stages import ordered_map
from segport.text import printable

DATA, SHEET = "data.js", "sheet.jpg"
ON_SHEET = 12  # slices of a card's contact sheet, four by three
FLAIR = 1  # channel
AHEAD = 4  # slices that are drawn beside each other


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A slice's files by name, its part of the data, and its tile where one is wanted."""

    files: dict[str, bytes]
    data: dict[str, Any]
    tile: NDArray[np.uint8] | None


def label_slices(facts: Sequence[SliceFacts]) -> list[str]:
    """Return what each slice of a patient is called on its page and in links: its number, else its name; all differ."""
    labels = [printable(PurePath(f.name).stem if f.number is None else f.number) for f in facts]
    return list(unlike_names(labels))


def draw_patient(
    key: str,
    patient: PatientView,
    doubts: Sequence[Doubt],
    pixel_mm2: float | None,
    pool: Executor,
    stage: Callable[[str, bytes], object],
) -> None:
    """Draw the files of a patient and hand each to `stage` by its name, the data last.

    `key`: what the page calls the patient. `pixel_mm2`: the area of a pixel, where it is known. A slice's files are
    named by its place, never by its name.
    """
    labels = label_slices(patient.facts)
    reasons = {doubt.position: [printable(r) for r in doubt.reasons] for doubt in doubts}
    on_sheet = set(choose_slices(len(patient.facts), ON_SHEET))
    tiles: list[NDArray[np.uint8]] = []
    shown: list[str] = []
    slices = []

    def draw(numbered: tuple[int, SliceView]) -> _Drawn:
        position, view = numbered
        facts = patient.facts[position]
        return _draw(
            position, facts, view, _describe(facts, pixel_mm2), small=position in on_sheet or position in reasons
        )

    for position, drawn in enumerate(ordered_map(pool, draw, enumerate(patient.views()), AHEAD)):
        for name, data in drawn.files.items():
            stage(name, data)
        if drawn.tile is not None and position in reasons:
            stage(small_name(position), encode_jpeg(drawn.tile))
        if drawn.tile is not None and position in on_sheet:
            tiles.append(drawn.tile)
            shown.append(labels[position])
        slices.append({"label": labels[position]} | drawn.data | {"doubts": reasons.get(position, [])})
    if tiles:
        stage(SHEET, encode_jpeg(contact_sheet(tiles, shown)))
    text = json.dumps({"name": printable(patient.name), "slices": slices}, separators=(",", ":"))  # ASCII alone
    stage(DATA, f"showPatient({json.dumps(key)},{text});\n".encode("ascii"))


def small_name(position: int) -> str:
    """Return the name of the small picture of a slice that needs eyes."""
    return f"{position + 1}-small.jpg"


def _draw(position: int, facts: SliceFacts, view: SliceView, lines: list[tuple[str, str]], *, small: bool) -> _Drawn:
    shape = facts.found.shape if facts.found is not None else (1, 1)
    problem = printable(view.problem or ("" if facts.status == "written" else facts.message))
    data: dict[str, Any] = {"name": printable(facts.name), "height": shape[0], "width": shape[1], "facts": lines}
    if facts.found is not None:
        data |= {"area": facts.found.tumour_pixels, "middle": facts.found.regions.centroid}
        data |= {} if facts.found.agreement is None else {"score": f"Dice {facts.found.agreement.counts.dice:.3f}"}
    files = {}
    if view.picture is not None:
        files[f"{position + 1}.png"] = encode_slice(view.picture)
        data["picture"] = f"{position + 1}.png"
    if view.probability is not None:
        files[f"{position + 1}-heat.png"] = encode_heat(view.probability)
        data["heat"] = f"{position + 1}-heat.png"
    if view.mask is not None:
        data["mask"] = outline_path(view.mask)
    if view.truth is not None:
        data["truth"] = outline_path(view.truth)
    tile = None
    if small and view.picture is not None and view.mask is not None:
        flair = np.repeat(view.picture[..., FLAIR : FLAIR + 1], 3, axis=2)  # as the page shows it first
        tile = draw_tile(flair, view.mask, view.truth)
    return _Drawn(files, data | {"problem": problem}, tile)


def _describe(facts: SliceFacts, pixel_mm2: float | None) -> list[tuple[str, str]]:
    return [(term, printable(text)) for term, text in _lines(facts, pixel_mm2)]


def _lines(facts: SliceFacts, pixel_mm2: float | None) -> Iterator[tuple[str, str]]:
    """Yield what stands beside a slice, as (term, text)."""
    found = facts.found
    if found is None:
        return
    height, width = found.shape
    yield (
        "Tumour",
        f"{found.tumour_pixels:,} pixels ({found.tumour_pixels / (height * width):.2%})"
        if found.tumour_pixels
        else "none",
    )
    if found.tumour_pixels:
        if pixel_mm2 is not None:
            yield "Area", f"{found.tumour_pixels * pixel_mm2 / 100:.2f} cm²"
        yield "Mean probability", f"{found.mean_probability:.2f}"
        pieces = found.regions.components
        yield "Pieces", f"{pieces}" + (f", the largest {found.regions.largest:,} pixels" if pieces > 1 else "")
    if found.agreement is not None:
        counts = found.agreement.counts
        yield "Dice", f"{counts.dice:.3f}" if counts.tumour_pixels or counts.mask_pixels else "1 (both empty)"
        if counts.tumour_pixels or counts.mask_pixels:
            yield "Truth", f"{counts.tumour_pixels:,} pixels; {counts.fn:,} missed, {counts.fp:,} wrong"
            yield "HD95", f"{found.agreement.hd95:.1f} pixels"
    yield "Size", f"{width} x {height} pixels"
