"""The last stage of a run: staged files get their names, after the ledger says what they are."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from segport.errors import SliceError
from segport.ledger import Ledger
from segport.outcome import Outcome, Staged, W_co
from segport.outputs import remove, rename


class Committer:
    """Commits what was staged for the output folder `out`."""

    def __init__(self, ledger: Ledger, out: Path) -> None:
        self._ledger, self._out = ledger, out

    def commit(self, batch: Sequence[Staged[W_co]]) -> Iterator[Outcome[W_co]]:
        """Name the files of a batch; yield the outcomes, in order. Raises `OutputError`.

        Older files that are to go, go first: a line that no longer names them would make them another's.
        """
        for staged in batch:
            for ending in staged.stale:
                remove(staged.outcome.job.target(self._out, ending))
        self._ledger.append(staged.outcome.entry for staged in batch if staged.record)
        for staged in batch:
            job = staged.outcome.job
            try:
                for ending, file in staged.files.items():
                    rename(file, job.target(self._out, ending))
            except SliceError as error:  # its outputs stay named: those that have their names, and older ones, are ours
                entry = replace(
                    staged.outcome.entry, status="failed", message=str(error), found=None, found_volume=None
                )
                self._ledger.append([entry])
                yield replace(staged.outcome, entry=entry)
            else:
                yield staged.outcome
