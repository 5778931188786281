"""The benchmark of decoding steps, on a tiny decoder."""

import torch
from conftest import run

from benchmarks import decoding


def test_its_table():
    title, *rows = run(
        decoding.main, "--size", "tiny", "--batch-sizes", 1, 2, "--num-tokens", 2
    ).splitlines()
    num_threads = torch.get_num_threads()
    assert title.startswith(f"tiny, {num_threads} threads, linear layers of 0.00 GB")
    names = ("weights", "as torch has them", "repacked", "read once")
    assert [row[:20].strip() for row in rows] == list(names)
    assert all(float(ms) > 0 for row in rows[1:3] for ms in row[20:].split())
