"""A trained pipeline in one repository: it works from there, and its card says what is known."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, run
from head_world import let_gemma_write
from huggingface_hub import ModelCard

from commands import checkpoint
from commands.errors import InputError
from commands.finished_folder import open_input
from commands.json_files import read_json
from commands.origins import UNKNOWN
from commands.trained_pipeline import PIPELINE_FILE, find_pipeline
from demo.shipped import WEIGHTS
from pipeline import publish
from pipeline.publish_card import CardFacts, pipeline_card
from pipeline.publish_check import Trial, refuse_difference
from pipeline.published_parts import MADE_BY, copy_part
from speech_head import speak
from stage3_finetune import chat as typed_chat
from voice_chat import chat

ON_CPU = ("--device", "cpu")
WRITTEN = "Yoo."  # an untrained head speaks each token until it is pushed on


@pytest.fixture(scope="module")
def world(whole_world):
    """What a recipe's run leaves: the parts, and what was measured of two of them."""
    return whole_world


@pytest.fixture(scope="module")
def models(world):
    return ("--gemma", world / "gemma", "--mimi", world / "mimi")


@pytest.fixture(scope="module")
def repository(world, models, tmp_path_factory):
    out = tmp_path_factory.mktemp("published") / "repository"
    assert run(publish.main, "--run", world, *models, "--out", out, *ON_CPU) == f"{out}\n"
    return out


def spoken(out, *words):
    """The bytes of a sentence as `speech_head.speak` says it."""
    run(speak.main, *words, "--text", WRITTEN, "--out", out, *ON_CPU)
    return out.read_bytes()


def test_it_speaks_as_what_it_was_made_from(world, models, repository, tmp_path):
    parts = ("--head", world / "head", "--finetune", world / "finetune", *models)
    said = spoken(tmp_path / "before.wav", *parts)
    assert spoken(tmp_path / "after.wav", "--pipeline", repository) == said
    # Each part is a folder that every command takes.
    alone = ("--head", repository / "head", "--finetune", repository / "finetune", *models)
    assert spoken(tmp_path / "alone.wav", *alone) == said
    moved = shutil.copytree(repository, tmp_path / "elsewhere")
    assert spoken(tmp_path / "moved.wav", "--pipeline", moved) == said


def test_one_talks_with_it(repository, tmp_path, monkeypatch, capsys):
    let_gemma_write(monkeypatch, WRITTEN)
    words = ("--pipeline", repository, "--prompt", "Wo ho te sɛn?", "--out", tmp_path, *ON_CPU)
    assert run(chat.main, *words).startswith(WRITTEN)
    assert (tmp_path / "answer_001.wav").is_file()
    asked = ("--pipeline", repository, "--prompt", "Wo ho te sɛn?", "--json", *ON_CPU)
    assert "answer" in json.loads(run(typed_chat.main, *asked))


def test_it_holds_what_is_needed_and_no_local_path(world, repository):
    facts = read_json(repository / PIPELINE_FILE)
    assert facts["folders"] == {name: name for name in (*MADE_BY, "gemma", "mimi")}
    assert facts["names"] == {} and facts["tower"] and facts["quantizer"]
    for part, command in MADE_BY.items():
        open_input(repository / part, made_by=command, flag=f"--{part}")
    assert not list(repository.rglob("checkpoints")) + list(repository.rglob("metrics.jsonl"))
    texts = [path for path in repository.rglob("*") if path.suffix in (".json", ".md")]
    assert len(texts) > 12
    for path in texts:
        assert str(world) not in path.read_text(encoding="utf-8"), path
    # What was recorded is there all the same.
    line = read_json(repository / "rvq" / "provenance.json")["command_line"]
    assert "--embeddings" in line or "stage1_rvq" in line


