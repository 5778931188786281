"""A queue: one visitor at a time in order of arrival, each queued only once, of limited length.

with line.join("ama") as place:
    while num_before := place.wait(timeout_s=1):
        print(f"{num_before} before you")
    ...                                          # now it is this visitor's turn
"""

import threading

from commands.errors import InputError


class WaitingLine:
    """The visitor being served (the first) and those who wait; thread-safe."""

    def __init__(self, max_waiting: int) -> None:
        """
        Args:
            max_waiting: when this many wait, further visitors are turned away.
        """
        self._max_waiting = max_waiting
        self._places: list[Place] = []
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._places)

    def join(self, visitor: str) -> "Place":
        """A place at the end of the line, for a `with` block, which gives it up at its end.

        Raises:
            InputError: the visitor is waiting already, or too many are.
        """
        with self._changed:
            if any(place.visitor == visitor for place in self._places[1:]):
                raise InputError("your question before this one still waits for its answer")
            if len(self._places) > self._max_waiting:
                raise InputError(
                    f"{self._max_waiting} questions are waiting already: ask again in a minute"
                )
            place = Place(self, visitor)
            self._places.append(place)
            return place

    def num_before(self, place: "Place", timeout_s: float) -> int:
        """How many are before a place; waits until that changes, at most `timeout_s`."""
        with self._changed:
            before = self._places.index(place)
            if before:
                self._changed.wait_for(lambda: self._places.index(place) < before, timeout_s)
            return self._places.index(place)

    def leave(self, place: "Place") -> None:
        """Give up a place: those behind it move up."""
        with self._changed:
            self._places.remove(place)
            self._changed.notify_all()


class Place:
    """One visitor's place in the line."""

    def __init__(self, line: WaitingLine, visitor: str) -> None:
        self.visitor = visitor
        self._line = line

    def wait(self, timeout_s: float = 0.0) -> int:
        """How many are before this place; waits until that changes, at most `timeout_s`."""
        return self._line.num_before(self, timeout_s)

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *_: object) -> None:
        self._line.leave(self)
