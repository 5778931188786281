"""The README's walk, line by line, on the real Common Voice recordings, with tiny models.

Only what a laptop test must change is changed: where the corpus and the models are, the number of
steps, the number of codes (a random tower's 0.2 h of frames are few), and the models' width.
"""

import importlib
import json
import os
import re
import shlex
from itertools import pairwise

import numpy as np
import pyarrow.parquet
import soundfile
from conftest import ROOT, run

STEPS = "4"
# The walk's full-size settings that a few steps on two cores cannot carry.
SMALLER = {"--codebook-size": "64", "--save-every": "2", "--steps": STEPS, "--width": "64"}


def walk():
    """The command lines of the README's walk."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- walk:.*?-->\n```bash\n(.*?)```", readme, re.DOTALL)[1]
    return [line for line in block.splitlines() if line.startswith("python -m ")]


def test_the_walk_on_real_recordings(real_data, tiny_models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CV", str(real_data / "common_voice_tw"))
    monkeypatch.setenv("GEMMA", str(tiny_models / "gemma"))
    monkeypatch.setenv("MIMI", str(tiny_models / "mimi"))
    lines = walk()
    assert len(lines) > 15
    for line in lines:
        words = shlex.split(os.path.expandvars(line.removeprefix("python -m ")))
        command, *words = [SMALLER.get(before, word) for before, word in pairwise(["", *words])]
        run(importlib.import_module(command).main, *words)
    counts = [
        len(pyarrow.parquet.read_table(path))
        for path in sorted((tmp_path / "data" / "cv-codes").glob("*/codes_*.parquet"))
    ]
    assert sum(counts) > 190  # train and test of 221
    metrics = json.loads((tmp_path / "runs" / "rvq-test" / "metrics.json").read_text())
    assert 0 < metrics["reconstruction"]["8"]["relative_error"] < 1
    samples, rate = soundfile.read(tmp_path / "runs" / "answer.wav")
    assert rate == 24_000 and len(samples) > 0 and np.isfinite(samples).all()
