"""The benchmark of the recogniser's step, on a tiny LSTM."""

from conftest import run

from benchmarks import recognizer_step


def test_its_table():
    title, names, *rows = run(
        recognizer_step.main, "--width", 4, "--batch-size", 5, "--num-frames", 6, "--rounds", 1
    ).splitlines()
    assert title.startswith("5 utterances, 30 frames, 2 layers of 2 x 4")
    assert names.split() == ["lengths", "padded", "packed", "ratio"]
    assert [row.split()[0] for row in rows] == ["similar", "mixed", "ceiling"]
    ratios = [row.split()[-1] for row in rows[:2]]
    assert all(float(ratio) > 0 for ratio in ratios)
