"""Store spoken answers as `answer_001.wav`, `answer_002.wav`, ...; none is overwritten."""

# N samples (24,000 per second)

import re
from itertools import count
from pathlib import Path

import numpy as np

from data_manifests.audio import write_wav

_ANSWER = re.compile(r"answer_([0-9]{1,9})\.wav")


def keep_answer(folder: Path, samples_N: np.ndarray, sample_rate_hz: int) -> Path:
    """Write an answer under the next free number, even if other programs write to the same folder,
    which is created if missing.

    Raises:
        WriteError, OSError: the file cannot be written; no part of it is left behind.
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
    """The number after the highest one in the folder; other files (say, copies) are ignored."""
    found = [_ANSWER.fullmatch(path.name) for path in folder.glob("answer_*.wav")]
    return max((int(match[1]) for match in found if match), default=0) + 1
