"""Writes a report into the folder `report` of an output folder: patients first, the page that names them last.

As for masks, a line of the ledger says what a file is before the file gets its name: what no line names is never
replaced, and a patient of which nothing changed is not drawn again.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

from segport.entry import Entry, Stamp
from segport.ledger import Ledger
from segport.outputs import remove, rename, stage_bytes
from segport.report.claim import KEY, PAGE, PATIENTS, REPORT, SCRIPT, STYLE, refuse_others_report
from segport.report.doubts import Doubt
from segport.report.overview import Overview
from segport.report.pages import read_asset, render
from segport.report.patient import draw_patient
from segport.report.pictures import heat_colours
from segport.report.runfacts import describe_model, describe_run, is_embedded, read_card
from segport.report.view import PatientView
from segport.settings import RunSettings
from segport.text import printable, printable_lines
from segport.workspace import Workspace

VERSION = 1  # counts up when what is drawn of a patient changes: older files are then stale
THREADS = 2


class ReportWriter:
    """Writes the report of one run. `ledger`: writable, opened after the run's slices were entered."""

    def __init__(self, out: Path, settings: RunSettings, ledger: Ledger, workspace: Workspace) -> None:
        self._out, self._settings = out, settings
        self._ledger, self._workspace = ledger, workspace

    def write(
        self, document: Mapping[str, Any], patients: Iterable[PatientView], stop: Callable[[int], bool]
    ) -> Path | None:
        """Write the report and return its page's path. `document`: the run.json of the run.

        `stop` is asked before each patient, with the number of its slices; once it returns True, nothing more is
        written and None returned: what is there is whole, and found again the next time. Raises `OutputError`
        when a file cannot be written.
        """
        refuse_others_report(self._out, self._ledger, overwrite=self._settings.overwrite)
        if self._ledger.find(KEY) is None:
            self._enter(KEY, "", {})
        threshold = float(self._settings.threshold or document["contract"]["output"]["threshold"])
        overview = Overview(self._settings, threshold)
        with ThreadPoolExecutor(THREADS) as pool:
            for patient in patients:
                if stop(len(patient.facts)):
                    return None
                doubts = overview.find_doubts(patient)
                key = hashlib.sha256(patient.name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
                files = self._write_patient(key, patient, doubts, overview.pixel_mm2(patient), pool)
                overview.add(key, patient, doubts, files)
        pages = {STYLE: read_asset(STYLE), SCRIPT: read_asset(SCRIPT), PAGE: _render(overview, document)}
        staged = {name: self._stage(data) for name, data in pages.items()}
        self._name(KEY, "", PurePath(REPORT), staged)
        return self._out / REPORT / PAGE

    def _write_patient(
        self, key: str, patient: PatientView, doubts: list[Doubt], pixel_mm2: float | None, pool: Executor
    ) -> frozenset[str]:
        """Write a patient's files where they are not there; return their names."""
        folder = PurePath(REPORT, PATIENTS, key)
        before = self._ledger.find(f"//{folder.as_posix()}")
        state = hashlib.sha256(repr((VERSION, patient.state, doubts, pixel_mm2)).encode()).hexdigest()
        if before is not None and before.volume == state and self._is_there(folder, before):
            return frozenset(before.outputs)
        staged: dict[str, tuple[Path, Stamp]] = {}
        draw_patient(key, patient, doubts, pixel_mm2, pool, lambda name, data: staged.update({name: self._stage(data)}))
        for name in (before.outputs if before is not None else {}).keys() - staged.keys():
            remove(self._out / folder / name)
        self._name(f"//{folder.as_posix()}", state, folder, staged)
        return frozenset(staged)

    def _is_there(self, folder: PurePath, entry: Entry) -> bool:
        if self._settings.overwrite:
            return False
        verify = self._settings.verify
        return all(stamp.is_of(self._out / folder / name, verify=verify) for name, stamp in entry.outputs.items())

    def _stage(self, data: bytes) -> tuple[Path, Stamp]:
        file = self._workspace.temporary()
        return file, stage_bytes(file, data)

    def _name(self, key: str, state: str, folder: PurePath, staged: Mapping[str, tuple[Path, Stamp]]) -> None:
        """Give staged files their names, in their order, after the ledger says what they are."""
        self._enter(key, state, {name: stamp for name, (_, stamp) in staged.items()})
        for name, (file, _) in staged.items():
            rename(file, self._out / folder / name, of_slice=False)

    def _enter(self, key: str, state: str, outputs: dict[str, Stamp]) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._ledger.append([Entry(key, "", "report", volume=state, outputs=outputs, time=now)])


def _render(overview: Overview, document: Mapping[str, Any]) -> bytes:
    model = describe_model(document)
    context = {
        "overview": overview,
        "document": document,
        "run": describe_run(document),
        "model": model,
        "card": printable_lines(read_card()) if is_embedded(document) else "",
        "licence": dict(model)["Licence"],
        "channels": [printable(name) for name in document["contract"]["input"]["channels"]],
        "colours": heat_colours(),
    }
    return render("overview.html", context, scripts=True)
