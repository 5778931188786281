"""Kill actors, a machine and the driver of a Ray cluster, go on, and compare the bytes.

    python -m tests.ray_kills --rounds 5

Three nodes of one core run on this machine. In every round a corpus of short recordings is embedded
with `--ray`, while at random moments two actors, one node and then the driver are killed with -9;
the command is started again with `--resume`. The folder must be, byte for byte, what one process
writes without Ray. Needs the extra `ray`; exit code 1 where a round fails.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from commands.command_line import parse_config, run_command
from commands.seeds import derive_seed
from commands.setting_types import PositiveFloat, PositiveInt, Seed
from data_manifests.audio import write_wav
from data_manifests.manifest import Utterance, write_manifest
from demo.shipped import WEIGHTS

RATE_HZ = 16_000
NUM_NODES = 3
# Of a killed driver's actors, which go on for a moment: they must not spoil what follows.
SECONDS_TO_RESUME = 1.0
OWN_FILES = ("provenance.json", "done", "config.json")


@dataclass(frozen=True, kw_only=True)
class RayKillsConfig:
    """Kill parts of a Ray cluster while it works, and compare what it writes."""

    num_recordings: PositiveInt = 2000
    """short recordings to embed"""
    rounds: PositiveInt = 5
    """times everything is killed"""
    longest_s: PositiveFloat = 20.0
    """the driver is killed so long after the first actor has begun at the latest, in seconds"""
    seed: Seed = 0
    """seed for the moments"""


def main(argv: list[str] | None = None) -> None:
    """Run the rounds; prints a line for each."""
    config = parse_config(RayKillsConfig, argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        manifest = make_recordings(folder / "corpus", config.num_recordings)
        words = ("--manifest", str(manifest), "--gemma", str(WEIGHTS / "gemma"), "--device", "cpu")
        began = time.monotonic()
        embed([*words, "--out", str(folder / "whole")]).wait()
        print(f"one process: {time.monotonic() - began:.0f} s", flush=True)
        expected = content(folder / "whole")
        num_same = 0
        for number in range(1, config.rounds + 1):
            generator = random.Random(derive_seed(config.seed, number))
            out = folder / f"round-{number}"
            killed = kill_a_round([*words, "--out", str(out)], generator, config.longest_s)
            is_same = content(out) == expected and (out / "done").exists()
            num_same += is_same
            verdict = "the same bytes" if is_same else "NOT THE SAME"
            print(f"round {number}: killed {', '.join(killed)}: {verdict}", flush=True)
    print(f"{num_same} of {config.rounds} rounds end with the bytes of one process")
    if num_same < config.rounds:
        sys.exit(1)


def make_recordings(folder: Path, count: int) -> Path:
    """Write recordings of 0.5 to 1.5 s, hums of different pitch; returns their manifest."""
    (folder / "audio").mkdir(parents=True)
    rows = []
    for i in range(count):
        duration_s = 0.5 + (i * 37 % 100) / 100
        time_N = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
        samples_N = 0.1 * np.sin(2 * np.pi * (100 + i % 300) * time_N).astype(np.float32)
        path = Path("audio") / f"{i:05d}.wav"
        write_wav(folder / path, samples_N, RATE_HZ)
        rows.append(
            Utterance(
                id=f"r{i:05d}", audio=str(path), text="Me din de Ama.", speaker="s",
                duration_s=len(samples_N) / RATE_HZ, dialect="asante", corpus="hums",
                split="train", license="CC0-1.0",
            )
        )  # fmt: skip
    write_manifest(folder / "train.jsonl", rows)
    return folder / "train.jsonl"


def kill_a_round(words: Sequence[str], generator: random.Random, longest_s: float) -> list[str]:
    """Run the command on a new cluster, kill what is to be killed, and run it to its end; returns
    what was killed, and when."""
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(NUM_NODES - 1)]
    words = [*words, "--ray", cluster.address]
    killed: list[str] = []
    try:
        driver = embed(words)
        while not find_actors() and driver.poll() is None:
            time.sleep(0.1)
        began = time.monotonic()
        deaths = ["an actor", "an actor", "a node"]
        generator.shuffle(deaths)
        moments = sorted(generator.uniform(0, longest_s) for _ in range(len(deaths) + 1))
        for moment, what in zip(moments[:-1], deaths, strict=True):
            time.sleep(max(0.0, began + moment - time.monotonic()))
            if what == "a node":
                cluster.remove_node(nodes.pop(), allow_graceful=False)
                killed.append(f"a node ({moment:.1f} s)")
            elif actors := find_actors():
                os.kill(generator.choice(actors), signal.SIGKILL)
                killed.append(f"an actor ({moment:.1f} s)")
        time.sleep(max(0.0, began + moments[-1] - time.monotonic()))
        if driver.poll() is None:
            driver.kill()
            driver.wait()
            killed.append(f"the driver ({moments[-1]:.1f} s, {count_shards(words)} shards written)")
            time.sleep(SECONDS_TO_RESUME)
            embed([*words, "--resume"]).wait()
    finally:
        cluster.shutdown()
    return killed


def embed(words: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start stage1_rvq.embed with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    line = [sys.executable, "-m", "stage1_rvq.embed", *words]
    return subprocess.Popen(
        line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def find_actors() -> list[int]:
    """Processes that Ray has given to our actors."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if line.startswith(b"ray::") and b"ShardActor" in line:
                found.append(int(folder.name))
    return sorted(found)


def count_shards(words: Sequence[str]) -> int:
    """Complete shards in the folder that a command writes."""
    return len(list(Path(words[words.index("--out") + 1]).glob("shard_*.jsonl")))


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder but those that say how it was made."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in OWN_FILES
    }


if __name__ == "__main__":
    run_command(main)
