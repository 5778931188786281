"""`voice_chat.serve` as users start it, for benchmarks that talk with it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.demo_talker import DemoTalkerConfig
from commands.errors import InputError
from commands.setting_groups import settings_of, values_of


@dataclass(frozen=True)
class Server:
    """A server that runs: the page's address, and its process."""

    address: str
    pid: int


@contextmanager
def serving(config: DemoTalkerConfig, *, max_visits: int = 16) -> Iterator[Server]:
    """`voice_chat.serve` in a process of its own, with the same talker.

    Args:
        max_visits: how many may talk at a time.

    Raises:
        InputError: it did not start.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "voice_chat.serve", "--port=0", f"--max-visits={max_visits}",
         *serve_words(config)], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise InputError("voice_chat.serve did not start; what it printed says why")
        yield Server(address, process.pid)
    finally:
        process.kill()
        process.communicate()


def serve_words(config: DemoTalkerConfig) -> list[str]:
    """The talker and its turns as flags of `voice_chat.serve`."""
    words = []
    values = values_of(config)
    for setting in settings_of(DemoTalkerConfig):
        value = values[setting.name]
        if isinstance(value, bool):
            words.append(setting.flag if value else f"--no-{setting.flag[2:]}")
        elif value is not None:
            words.append(f"{setting.flag}={value}")
    return words
