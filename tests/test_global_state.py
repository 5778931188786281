"""What a test leaves changed is found, and put back."""

import logging
import os
import random
import signal
import sys

import numpy as np
import torch
from global_state import put_back, seed_random_numbers, take_snapshot


def test_nothing_changed_is_nothing_found():
    assert put_back(take_snapshot()) == []


def test_what_is_left_changed_is_named_and_put_back(tmp_path):
    before = take_snapshot()
    threads, argv = torch.get_num_threads(), list(sys.argv)
    torch.set_num_threads(threads + 1)
    torch.set_default_dtype(torch.float64)
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    os.environ["LEFT_BY_A_TEST"] = "1"
    os.chdir(tmp_path)
    sys.argv = ["other"]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.root.addHandler(logging.NullHandler())
    found = put_back(before)
    assert [line.split(":")[0] for line in found[:5]] == [
        "working directory", "environment", "sys.argv", "signal handlers", "logging handlers",
    ]  # fmt: skip
    assert "environment: LEFT_BY_A_TEST None -> '1'" in found
    assert f"torch threads: {threads} -> {threads + 1}" in found
    assert any(line.startswith("torch.backends.mkldnn.matmul.fp32_precision") for line in found)
    assert put_back(before) == []
    assert torch.get_num_threads() == threads and torch.get_default_dtype() == torch.float32
    assert "LEFT_BY_A_TEST" not in os.environ and sys.argv == argv


def test_random_numbers_begin_anew():
    def draw():
        seed_random_numbers()
        return random.random(), np.random.rand(), torch.rand(()).item()

    assert draw() == draw()


def test_every_test_begins_with_the_same_random_numbers():
    """Whatever the tests before it drew."""
    drawn = random.random(), np.random.rand(), torch.rand(()).item()
    seed_random_numbers()
    assert drawn == (random.random(), np.random.rand(), torch.rand(()).item())
