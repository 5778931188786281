"""docs/tutorial.md, line by line, in miniature: a user's two tables, tiny models, few steps."""

import csv
import json
import re
import shlex
from itertools import pairwise

import pytest
import soundfile
from conftest import ROOT
from short_steps import shorter_with_defaults

from commands.command_line import parse_config
from commands.json_files import read_json, read_json_lines
from pipeline.recipe_steps import read_runnable
from pipeline.run import RunConfig

MAX_COMMANDS = 10
NUM_RECORDINGS = 8
# What few steps and few rows cannot carry, beside `short_steps.py`.
FEWER = {
    "--takes": "1", "--variants": "2", "--max-cer": "100", "--max-new-tokens": "12",
    "--num-utterances": "2", "--num-dev-sentences": "2", "--num-held-out": "2",
    "--accumulate": "4",  # after fewer rows, no answer to two questions can be spoken
}  # fmt: skip
WITHOUT = ("--init-from",)  # the shipped head has its own shape


def tutorial():
    """The commands that the tutorial asks for, before it speaks of the real models."""
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    walked = text.partition("## On the real models")[0]
    blocks = re.findall(r"```bash\n(.*?)```", walked, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and line[0] != "#"]


def module_lines():
    return [shlex.split(line)[2:] for line in tutorial() if line.startswith("python -m ")]


def in_miniature(command, words):
    words = shorter_with_defaults(command, words)
    words = [FEWER.get(before, word) for before, word in pairwise(["", *words])]
    left_out = {i + j for i, word in enumerate(words) if word in WITHOUT for j in (0, 1)}
    return [word for i, word in enumerate(words) if i not in left_out]


def test_it_takes_few_commands():
    assert 5 < len(tutorial()) < MAX_COMMANDS


def with_fewer_rows(folder):
    """Some recordings, and the questions that they are of."""
    header, *recordings = read_csv(folder / "recordings.csv")
    write_csv(folder / "recordings.csv", [header, *recordings[:NUM_RECORDINGS]])
    read = {text for _, text in recordings[:NUM_RECORDINGS]}
    header, *questions = read_csv(folder / "questions.csv")
    write_csv(folder / "questions.csv", [header, *(row for row in questions if row[0] in read)])
    for name in ("asked.jsonl", "asked_dialogues.jsonl"):
        lines = (folder / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / name).write_text("".join(lines[:4]), encoding="utf-8")
    for name in ("done", "config.json", "provenance.json"):  # the tables are a user's now
        (folder / name).unlink()


def read_csv(path):
    return list(csv.reader(path.read_text(encoding="utf-8").splitlines()))


def write_csv(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def steps_of(words, tiny_models):
    """The commands of the recipe that a line runs."""
    config = parse_config(RunConfig, ["--recipe", *words])
    models = [f"{name}={tiny_models / name}" for name in ("gemma", "mimi")]
    recipe = read_runnable(ROOT / config.recipe, config.out, [*config.set, *models])
    return [[step.command, *in_miniature(step.command, step.words)] for step in recipe.steps]


@pytest.fixture(scope="module")
def followed(forks, espeak, tiny_models, tmp_path_factory):
    """The folder in which the tutorial was followed."""
    folder = tmp_path_factory.mktemp("tutorial")
    lines = []
    for command, *words in module_lines():
        if command == "pipeline.run":
            lines += steps_of(words, tiny_models)
        else:
            words = [word.replace("demo/weights", str(tiny_models)) for word in words]
            lines.append([command, *in_miniature(command, words)])
    assert lines[0][0] == "demo.world.make_own" and len(lines) > 25
    for part in (lines[:1], lines[1:]):
        (folder / "lines.json").write_text(json.dumps(part), encoding="utf-8")
        process = forks.run("tests.run_lines", "lines.json", folder=folder)
        assert process.returncode == 0, process.stderr[-3000:]
        if part == lines[:1]:
            with_fewer_rows(folder / "my")
    return folder


def test_recordings_and_questions_end_in_a_spoken_answer(followed):
    samples, rate = soundfile.read(followed / "answer.wav")
    assert rate == 24_000 and len(samples) > 0
    assert (followed / "runs" / "own" / "pipeline" / "pipeline.json").is_file()


def test_own_recordings_are_trained_on_and_held_out(followed):
    own = followed / "runs" / "own"
    corpora = {
        split: [row["corpus"] for row in read_json_lines(own / "manifests" / f"{split}.jsonl")]
        for split in ("train", "dev", "test")
    }
    assert all({"own", "demo"} <= {*found} for found in corpora.values())
    heard = read_json_lines(own / "finetune-test" / "answers.jsonl")
    assert len(heard) == corpora["test"].count("own")


def test_own_questions_are_trained_beside_the_demo_s(followed):
    own = followed / "runs" / "own"
    spoken = len(read_json_lines(own / "spoken-questions" / "kept.jsonl"))
    others = len(read_json_lines(own / "spoken-dialogues" / "kept.jsonl"))
    assert spoken and others
    provenance = read_json(own / "finetune" / "provenance.json")
    assert provenance["num_dialogues"] == spoken + others
    facts = provenance["inputs"]["more_dialogues[0]"]
    assert facts["path"].endswith("spoken-dialogues") and len(facts["sha256"]) == 64
    by_category = read_json(own / "asked" / "metrics.json")["by_category"]
    assert {*by_category} == {"as trained", "in other words"}
