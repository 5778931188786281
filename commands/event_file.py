"""A run's numbers, written as a TensorBoard event file.

    with EventFile(run, first_step=0) as events:
        events.write(1, {"train/loss": 3.2})

Every entry is in the file when `write` returns. torch's `SummaryWriter` leaves writing to a
separate thread (tensorboard 2.20), which prints a traceback if the disk is full, and loses its last
entries if the process is killed.
"""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from commands.atomic_write import write_errors


class EventFile:
    """A new event file in a run's folder; used as a context manager.

    TensorBoard shows all event files of a folder as one run.
    """

    def __init__(self, run: Path, *, first_step: int) -> None:
        """
        Args:
            run: the run's output folder; created if it does not exist.
            first_step: TensorBoard no longer shows entries of older files from this step on.

        Raises:
            WriteError: the file cannot be written; also raised by `write`.
        """
        began_s = time.time()
        name = f"events.out.tfevents.{int(began_s):010d}.{socket.gethostname()}.{os.getpid()}"
        self.path = run / name
        with write_errors(self.path):
            run.mkdir(parents=True, exist_ok=True)
            # Unbuffered, so that a failed write is not repeated when the file is closed.
            self._file = self.path.open("ab", buffering=0)
            self._records = RecordWriter(self._file)
            start = SessionLog(status=SessionLog.START)
            for event in (
                Event(wall_time=began_s, file_version="brain.Event:2"),
                Event(wall_time=began_s, step=first_step, session_log=start),
            ):
                self._records.write(event.SerializeToString())

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add numbers of one step by name; a slash in a name groups them."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in numbers.items()]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        with write_errors(self.path):
            self._records.write(event.SerializeToString())

    def __enter__(self) -> "EventFile":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
