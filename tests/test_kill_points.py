"""Commands killed before changes of their folder, and at any moment, resume to the bytes of a run
left alone; every command that writes a folder is among those that `tests.kill_points` kills."""

import os
import re
import subprocess
import sys

from conftest import ROOT
from kill_points.folders import first_difference
from kill_points.lines import LINES
from test_commands import FOLDER_COMMANDS

SAMPLED = ("data_manifests.build", "stage1_rvq.train", "stage1_rvq.train_recognizer")


def test_every_command_that_writes_a_folder_can_be_killed():
    assert set(FOLDER_COMMANDS) <= {line.command for line in LINES if line.is_tested}


def test_a_difference_is_found_and_named(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(b"1")
        (tmp_path / name / "config.json").write_text(f'{{"resume": {str(name == "b").lower()}}}')
        (tmp_path / name / f"events.out.tfevents.{name}").write_bytes(name.encode())
    assert first_difference(tmp_path / "a", tmp_path / "b") == ""
    (tmp_path / "b" / "model.tmp").write_bytes(b"")
    assert first_difference(tmp_path / "a", tmp_path / "b") == "model.tmp is left over"
    assert first_difference(tmp_path / "b", tmp_path / "a") == "model.tmp is missing"
    (tmp_path / "b" / "model.tmp").unlink()
    (tmp_path / "b" / "weights").write_bytes(b"2")
    assert first_difference(tmp_path / "a", tmp_path / "b") == "weights differs"


def test_a_child_killed_while_it_draws_its_bar_stops_nobody():
    forks = """
import os, signal
from tqdm import tqdm
from tests.forking import no_shared_locks
list(tqdm(["makes the lock"]))
with no_shared_locks():
    if not (pid := os.fork()):
        tqdm.get_lock().acquire()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    print(*tqdm(["goes on"]))
"""
    words, path = [sys.executable, "-c", forks], {"PYTHONPATH": str(ROOT)}
    output = subprocess.check_output(words, cwd=ROOT, text=True, env=os.environ | path, timeout=60)
    assert output == "goes on\n"


def test_a_sample_of_points_and_faults(forks, corpus, head_world, tmp_path):
    """In a process of its own, which has not computed with torch: it forks the commands."""
    embedded = head_world / "embedded"
    given = {"models": head_world, "corpus": corpus, "embed": embedded, "embed_dev": embedded}
    for name, folder in given.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "given").symlink_to(folder)
    words = ["--every", "90", "--faults", "1", "--kinds", "any moment", "full disk", "two runs"]
    words += ["--commands", *SAMPLED, "--out", str(tmp_path)]
    one_thread = {"OMP_NUM_THREADS": "1"}
    tool = forks.run("tests.kill_points", *words, folder=ROOT, environment=one_thread)
    assert tool.returncode == 0, tool.stdout + tool.stderr[-2000:]
    tried = re.findall(r"^(\d+) (points|faults) in", tool.stdout, re.MULTILINE)
    assert [kind for _, kind in tried] == ["points", "faults"]
    assert all(int(number) >= len(SAMPLED) for number, _ in tried)
