"""`data_manifests.check` on more rows than memory would hold."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from data_manifests.hash_set import HashSet, hash_text
from data_manifests.ordered_map import CHUNK_ITEMS, CHUNKS_PER_WORKER, map_in_order


def row(**changes):
    values = {
        "id": "a", "audio": "a.wav", "text": "Ɛte sɛn, Kofi?", "duration_s": 2.0, "speaker": "s",
        "dialect": "asante", "corpus": "c", "split": "train", "license": "CC0-1.0",
    }  # fmt: skip
    return {**values, **changes}


def test_hash_set_is_a_set():
    rng = np.random.default_rng(0)
    values = [0, 1, 2**64 - 1, *rng.integers(0, 5_000, 10_000).tolist()]
    values += [hash_text(str(i % 3_000)) for i in range(6_000)]
    ours, theirs = HashSet(), set()
    for value in values:
        # 0 and 1 are one to it: 2**-64 more of what hashing risks anyway
        assert (value in ours) == ((value or 1) in theirs)
        ours.add(value)
        theirs.add(value or 1)
    assert len(ours) == len(theirs)


def test_items_are_read_no_faster_than_results_are_taken():
    num_read = 0

    def items():
        nonlocal num_read
        for i in range(10_000):
            num_read += 1
            yield i

    results = map_in_order(str, items(), num_workers=1)
    for i in range(100):
        assert next(results) == (i, str(i))
        assert num_read <= i + CHUNK_ITEMS * (CHUNKS_PER_WORKER + 1)
    results.close()


# Peak memory of one process with many rows, beyond what it holds after few (libraries, code, the
# list of English words, the reading of which takes more than it leaves: so the peak is reset
# between). Not from `getrusage`: that is inherited from the process that started this one, pytest.
MEASURE = """
import re, sys
from pathlib import Path
from data_manifests import check
peaks_kib = []
for path in sys.argv[1:]:
    check.main(["--manifest", path, "--no-decode"])
    if not peaks_kib:
        Path("/proc/self/clear_refs").write_text("5")
    peaks_kib += re.findall(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())
print(int(peaks_kib[1]) - int(peaks_kib[0]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_twenty_thousand_rows_take_a_few_hashes_each(tmp_path):
    for name, num_rows in (("few", 1_000), ("many", 20_000)):
        with (tmp_path / f"{name}.jsonl").open("w") as file:
            for i in range(num_rows):
                changes = {"id": f"n{i}", "text": f"Kasa n{i}", "speaker": f"speaker {i % 200}"}
                file.write(json.dumps(row(**changes)) + "\n")
    paths = [str(tmp_path / f"{name}.jsonl") for name in ("few", "many")]
    process = subprocess.run(
        [sys.executable, "-c", MEASURE, *paths],
        cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ.copy(),
    )  # fmt: skip
    growth_kib = int(process.stdout.splitlines()[-1])
    # 12 to 24 bytes a row for each of id, sentence and reading, half as much again while an array
    # doubles: up to 2.2 MB. The utterances themselves would take 16 MB.
    assert 0 < growth_kib < 4_000, growth_kib
