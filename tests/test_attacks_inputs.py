"""A sample of the attacks on the readers of audio, manifests, scores and corpora: each ends in one
clear line, or in what it should.

All of them, in minutes: python -m tests.attacks --kinds audio manifests sentences corpora
"""

import importlib
import random

import pytest

from tests.attacks.harness import FAULTS, Case, format_faults, run_cases

# How many of each. Those that embed need torch, which must not have computed before a fork.
SAMPLE = {"audio": 8, "manifests": 8, "sentences": 12, "corpora": 12}


def sample(kind: str, world, seed: int) -> list[Case]:
    cases = importlib.import_module(f"tests.attacks.{kind}").cases(world, seed, 250)
    light = [
        case
        for case in cases
        if case.command.startswith("data_manifests.") and "dataset" not in case.name
    ]
    return random.Random(seed).sample(light, SAMPLE[kind])


def test_bad_inputs_end_in_one_line(tmp_path):
    cases = [case for kind in SAMPLE for case in sample(kind, tmp_path / "world", seed=0)]
    outcomes = run_cases(cases, tmp_path / "cases", num_workers=2)
    assert len(outcomes) == sum(SAMPLE.values())
    assert not [o for o in outcomes if o.verdict in FAULTS], format_faults(outcomes)
    verdicts = {outcome.verdict for outcome in outcomes}
    assert verdicts == {"refused", "accepted"}


@pytest.mark.parametrize("kind", SAMPLE)
def test_the_same_seed_gives_the_same_cases(tmp_path, kind):
    module = importlib.import_module(f"tests.attacks.{kind}")
    first, again, other = (module.cases(tmp_path, seed, 400) for seed in (1, 1, 2))
    names = [case.name for case in first]
    assert names == [case.name for case in again] != [case.name for case in other]
    assert len(set(names)) == len(names) == 400
