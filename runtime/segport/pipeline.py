"""From folders to masks: judge -> load -> infer -> apply the component rule -> finish -> commit, beside each other."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import cv2

from segport.committer import Committer
from segport.componentrule import ComponentRule, Finishable
from segport.finisher import Finisher
from segport.freshness import Freshness, Verdict
from segport.loader import Loader
from segport.maskrule import MaskRule
from segport.outcome import Computed, Loaded, Outcome, Staged
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
        self._freshness, rule = freshness, MaskRule.of(settings, segmenter.contract)
        self._loader = Loader(segmenter.contract, settings, freshness)
        self._components, self._finisher = ComponentRule(rule), Finisher(rule, settings, workspace)

    def segment(self, stacks: Iterable[Sequence[Job]]) -> Iterator[Outcome[Job]]:
        """Segment the slices and yield an outcome for each, in order; its files have their names by then.

        `stacks`: slices that are judged together, or one each. A slice that cannot be used is "failed" and the others
        go on. Memory is bounded: `READ_AHEAD` bytes of prepared slices, one slice at its own size for each thread, and
        what the network saw and found of a stack. Raises `OutputError` when writing fails and
        `ModelError` when inference does, after the outcomes of what was written before.
        """
        lanes = self._segmenter.session.lanes
        ahead = max(2 * self._size * lanes, READ_AHEAD // (3 * self._segmenter.contract.input.size**2))
        with opencv_on_one_thread(), thread_pools() as pool:
            slices = chain.from_iterable(map(self._judge, stacks))
            loaded = ordered_map(pool(READERS), lambda pair: self._loader.load(*pair), slices, ahead)
            grouped = batches(loaded, self._size, lambda one: isinstance(one, Loaded), longest=ahead)
            writers = pool(WRITERS)
            # beside those that are computed, one batch is finished and one waits, so that the network seldom does
            computed = ordered_map(pool(lanes), self._infer, grouped, lanes + 2)
            for ready in self._components.apply(computed):
                yield from self._committer.commit(list(ordered_map(writers, self._finish, ready, len(ready))))

    def _judge(self, jobs: Sequence[Job]) -> list[tuple[Job, Verdict]]:
        return list(zip(jobs, self._freshness.judge_stack(jobs), strict=True))

    def _infer(self, batch: list[Loaded | Staged[Job]]) -> list[Finishable]:
        prepared = [one.prepared for one in batch if isinstance(one, Loaded)]
        logits = iter(self._segmenter.logits(stack(prepared)) if prepared else ())
        return [Computed(one, next(logits)) if isinstance(one, Loaded) else one for one in batch]

    def _finish(self, one: Finishable) -> Staged[Job]:
        return one if isinstance(one, Staged) else self._finisher.finish(one)


@contextmanager
def opencv_on_one_thread() -> Iterator[None]:
    """Keep OpenCV from starting threads of its own for each small picture: the cores are the network's."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