def test_the_card_says_what_was_measured(world, repository):
    text = (repository / "README.md").read_text(encoding="utf-8")
    measured = read_json(world / "rvq-test" / "metrics.json")
    [every] = list(measured["reconstruction"])[-1:]
    error = measured["reconstruction"][every]["projected"]["relative_error"]
    assert f"| stage1 | relative error | {error:.3f} |" in text
    assert "| stage2 | WER, generated codes | not yet measured |" in text
    assert re.search(r"\| speech_head \| runaway \| \d\.\d{3} \|", text)
    assert "spoke 2 held-out texts, which nothing transcribed" in text
    links = re.findall(r"\[listen\]\(([^)]+)\)", text)
    assert len(links) == 2 and all((repository / link).is_file() for link in links)
    section = text[text.index("## Data and licences") :]
    assert "| speech head | noise | CC0-1.0 |" in section and "`gemma`, `mimi`" in section
    assert ModelCard(text).data.language == ["tw", "ak"]


def test_numbers_of_another_part_stay_out_of_the_card(world, models, tmp_path, capsys):
    other = shutil.copytree(world / "rvq", tmp_path / "rvq")
    shutil.rmtree(other / "checkpoints")
    copy_part(other, tmp_path / "copied")
    words = ("--run", world, *models, "--rvq", tmp_path / "copied", "--out", tmp_path / "out")
    run(publish.main, *words, *ON_CPU)
    assert "rvq-test measured another rvq than" in capsys.readouterr().err
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| stage1 | relative error | not yet measured |" in text


def test_with_the_adapter_merged(world, models, tmp_path):
    out = tmp_path / "merged"
    parts = ("--head", world / "head", "--finetune", world / "finetune")
    run(publish.main, *parts, *models, "--merge", "--dtype", "float32", "--out", out, *ON_CPU)
    assert read_json(out / PIPELINE_FILE)["folders"] == {n: n for n in ("head", "gemma", "mimi")}
    assert "the adapter is merged into it" in (out / "README.md").read_text(encoding="utf-8")
    assert spoken(tmp_path / "said.wav", "--pipeline", out)
    with pytest.raises(InputError, match="--merge: there is no adapter"):
        run(publish.main, *parts[:2], *models, "--merge", "--out", tmp_path / "none", *ON_CPU)


def test_what_cannot_be_published(world, models, tmp_path, monkeypatch):
    words = (*models, "--out", tmp_path / "out", *ON_CPU)
    with pytest.raises(InputError, match="no speech head to publish"):
        run(publish.main, *words)
    with pytest.raises(InputError, match=r"--rvq .*head was written by speech_head.train"):
        run(publish.main, "--run", world, "--rvq", world / "head", *words)

    def damage(folder, target):
        copy_part(folder, target)
        if target.name == "rvq":
            shutil.rmtree(target)
            shutil.copytree(tmp_path / "other", target)

    shutil.copytree(world / "rvq", tmp_path / "other")
    (tmp_path / "other" / "done").unlink()
    monkeypatch.setattr(publish, "copy_part", damage)
    with pytest.raises(InputError, match=r"--rvq .* is unfinished"):
        run(publish.main, "--run", world, *words)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


