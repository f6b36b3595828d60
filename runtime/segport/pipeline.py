"""From folders to masks: load -> infer -> finish -> commit, stages that run beside each other."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray

from segport.committer import Committer
from segport.finisher import Finisher
from segport.freshness import Freshness
from segport.loader import Loader
from segport.outcome import Loaded, Outcome, Staged
from segport.plan import Job
from segport.preprocess import stack
from segport.segmenter import Segmenter
from segport.settings import RunSettings
from segport.stages import batches, ordered_map, thread_pools
from segport.workspace import Workspace

READERS = 2  # threads that read and prepare slices; OpenCV and file access release the interpreter lock
WRITERS = 2  # threads that restore, encode and write: more only wait for the disk
READ_AHEAD = 4_000_000  # bytes of prepared slices that wait for the network


class FolderSegmenter:
    """Segments planned slices into an output folder whose workspace and ledger are open."""

    def __init__(
        self,
        segmenter: Segmenter,
        settings: RunSettings,
        freshness: Freshness,
        workspace: Workspace,
        committer: Committer,
    ) -> None:
        self._segmenter, self._committer = segmenter, committer
        self._size = segmenter.session.batch or settings.batch_size
        self._loader = Loader(segmenter.contract, settings, freshness)
        self._finisher = Finisher(segmenter.contract, settings, workspace)

    def segment(self, jobs: Iterable[Job]) -> Iterator[Outcome[Job]]:
        """Segment the slices and yield an outcome for each, in order; its files have their names by then.

        A slice that cannot be used is "failed" and the others go on. Memory is bounded: `READ_AHEAD` bytes of
        prepared slices, and one slice at its own size for each thread. Raises `OutputError` when writing fails and
        `ModelError` when inference does, after the outcomes of what was written before.
        """
        lanes = self._segmenter.session.lanes
        ahead = max(2 * self._size * lanes, READ_AHEAD // (3 * self._segmenter.contract.input.size**2))
        with opencv_on_one_thread(), thread_pools() as pool:
            loaded = ordered_map(pool(READERS), self._loader.load, jobs, ahead)
            grouped = batches(loaded, self._size, lambda one: isinstance(one, Loaded), longest=ahead)
            writers = pool(WRITERS)
            # beside those that are computed, one batch is finished and one waits, so that the network never does
            for pairs in ordered_map(pool(lanes), self._infer, grouped, lanes + 2):
                yield from self._committer.commit(list(ordered_map(writers, self._finish, pairs, len(pairs))))

    def _infer(self, batch: list[Loaded | Staged[Job]]) -> list[tuple[Loaded, NDArray[np.float32]] | Staged[Job]]:
        prepared = [one.prepared for one in batch if isinstance(one, Loaded)]
        logits = iter(self._segmenter.logits(stack(prepared)) if prepared else ())
        return [(one, next(logits)) if isinstance(one, Loaded) else one for one in batch]

    def _finish(self, one: tuple[Loaded, NDArray[np.float32]] | Staged[Job]) -> Staged[Job]:
        return one if isinstance(one, Staged) else self._finisher.finish(*one)


@contextmanager
def opencv_on_one_thread() -> Iterator[None]:
    """Keep OpenCV from starting threads of its own for each small picture: the cores are the network's."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
