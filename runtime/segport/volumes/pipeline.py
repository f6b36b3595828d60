"""From volumes to masks: load -> infer -> finish -> commit, one volume in each stage."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from segport.committer import Committer
from segport.freshness import Freshness
from segport.maskrule import MaskRule
from segport.outcome import Outcome, Staged
from segport.pipeline import opencv_on_one_thread
from segport.preprocess import stack
from segport.segmenter import Segmenter
from segport.settings import RunSettings
from segport.stages import batches, ordered_map, thread_pools
from segport.volumes.case import ModelName
from segport.volumes.finisher import VolumeFinisher
from segport.volumes.job import VolumeJob
from segport.volumes.loader import LoadedVolume, VolumeLoader
from segport.workspace import Workspace

Computed = tuple[LoadedVolume, NDArray[np.float32]] | Staged[VolumeJob]


class VolumeSegmenter:
    """Segments volumes into an output folder whose workspace and ledger are open."""

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
        self._loader = VolumeLoader(segmenter.contract, settings, freshness)
        model = ModelName(segmenter.model.name, freshness.model)
        self._finisher = VolumeFinisher(MaskRule.of(settings, segmenter.contract), settings, workspace, model)

    def segment(self, jobs: Iterable[VolumeJob]) -> Iterator[Outcome[VolumeJob]]:
        """Segment the volumes and yield an outcome for each, in order; its files have their names by then.

        One that cannot be used is "failed" and the others go on. Memory holds a handful of volumes, however many there
        are. Raises `OutputError` when writing fails and `ModelError` when inference does.
        """
        with opencv_on_one_thread(), thread_pools() as pool:
            lanes = pool(self._segmenter.session.lanes)
            loaded = ordered_map(pool(1), self._loader.load, jobs, 1)
            computed = ordered_map(pool(1), lambda one: self._infer(one, lanes), loaded, 1)
            for staged in ordered_map(pool(1), self._finish, computed, 1):
                yield from self._committer.commit([staged])

    def _infer(self, one: LoadedVolume | Staged[VolumeJob], lanes: ThreadPoolExecutor) -> Computed:
        if isinstance(one, Staged):
            return one
        grouped = batches(one.prepared, self._size, lambda _: True, self._size)
        ahead = self._segmenter.session.lanes + 1
        logits = ordered_map(lanes, lambda batch: self._segmenter.logits(stack(batch)), grouped, ahead)
        return one, np.concatenate(list(logits))

    def _finish(self, one: Computed) -> Staged[VolumeJob]:
        return one if isinstance(one, Staged) else self._finisher.finish(*one)
