"""Before a tool forks commands, and kills them."""

import contextlib
import threading
from collections.abc import Iterator

from tqdm import tqdm


@contextlib.contextmanager
def no_shared_locks() -> Iterator[None]:
    """Share no lock with children that are killed, and have no thread that could hold one.

    tqdm's own lock (4.70) is a semaphore between processes: a child killed while it draws its bar
    holds it for ever, and its parent waits at its own next update.
    """
    lock, interval = tqdm.get_lock(), tqdm.monitor_interval
    tqdm.set_lock(threading.RLock())
    tqdm.monitor_interval = 0
    try:
        yield
    finally:
        tqdm.set_lock(lock)
        tqdm.monitor_interval = interval