def test_a_copy_that_does_something_else_is_refused(capsys):
    before, after = (Trial({"gemma": [number], "rvq": [1]}, UNKNOWN) for number in (1, 2))
    refuse_difference(before, before)
    with pytest.raises(InputError, match="the copied gemma does not make what the original makes"):
        refuse_difference(before, after)
    refuse_difference(before, after, rounded=("gemma",))
    assert "gemma: not quite as before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "is written in format 2, this version reads 1"),
        ({"folders": {"gemma": "g", "mimi": "m"}}, "does not say where its head is"),
        ({"folders": {"head": "../head"}}, "must be the path of a file in the folder"),
        ({"names": {"gemma": "/etc"}}, "names"),
        ({"names": {"gemma": "../gemma"}}, "names"),
        ({"names": {"head": "a\nb"}}, "names"),
    ],
)
def test_a_file_that_is_no_pipeline(tmp_path, change, message):
    shutil.copyfile(WEIGHTS / PIPELINE_FILE, tmp_path / PIPELINE_FILE)
    facts = {**read_json(tmp_path / PIPELINE_FILE), **change}
    (tmp_path / PIPELINE_FILE).write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        find_pipeline(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_what_is_nowhere(tmp_path):
    with pytest.raises(InputError, match=r"--pipeline .* holds no pipeline\.json"):
        find_pipeline(str(tmp_path))
    with pytest.raises(InputError, match="--pipeline ama/none: no such folder, and not on the hub"):
        find_pipeline("ama/none")
    with pytest.raises(InputError, match="give --head, or --pipeline"):
        run(chat.main, "--out", tmp_path)


def test_a_name_on_the_hub_and_a_part_from_elsewhere(repository, tmp_path, monkeypatch):
    """Who has the base models in folders of their own names them beside the pipeline."""
    copy = shutil.copytree(repository, tmp_path / "copy")
    facts = read_json(copy / PIPELINE_FILE)
    facts["names"] = {name: f"ama/{name}" for name in ("gemma", "mimi")}
    for name in facts["names"]:
        del facts["folders"][name]
        (copy / name).rename(tmp_path / name)
    (copy / PIPELINE_FILE).write_text(json.dumps(facts), encoding="utf-8")
    monkeypatch.setattr(checkpoint, "snapshot_download", lambda name: str(copy))
    with pytest.raises(InputError, match=r"--mimi ama/mimi: cannot be loaded \(no such folder"):
        spoken(tmp_path / "none.wav", "--pipeline", "ama/twi")
    words = ("--pipeline", "ama/twi", "--gemma", tmp_path / "gemma", "--mimi", tmp_path / "mimi")
    said = spoken(tmp_path / "said.wav", *words)
    assert said == spoken(tmp_path / "whole.wav", "--pipeline", repository)


def test_a_card_of_parts_on_the_hub():
    stages = {name: {"num_held_out": None} for name in ("stage2", "stage3", "speech_head")}
    stages["stage1"] = {"wer_quantized": {}}
    stages["stage3"]["exact_match"] = {"typed": 0.5}
    stages["stage3"]["num_held_out"] = 1200
    names = {"gemma": "google/gemma-4-E2B-it", "mimi": "kyutai/mimi"}
    text = pipeline_card(
        CardFacts({"head": "head"}, names, names["gemma"], list(names.values()), is_merged=False,
                  stages=stages, judge=None, samples=(), sources=())
    )  # fmt: skip
    assert "| `kyutai/mimi` on the hub |" in text and "asked 1,200 held-out questions" in text
    assert "| stage3 | typed question | 0.500 |" in text
    assert ModelCard(text).data.base_model == list(names.values())


def test_the_shipped_models_are_a_pipeline():
    parts = find_pipeline(str(WEIGHTS)).parts
    assert set(parts) == {"gemma", "mimi", "finetune", "head"}
    assert all(Path(folder).is_dir() for folder in parts.values())


@pytest.mark.parametrize("target", ["chat", "talk", "serve"])
def test_make_talks_with_the_pipeline_that_is_named(target):
    # What an outer make passes on would be said too: this may run under `make test`.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}

    def printed(*words):
        words = ("make", "--dry-run", target, *words)
        return subprocess.run(
            words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        ).stdout

    shipped = printed().splitlines()[-1]
    assert '--pipeline "demo/weights" --max-new-tokens 64 --cut-long-answers' in shipped
    assert "--remember 1" in shipped
    named = printed("PIPELINE=ama/spoken-twi").splitlines()[-1]
    assert '--pipeline "ama/spoken-twi"' in named
    assert "--max-new-tokens" not in named and "--remember" not in named
    assert "--remember 2" in printed("PIPELINE=ama/spoken-twi", "REMEMBER=2").splitlines()[-1]
