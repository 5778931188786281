"""Values that were computed once and are kept, the last few of them; for several threads.

tables = KeptValues(64)
footer = tables.get(path, lambda: read_footer(path))
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

Value = TypeVar("Value")


class KeptValues(Generic[Value]):
    """Values computed once and kept, the last few of them; for several threads.

    Args:
        count: how many at most.
        num_bytes: the size of a value.
        max_bytes: of all values together, unless the last one alone is larger.
    """

    def __init__(
        self,
        count: int,
        *,
        num_bytes: Callable[[Value], float] = lambda value: 0,
        max_bytes: float = math.inf,
    ) -> None:
        self._count = count
        self._num_bytes = num_bytes
        self._max_bytes = max_bytes
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """The value of a key, computed unless it is kept."""
        with self._lock:
            if key not in self._values:
                self._values[key] = compute()
            self._values.move_to_end(key)
            while len(self._values) > 1 and self._is_too_much():
                self._values.popitem(last=False)
            return self._values[key]

    def _is_too_much(self) -> bool:
        total = sum(map(self._num_bytes, self._values.values()))
        return len(self._values) > self._count or total > self._max_bytes
