"""Another language through all four stages: the recipe for Ewe, with tiny models and few steps."""

import json
import re
from itertools import pairwise

import pytest
import soundfile
import torch
from conftest import ROOT
from languages import in_language
from short_steps import shorter

from commands.errors import InputError
from commands.json_files import read_json
from data_manifests.language import VARIABLE
from pipeline.recipe_steps import read_runnable
from speech_head.model import load_head
from stage1_rvq.recognizer import load_recognizer
from stage2_speechless.model import load_speechless

ANSWER = "Etsɔ si gbɔna nye Blaɖa."


@pytest.fixture(scope="module")
def made(forks, espeak, tiny_models, tmp_path_factory):
    """The folder that the recipe has made."""
    folder = tmp_path_factory.mktemp("ewe")
    out = folder / "run"
    values = {name: str(tiny_models / name) for name in ("gemma", "mimi")}
    values["world"] = str(ROOT / "demo" / "world" / "ewe.toml")
    with in_language("ewe"):
        recipe = read_runnable(
            ROOT / "recipes" / "demo_ewe.toml", out, [f"{n}={v}" for n, v in values.items()]
        )
    # What judges is tested elsewhere, and tiny models have nothing to say.
    steps = [
        step
        for step in recipe.steps
        if not step.command.endswith(".evaluate") and not str(step.out).endswith("/test")
    ]
    lines = [[step.command, *few(step.command, step.words)] for step in steps]
    (folder / "lines.json").write_text(json.dumps(lines), encoding="utf-8")
    environment = {VARIABLE: recipe.language}
    process = forks.run("tests.run_lines", "lines.json", folder=folder, environment=environment)
    assert process.returncode == 0, process.stderr[-3000:]
    assert json.loads(process.stdout.splitlines()[-1])["answer"] == ANSWER
    return out


def few(command, words):
    """The words of a line with few steps; nobody understands a tiny model, so any CER will do."""
    fewer = {"--max-cer": "100", "--takes": "1"}
    words = [fewer.get(before, word) for before, word in pairwise(["", *words])]
    if "--audio" in words:
        asked = words.index("--audio")
        words[asked : asked + 2] = ["--text", ANSWER]
    more = ("--num-held-out", "2") if "--num-questions" in words else ()
    return shorter(command, [*words, *more])


def test_it_ends_in_a_spoken_answer(made):
    samples, rate = soundfile.read(made / "answer.wav")
    assert rate == 24_000 and len(samples) > 0


def test_what_it_made_is_ewes_and_refused_under_twi(made):
    cpu = torch.device("cpu")
    assert read_json(made / "finetune" / "provenance.json")["normalization"] == "ewe-1"
    card = (made / "finetune" / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "language: ee" in card and "Gemma 4 answers spoken Ewe" in card
    loads = {
        "recognizer": lambda: load_recognizer(made / "recognizer", device=cpu),
        "speechless": lambda: load_speechless(str(made / "speechless"), device=cpu),
        "head": lambda: load_head(str(made / "head"), device=cpu),
    }
    with in_language("ewe"):
        units = loads["recognizer"]().units
        assert {"ɖ", "ƒ", "ɣ", "ŋ", "ʋ", "ã", "\u0303"} <= units.get_vocab().keys()
        assert set("ɖƒɣŋʋ") <= set(loads["speechless"]().config.characters)
        loads["head"]()
    for name, load in loads.items():
        refused = re.escape("was made for texts in ewe-1, this is twi-2: set SPOKEN_LANGUAGE=ewe")
        with in_language("twi"), pytest.raises(InputError, match=f"--{name} .*{refused}"):
            load()
