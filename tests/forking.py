"""Before a tool forks commands, and kills them; and how a fork ends."""

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import NoReturn

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


def end_with(run: Callable[[], object]) -> NoReturn:
    """In a fork: run this, and end with its exit code, without what the parent has set up."""
    code = 1
    try:
        run()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
