"""Another language through all four stages: the recipe for Ewe with few steps."""

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
from pipeline.report import About, write_report
from speech_head.model import load_head
from stage1_rvq.recognizer import load_recognizer
from stage2_speechless.model import load_speechless


@pytest.fixture(scope="module")
def made(forks, espeak, tiny_models, tmp_path_factory):
    """The folder that the recipe has made."""
    folder = tmp_path_factory.mktemp("ewe")
    out = folder / "run"
    values = {"gemma": str(ROOT / "demo" / "weights" / "gemma"), "mimi": str(tiny_models / "mimi")}
    values["world"] = str(ROOT / "demo" / "world" / "ewe.toml")
    with in_language("ewe"):
        recipe = read_runnable(
            ROOT / "recipes" / "demo_ewe.toml", out, [f"{n}={v}" for n, v in values.items()]
        )
    lines = [[step.command, *few(step.words)] for step in recipe.steps]
    (folder / "lines.json").write_text(json.dumps(lines), encoding="utf-8")
    environment = {VARIABLE: recipe.language}
    process = forks.run("tests.run_lines", "lines.json", folder=folder, environment=environment)
    assert process.returncode == 0, process.stderr[-3000:]
    return out


def few(words):
    """The words of a line with few steps; nobody understands a tiny model, so any CER will do."""
    words = ["100" if before == "--max-cer" else word for before, word in pairwise(["", *words])]
    return shorter([*words, *(("--num-held-out", "4") if "--num-questions" in words else ())])


def test_it_ends_in_an_answer_and_a_report_in_ewe(made):
    samples, rate = soundfile.read(made / "answer.wav")
    assert rate == 24_000 and len(samples) > 0
    report = write_report(made, {"stage1": 1.0}, 1.0, About("Ewe", "Tiny."))
    measured = [
        report["stage2"]["wer_generated"], report["stage3"]["exact_match"]["typed"],
        report["speech_head"]["wer_spoken"], report["speech_head"]["wer_mimi"],
    ]  # fmt: skip
    assert all(number is not None for number in measured)


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
        refused = re.escape("was made for texts in ewe-1, this is twi-1: set SPOKEN_LANGUAGE=ewe")
        with in_language("twi"), pytest.raises(InputError, match=f"--{name} .*{refused}"):
            load()
