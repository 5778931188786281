"""A sample of the attacks on models, caches, pickles, chat templates; `make attacks` is the whole.

In a process of its own, since cases are forked, and this one has computed with torch.
"""

import shutil

from conftest import ROOT

KINDS = ("checkpoints", "pickles", "remote_code")


def test_hostile_input_ends_in_one_line(forks, head_world, tmp_path):
    world = tmp_path / "world"
    shutil.copytree(head_world, world)
    (world / "embedded").rename(world / "embeddings")
    process = forks.run(
        "tests.attacks", "--world", world, "--out", tmp_path / "out", "--count", 24, "--kinds",
        *KINDS, folder=ROOT,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr[-2000:]
    counts = {line.split()[0]: int(line.split()[1]) for line in process.stdout.splitlines()[1:5]}
    assert counts["all"] == 24 and all(counts[kind] >= 3 for kind in KINDS)
