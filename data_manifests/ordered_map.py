"""Apply a function to a stream, optionally in several processes; results keep their order, and few
items are in memory."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items sent to a process at a time: sending one costs as much as examining a short row.
CHUNK_ITEMS = 32
# Chunks in flight per process: one being processed and one waiting, so that no process idles while
# this one handles results.
CHUNKS_PER_WORKER = 2


class WorkerDied(Exception):
    """A process ended before its work was done: killed for lack of memory, or crashed in a library.

    Attributes:
        items: include the one it was working on.
    """

    def __init__(self, items: Sequence[object]) -> None:
        super().__init__(f"a process died over one of {len(items)} items")
        self.items = items


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, num_workers: int
) -> Iterator[tuple[Item, Result]]:
    """Yield every item with its result, in the items' order.

    At most `CHUNK_ITEMS * CHUNKS_PER_WORKER * num_workers` items are held.

    Args:
        function: function defined in a module (processes import it), or a `partial` of one.
        items: consumed only as fast as results are taken.
        num_workers: processes; 0 uses this one, one item at a time.

    Raises:
        WorkerDied: a process ended before its work was done.
        Exception: what `items` or `function` raise, unchanged; work in flight is dropped.
    """
    if num_workers == 0:
        for item in items:
            yield item, function(item)
        return
    source = iter(items)
    under_way: deque[tuple[list[Item], Future[list[Result]]]] = deque()
    # Spawned, not forked: a fork copies locks held by threads (BLAS, tqdm) but not the threads.
    pool = ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        while True:
            while len(under_way) < CHUNKS_PER_WORKER * num_workers:
                chunk = list(islice(source, CHUNK_ITEMS))
                if not chunk:
                    break
                under_way.append((chunk, _submit(pool, function, chunk)))
            if not under_way:
                return
            chunk, future = under_way.popleft()
            try:
                results = future.result()
            except BrokenProcessPool:
                raise WorkerDied(chunk) from None
            yield from zip(chunk, results, strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(
    pool: ProcessPoolExecutor, function: Callable[[Item], Result], chunk: list[Item]
) -> Future[list[Result]]:
    """A future, even if a process has died: the chunk reports that when its turn comes."""
    try:
        return pool.submit(_apply_to_all, function, chunk)
    except BrokenProcessPool as error:
        broken: Future[list[Result]] = Future()
        broken.set_exception(error)
        return broken


def _apply_to_all(function: Callable[[Item], Result], chunk: list[Item]) -> list[Result]:
    return [function(item) for item in chunk]
