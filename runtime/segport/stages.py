"""Stages that run beside each other: work is handed to threads some way ahead, and results come back in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from segport.errors import SegportError

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def thread_pools() -> Iterator[Callable[[int], ThreadPoolExecutor]]:
    """Yield what opens a pool of so many threads; all end with the block, and what waits in them is dropped."""
    with ExitStack() as pools:

        def pool(threads: int) -> ThreadPoolExecutor:
            made = ThreadPoolExecutor(threads)
            pools.callback(made.shutdown, wait=True, cancel_futures=True)
            return made

        yield pool


def ordered_map(pool: Executor, work: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """Yield `work(item)` for each item, in order, with at most `ahead` items handed to the pool and not yet yielded.

    A `SegportError` of `items` is raised after the results of the items before it; what `work` raises, in its place.
    """
    waiting: deque[Future[R]] = deque()
    source, more = iter(items), True
    failure: SegportError | None = None
    while True:
        while more and len(waiting) < ahead:
            try:
                waiting.append(pool.submit(work, next(source)))
            except StopIteration:
                more = False
            except SegportError as error:
                failure, more = error, False
        if not waiting:
            break
        yield waiting.popleft().result()
    if failure is not None:
        raise failure


def batches(items: Iterable[T], size: int, counts: Callable[[T], bool], longest: int) -> Iterator[list[T]]:
    """Yield the items in lists of `size` items that count, or of `longest` of any kind; the last may be short."""
    batch: list[T] = []
    counted = 0
    for item in items:
        batch.append(item)
        counted += counts(item)
        if counted == size or len(batch) == longest:
            yield batch
            batch, counted = [], 0
    if batch:
        yield batch
