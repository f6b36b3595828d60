"""From folders to masks: read -> prepare -> batch -> infer -> restore -> write, as a bounded generator."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from segport.errors import SliceError
from segport.outputs import write_png
from segport.overlay import draw_outlines
from segport.plan import MASK, OVERLAY, PROBABILITY, Job, Plan
from segport.preprocess import prepare, restore, sigmoid, stack, to_display, to_mask
from segport.reading import read_slice, read_truth
from segport.scoring import Counts, count_pixels
from segport.segmenter import Segmenter
from segport.settings import RunSettings
from segport.windows import PatientWindows

WORKERS = 2  # threads that read, prepare, restore and write; OpenCV and file access release the interpreter lock

T = TypeVar("T")


@dataclass(frozen=True)
class SliceResult:
    """What happened to one slice. `status`: "written" or "failed"; `message`: why it failed or was not scored.

    `mean_probability`: mean over the mask's pixels, 0 for an empty mask. `counts`: against the true mask, if scored.
    """

    job: Job
    status: str
    message: str = ""
    pixels: int = 0
    tumour_pixels: int = 0
    mean_probability: float = 0.0
    counts: Counts | None = None


@dataclass(frozen=True)
class _Loaded:
    """A slice that was read: `display` uint8 RGB at its own size, `prepared` for the network."""

    job: Job
    shape: tuple[int, int]
    display: NDArray[np.uint8] | None
    prepared: NDArray[np.uint8]


def segment_folder(segmenter: Segmenter, plan: Plan, settings: RunSettings) -> Iterator[SliceResult]:
    """Segment the planned slices and yield one result a slice, in order; masks are written before their result.

    A slice that cannot be used is a "failed" result and the others go on; older outputs of it are removed, so that
    they cannot pass for new ones. At most three batches are in memory. Raises `OutputError` when writing fails and
    `ModelError` when inference does, after the results of what was written before.
    """
    windows = PatientWindows([j.slice for j in plan.jobs], segmenter.contract, settings.window)
    limit = segmenter.contract.output.threshold if settings.threshold is None else settings.threshold
    size = segmenter.session.batch or settings.batch_size
    chunks = [plan.jobs[i : i + size] for i in range(0, len(plan.jobs), size)]
    finishing: list[Future[SliceResult]] = []
    with ThreadPoolExecutor(WORKERS) as pool:

        def load_chunk(jobs: Sequence[Job]) -> list[Future[_Loaded | SliceResult]]:
            return [pool.submit(_load, job, segmenter, windows, plan, settings) for job in jobs]

        try:
            for loading in _one_ahead(map(load_chunk, chunks)):
                loaded = [f.result() for f in loading]
                usable = [one for one in loaded if isinstance(one, _Loaded)]
                logits = iter(segmenter.logits(stack([u.prepared for u in usable])) if usable else ())
                yield from _in_order(finishing)
                finishing = [
                    pool.submit(_finish, one, next(logits), limit, plan, settings)
                    if isinstance(one, _Loaded)
                    else _completed(one)
                    for one in loaded
                ]
            yield from _in_order(finishing)
        except GeneratorExit:
            raise
        except BaseException:  # also an interrupt: what was written is reported before the run ends
            wait(finishing)
            yield from [f.result() for f in finishing if f.exception() is None]
            raise


def _in_order(finishing: list[Future[SliceResult]]) -> Iterator[SliceResult]:
    """Yield results first to last, taking each off the list, so that none is yielded twice."""
    while finishing:
        result = finishing[0].result()
        finishing.pop(0)
        yield result


def _load(
    job: Job, segmenter: Segmenter, windows: PatientWindows, plan: Plan, settings: RunSettings
) -> _Loaded | SliceResult:
    try:
        pixels = read_slice(job.slice.path)
        window = windows.window_of(job.slice, pixels)
        prepared = prepare(pixels, segmenter.contract, window)
        display = to_display(pixels, window) if settings.overlay else None
    except SliceError as error:
        for ending in (MASK, OVERLAY, PROBABILITY):
            job.target(plan.out, ending).unlink(missing_ok=True)
        return SliceResult(job, "failed", str(error))
    return _Loaded(job, (pixels.shape[0], pixels.shape[1]), display, prepared)


def _finish(
    loaded: _Loaded, small: NDArray[np.float32], limit: float, plan: Plan, settings: RunSettings
) -> SliceResult:
    job, logits = loaded.job, restore(small, loaded.shape)
    mask = to_mask(logits, limit)
    probability = sigmoid(logits)
    inside = mask > 0
    found = int(np.count_nonzero(inside))
    result = SliceResult(
        job,
        "written",
        pixels=mask.size,
        tumour_pixels=found,
        mean_probability=float(probability[inside].mean()) if found else 0.0,
    )
    truth: NDArray[np.uint8] | None = None
    if settings.score and job.slice.mask is not None:
        try:
            truth = read_truth(job.slice, mask.shape)
            result = replace(result, counts=count_pixels(mask, truth))
        except SliceError as error:
            result = replace(result, message=f"not scored: {error}")
    pictures: dict[str, NDArray[Any]] = {MASK: mask}
    if loaded.display is not None:
        pictures[OVERLAY] = draw_outlines(loaded.display, mask, truth)
    if settings.probabilities:
        pictures[PROBABILITY] = np.rint(probability * 65535).astype(np.uint16)
    for ending in (OVERLAY, PROBABILITY, MASK):
        if ending in pictures:
            write_png(job.target(plan.out, ending), pictures[ending])
        elif settings.overwrite:  # one of an earlier mask would pass for this one's
            job.target(plan.out, ending).unlink(missing_ok=True)
    return result


def _one_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield items with the next one already started, so that reading overlaps inference."""
    current = next(items, None)
    while current is not None:
        following = next(items, None)
        yield current
        current = following


def _completed(result: SliceResult) -> Future[SliceResult]:
    future: Future[SliceResult] = Future()
    future.set_result(result)
    return future
