"""The recipe for real corpora, in miniature: corpora in their layouts, tiny models, few steps."""

import json
import re
from urllib.parse import unquote

import pytest
import soundfile
from conftest import ROOT
from miniature_corpora import bibletts_tgz, common_voice_folder, fisd_zip, waxal_folder
from miniature_texts import PAIRS, afriqa_folder, afriqa_row, aya_row, oasst_rows, write_parquet
from short_steps import shorter_with_defaults

from commands.json_files import read_json, read_json_lines
from pipeline.recipe_steps import read_runnable
from pipeline.report import About, write_report

NOUNS = ("nsuo", "aduane", "sika", "ntoma", "nhoma", "dua", "abofra", "ɔkraman")
SENTENCES = [
    f"{'Me' if i % 2 else 'Yɛ'}hunuu {noun} no wɔ {place} hɔ {when}."
    for i, noun in enumerate(NOUNS)
    for place in ("fie", "kurom", "sukuu")
    for when in ("ɛnnɛ", "nnora")
]


def miniature_corpora(folder):
    """What the recipe's values name."""
    waxal = {
        split: [(f"{split}{i}", f"{split}{i % 3}", text) for i, text in enumerate(texts)]
        for split, texts in (
            ("train", SENTENCES[:8]), ("validation", SENTENCES[8:12]), ("test", SENTENCES[12:16])
        )
    }  # fmt: skip
    asked = [afriqa_row(i, q, f"['{a}']") for i, (q, a) in enumerate(PAIRS[:4])]
    oasst = oasst_rows([[pair, ("Na afei ɛyɛ dɛn?", "Yɛkɔ fie.")] for pair in PAIRS[4:8]])
    aya = [aya_row(*pair) for pair in PAIRS[8:12]]
    write_parquet(folder / "aya" / "twi" / "train-0.parquet", aya)
    return {
        "fisd": fisd_zip(folder / "fisd.zip", "asante", ["1", "2", "3"], SENTENCES[16:20]),
        "bibletts": bibletts_tgz(folder / "b.tgz", "asante", {"train": {"GEN": SENTENCES[20:]}}),
        "common_voice": common_voice_folder(folder / "tw", SENTENCES[4:8]),
        "waxal": waxal_folder(folder / "waxal", "aka_asr", waxal),
        "afriqa": f"afriqa_twi={afriqa_folder(folder / 'afriqa', asked)}",
        "oasst1": f"oasst1_akan={write_parquet(folder / 'oasst' / 'train-0.parquet', oasst)}",
        "aya": f"aya_twi={folder / 'aya'}",
    }


@pytest.fixture(scope="module")
def made(forks, espeak, tiny_models, tmp_path_factory):
    """The folder that the recipe for one consumer GPU has made."""
    folder = tmp_path_factory.mktemp("recipe")
    values = {name: str(tiny_models / name) for name in ("gemma", "mimi")}
    values |= miniature_corpora(folder)
    out = folder / "run"
    given = [f"{name}={value}" for name, value in values.items()]
    recipe = read_runnable(ROOT / "recipes" / "twi_e2b_24gb.toml", out, given)
    lines = [[step.command, *in_miniature(step.command, step.words)] for step in recipe.steps]
    (folder / "lines.json").write_text(json.dumps(lines), encoding="utf-8")
    process = forks.run("tests.run_lines", "lines.json", folder=folder)
    assert process.returncode == 0, process.stderr[-3000:]
    return out


def in_miniature(command, words):
    """A sentence is read aloud in place of an answer: a random Gemma may write none."""
    words = shorter_with_defaults(command, words)
    if "--prompt" in words:
        asked = words.index("--prompt")
        words[asked : asked + 2] = ["--text", "Yoo."]
    return words


def test_it_ends_in_a_spoken_answer_and_a_report(made):
    samples, rate = soundfile.read(made / "answer.wav")
    assert rate == 24_000 and len(samples) > 0
    report = write_report(made, {"stage1": 1.0}, 1.0, About("Twi", "Tiny."))
    measured = [
        report["stage1"]["relative_error"],
        report["stage2"]["wer_generated"], report["stage3"]["exact_match"]["spoken_second"],
        report["speech_head"]["wer_spoken"], report["speech_head"]["wer_mimi"],
    ]  # fmt: skip
    assert all(number is not None for number in measured)
    page = (made / "report.html").read_text(encoding="utf-8")
    players = re.findall(r'<audio controls src="([^"]+)">', page)
    assert len(players) > 1 and all((made / unquote(path)).is_file() for path in players)


def test_every_corpus_took_part(made):
    heard = {row["corpus"] for row in read_json_lines(made / "check" / "train.jsonl")}
    assert heard == {"fisd_asante", "waxal_aka_asr", "common_voice"}
    assert {r["corpus"] for r in read_json_lines(made / "voice" / "test.jsonl")} == {
        "bibletts_asante"
    }
    asked = {row["corpus"] for row in read_json_lines(made / "dialogues" / "dialogues.jsonl")}
    assert asked == {"afriqa_twi", "oasst1_akan", "aya_twi"}
    spoken = read_json(made / "finetune" / "provenance.json")["spoken_turns"]
    assert spoken["recordings"] == 0 < spoken["generated_codes"]
