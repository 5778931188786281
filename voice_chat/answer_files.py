"""Where spoken answers are kept: `answer_001.wav`, `answer_002.wav`, ...; none is written over."""

# N samples (24,000 per second)

import re
from itertools import count
from pathlib import Path

import numpy as np

from data_manifests.audio import write_wav

_ANSWER = re.compile(r"answer_([0-9]{1,9})\.wav")


def keep_answer(folder: Path, samples_N: np.ndarray, sample_rate_hz: int) -> Path:
    """Write an answer under the next free number, also where another program writes there too.

    Args:
        folder: made where it is not there.
        samples_N: float32.
        sample_rate_hz: of them.

    Raises:
        WriteError, OSError: the machine refuses; nothing is left of the answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in count(next_answer_number(folder)):
        path = folder / f"answer_{number:03d}.wav"
        try:
            path.touch(exist_ok=False)  # the name is ours from here on
        except FileExistsError:
            continue
        try:
            write_wav(path, samples_N, sample_rate_hz)
        except BaseException:
            path.unlink()
            raise
        return path
    raise AssertionError("count() does not end")


def next_answer_number(folder: Path) -> int:
    """The number after the highest one there; files of other names (a copy) are passed over."""
    found = [_ANSWER.fullmatch(path.name) for path in folder.glob("answer_*.wav")]
    return max((int(match[1]) for match in found if match), default=0) + 1
