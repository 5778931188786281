"""Corpora of codes of any size, as `stage1_rvq.tokenize_corpus` would write them.

Utterances last 2 to 10 s and have texts of Twi words; their codes are random, so that no Parquet
file can make them smaller.
"""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
from tqdm import tqdm

from commands.parquet_files import CodeFormat, write_parquet
from commands.run_folder import run_folder
from stage1_rvq.codes import CODES_NAME, code_schema

FORMAT = CodeFormat(num_codebooks=8, codebook_size=256, frame_rate_hz=25.0)
UTTERANCES_PER_FILE = 256
MIN_S, MAX_S = 2.0, 10.0
WORDS_A_SECOND = 2.5
WORDS = np.array(
    [
        "me", "wo", "ɔno", "yɛn", "mo", "din", "de", "ama", "kofi", "akosua", "kwame", "yaa", "wɔ",
        "kɔ", "bra", "fie", "sukuu", "kumasi", "nkran", "ɛyɛ", "sɛn", "dɛn", "ɛhe", "hwan",
        "maakye", "akwaaba", "medaase", "nsuo", "aduane", "nnuan", "abofra", "mmofra", "ɔbaa",
        "kasa", "twi", "anɔpa", "awia", "anadwo", "ɛnnɛ", "ɔkyena", "dua", "dan", "akyire", "kɛse",
        "ketewa", "papa", "hunu", "tie", "ka", "na", "nanso", "efisɛ", "sɛ", "nti", "ho", "ase",
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Simulated:
    """The settings of a simulated corpus."""

    hours: int
    overwrite: bool = True  # what an interrupted benchmark left


def simulate_codes(folder: Path, hours: int) -> Path:
    """Write a codes folder as `stage1_rvq.tokenize_corpus` does, unless it is there already."""
    if (folder / "done").exists():
        return folder
    num_utterances = round(hours * 3600 / ((MIN_S + MAX_S) / 2))
    shown = tqdm(total=num_utterances, desc=f"simulate {hours} h", unit=" utterances")
    with (
        contextlib.redirect_stdout(io.StringIO()),
        run_folder(folder, Simulated(hours), "stage1_rvq.tokenize_corpus"),
        shown as progress,
    ):
        for shard, first in enumerate(range(0, num_utterances, UTTERANCES_PER_FILE)):
            num = min(UTTERANCES_PER_FILE, num_utterances - first)
            write_parquet(folder / CODES_NAME.format(shard), _simulate_rows(first, num))
            progress.update(num)
    return folder


def _simulate_rows(first: int, num: int) -> pyarrow.Table:
    random = np.random.default_rng(first)
    durations_s = random.uniform(MIN_S, MAX_S, num)
    nums_frames = (durations_s * FORMAT.frame_rate_hz).astype(np.int32)
    ends = np.concatenate([np.zeros(1, np.int32), np.cumsum(nums_frames, dtype=np.int32)])
    num_codes = int(ends[-1]) * FORMAT.num_codebooks
    codes = pyarrow.array(random.integers(0, FORMAT.codebook_size, num_codes, dtype=np.int16))
    frame_ends = np.arange(0, num_codes + 1, FORMAT.num_codebooks, dtype=np.int32)
    frames = pyarrow.ListArray.from_arrays(pyarrow.array(frame_ends), codes)
    nums_words = np.ceil(durations_s * WORDS_A_SECOND).astype(int).tolist()
    words = iter(random.choice(WORDS, sum(nums_words)).tolist())
    columns = {
        "id": [f"utterance-{i:08d}" for i in range(first, first + num)],
        "text": [" ".join(next(words) for _ in range(n)).capitalize() + "." for n in nums_words],
        "speaker": [f"speaker-{i % 500}" for i in range(first, first + num)],
        "dialect": ["asante"] * num,
        "num_frames": nums_frames,
        "codes": pyarrow.ListArray.from_arrays(pyarrow.array(ends), frames),
    }
    return pyarrow.table(columns, schema=code_schema(FORMAT))
