"""Play an answer while it is being spoken, through an installed audio player."""

# N samples (24,000 per second)

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from commands.errors import InputError
from data_manifests.audio import MIMI_SAMPLE_RATE_HZ, to_pcm16

# Programs that play raw 16-bit samples from their standard input as they arrive.
PLAYERS = {
    "aplay": f"-q -t raw -f S16_LE -r {MIMI_SAMPLE_RATE_HZ} -c 1",
    "paplay": f"--raw --format=s16le --rate={MIMI_SAMPLE_RATE_HZ} --channels=1",
    "play": f"-q -t raw -e signed -b 16 -r {MIMI_SAMPLE_RATE_HZ} -c 1 -",
    "ffplay": f"-v quiet -nodisp -autoexit -f s16le -ar {MIMI_SAMPLE_RATE_HZ} -i -",
}


def find_player() -> list[str]:
    """Command line of the first of `PLAYERS` that is installed; raises InputError if none is."""
    for program, arguments in PLAYERS.items():
        if path := shutil.which(program):
            return [path, *arguments.split()]
    raise InputError(f"--play: none of {', '.join(PLAYERS)} is installed; play the WAV files")


class Playback:
    """Plays one answer.

    with Playback(find_player()) as playback:
        playback.add(samples_N)

    At its end, the block waits until the sound has been played; an error or Ctrl-C cuts it off. If
    the player cannot be started, or ends too early, one line reports it, and the answer goes on
    without sound.
    """

    def __init__(self, player: list[str] | None) -> None:
        """
        Args:
            player: from `find_player`; None plays nothing.
        """
        self._program = Path(player[0]).name if player else ""
        self._process: subprocess.Popen[bytes] | None = None
        if player:
            try:
                self._process = subprocess.Popen(player, stdin=subprocess.PIPE)
            except OSError as error:
                self._say(f"cannot be started ({error.strerror})")

    def add(self, samples_N: np.ndarray) -> None:
        """Play the next samples, float32."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(to_pcm16(samples_N))
            self._process.stdin.flush()
        except OSError:  # broken pipe: the player has exited or closed its input
            self._process.kill()
            self._end()

    def __enter__(self) -> "Playback":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._process is None:
            return
        if kind is not None:
            self._process.kill()
            self._process.communicate()
            return
        try:
            self._end()
        except BaseException:
            self._process.kill()
            raise

    def _end(self) -> None:
        """Wait for the player, and report it if the player failed."""
        assert self._process is not None
        self._process.communicate()  # closes its input; ignores a broken pipe
        code = self._process.returncode
        self._process = None
        if code:
            self._say(f"ended with code {code}")

    def _say(self, what: str) -> None:
        print(f"{self._program} {what}: the answer is written, but not played", file=sys.stderr)
