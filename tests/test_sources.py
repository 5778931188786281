"""What something was made from, and under which licence, travels from manifests to models, through
every stage; what is not allowed is refused, and model cards say what their weights hold."""

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
from conftest import run
from huggingface_hub import ModelCard
from whole_world import FREE, NOT_FREE, OF_DIALOGUES, write_rows

from commands import shards
from commands.atomic_write import write_json
from commands.command_line import run_command
from commands.data_card import HEADING, data_section
from commands.errors import InputError
from commands.finished_folder import read_provenance
from commands.json_files import read_json, read_json_lines
from commands.licenses import is_allowed, is_non_commercial
from commands.run_folder import OutputFolder
from commands.sources import (
    MAX_SOURCES,
    Source,
    as_facts,
    base_model,
    count_sources,
    known,
    merge,
    refuse_licenses,
    used_for,
)
from data_manifests.manifest import read_manifest, write_manifest
from gemma4.base_model import gemma_sources, tower_sources
from speech_head import states
from speech_head import train as train_head
from speech_head.model import SpeechHead, load_head
from stage1_rvq import embed, tokenize_corpus, train_recognizer
from stage1_rvq import export as export_rvq
from stage1_rvq.codes import find_code_files, read_codes_sources
from stage1_rvq.data import EmbeddingFolder
from stage1_rvq.model import SpeechRVQ, load_rvq
from stage1_rvq.recognizer import load_recognizer
from stage2_speechless import generate
from stage2_speechless import train as train_speechless
from stage2_speechless.corpus import open_corpus
from stage2_speechless.model import Speechless, load_speechless
from stage2_speechless.vocabulary import Vocabulary
from stage3_finetune import build_dialogues, speak_dialogues
from stage3_finetune.dialogue_rows import read_dialogues
from tests.attacks.world import SENTENCES, plan

CPU = torch.device("cpu")
ON_CPU = ("--device", "cpu")


@pytest.fixture(scope="module")
def world(whole_world):
    """Every stage, of a manifest with two licences and of dialogues with a third one; and then of
    the Gemma into which that adapter was merged."""
    return whole_world


def shown(sources):
    """{(used for, corpus, licence): rows}."""
    return {(s.used_for, s.corpus, s.license): s.rows for s in sources}


def recorded(folder):
    return shown(read_provenance(folder).made_from())


def speech(role):
    """The recordings, used for something."""
    return {(role, "closed", NOT_FREE): 3, (role, "noise", FREE): 5}


def chats(role):
    return {(role, "chats", OF_DIALOGUES): 3, (role, "not recorded", "unknown"): 1}


GEMMA = {("base model", "gemma", ""): 0}
MIMI = {("base model", "mimi", ""): 0}


# What is recorded of each stage


def test_speech_and_its_codes(world):
    assert recorded(world / "embeddings") == {**speech(""), **GEMMA}
    assert recorded(world / "codes") == {**speech(""), **speech("quantiser"), **GEMMA}
    seconds = {s.corpus: s.duration_s for s in EmbeddingFolder(world / "embeddings").sources}
    rows = list(read_manifest(world / "train.jsonl"))
    assert seconds["closed"] == pytest.approx(sum(row.duration_s for row in rows[:3]))
    assert read_json_lines(world / "embeddings" / "sources.jsonl")[0]["shard"] == 0


def test_models_of_speech(world):
    assert recorded(world / "rvq") == {**speech("quantiser"), **GEMMA}
    assert recorded(world / "recognizer") == {**speech("recogniser"), **GEMMA}
    expected = {**speech("Speechless"), **speech("quantiser"), **GEMMA}
    assert recorded(world / "speechless") == expected


def test_what_is_written_by_models(world):
    expected = {**chats(""), **speech("Speechless"), **speech("quantiser"), **GEMMA}
    assert recorded(world / "spoken") == expected
    expected = {**chats("adapter"), **speech("Speechless"), **speech("quantiser"), **GEMMA}
    assert recorded(world / "finetune") == expected


def test_the_head(world):
    expected = {**speech("recogniser"), **GEMMA, **MIMI}
    assert recorded(world / "states") == {**speech(""), **expected}
    for name in ("head", "parallel"):
        assert recorded(world / name) == {**speech("speech head"), **expected}


def test_models_hold_it_without_their_runs(world, tmp_path):
    for load, name in (
        (load_rvq, "rvq"), (load_speechless, "speechless"), (load_head, "head"),
    ):  # fmt: skip
        copy = shutil.copytree(world / name / "model", tmp_path / name)
        model = load(str(copy), device=CPU)
        assert shown(model.made_from()) == recorded(world / name)
        model.save_pretrained(tmp_path / "again" / name)
    assert shown(load_recognizer(world / "recognizer", device=CPU).made_from()) == recorded(
        world / "recognizer"
    )
    for kind, name in ((SpeechRVQ, "rvq"), (Speechless, "speechless"), (SpeechHead, "head")):
        again = kind.from_pretrained(tmp_path / "again" / name)
        assert shown(again.made_from()) == recorded(world / name)


def test_one_copied_file_still_says_it(world, tmp_path):
    [file] = find_code_files(world / "codes")
    copy = Path(shutil.copy(file, tmp_path / "a.parquet"))
    assert shown(read_codes_sources(copy, [copy])) == recorded(world / "codes")
    assert shown(open_corpus(copy, Vocabulary()).sources) == recorded(world / "codes")
    metadata = pyarrow.parquet.read_schema(world / "spoken" / "dialogues_00000.parquet").metadata
    assert {source["license"] for source in json.loads(metadata[b"made_from"])} == {
        FREE, NOT_FREE, OF_DIALOGUES, "unknown", "",
    }  # fmt: skip


def test_texts_say_it_by_row(world, tmp_path):
    rows = [{"id": str(i), "text": text, "corpus": "verses", "license": "CC-BY-SA-4.0"}
            for i, text in enumerate(SENTENCES[:2])]  # fmt: skip
    write_rows(tmp_path / "rows.jsonl", rows)
    typed = {("", "not recorded", "unknown"): 2}
    for text, expected in (
        (world / "sentences.txt", typed),
        (tmp_path / "rows.jsonl", {("", "verses", "CC-BY-SA-4.0"): 2}),
    ):
        out = tmp_path / text.stem
        words = ("--speechless", world / "speechless", "--text", text, *ON_CPU)
        run(generate.main, *words, "--rvq", world / "rvq", "--recognizer", world / "recognizer",
            "--max-cer", 100, "--out", out)  # fmt: skip
        made_with = {role for role, *_ in recorded(out)}
        assert made_with == {"", "Speechless", "quantiser", "recogniser", "base model"}
        assert {key: n for key, n in recorded(out).items() if not key[0]} == expected
    write_rows(tmp_path / "wrong.jsonl", [{**rows[0], "license": 4}])
    with pytest.raises(InputError, match=r"wrong.jsonl:1: 'license' must be a string .*, got 4"):
        generate.read_sentences(tmp_path / "wrong.jsonl", dialect="unknown", rate_cps=None)


def test_codes_of_recordings_and_of_embeddings_are_of_the_same(world, tmp_path):
    words = ("--manifest", world / "train.jsonl", "--gemma", world / "gemma", *ON_CPU)
    run(tokenize_corpus.main, *words, "--rvq", world / "rvq", "--out", tmp_path / "codes")
    assert recorded(tmp_path / "codes") == recorded(world / "codes")


def test_what_was_left_out_is_not_counted(world, tmp_path):
    rows = list(read_manifest(world / "train.jsonl"))
    gone = replace(rows[0], audio=str(tmp_path / "gone.wav"))
    write_manifest(tmp_path / "train.jsonl", [gone, *rows[1:]])
    words = ("--manifest", tmp_path / "train.jsonl", "--gemma", world / "gemma", *ON_CPU)
    run(embed.main, *words, "--skip-bad-audio", "--out", tmp_path / "embeddings")
    assert recorded(tmp_path / "embeddings")[("", "closed", NOT_FREE)] == 2


def test_a_merged_gemma_passes_it_on(world, tmp_path):
    merged = str(world / "merged")
    assert shown(gemma_sources(merged)) == recorded(world / "finetune")
    assert shown(tower_sources(merged)) == GEMMA
    run(
        states.main, "--manifest", world / "train.jsonl", "--recognizer", world / "recognizer",
        "--gemma", merged, "--mimi", world / "mimi", "--dialogues", world / "spoken",
        "--rvq", world / "rvq", "--out", tmp_path / "states", *ON_CPU,
    )  # fmt: skip
    assert recorded(tmp_path / "states") == {
        **speech(""), **recorded(world / "finetune"), **speech("recogniser"), **chats("questions"),
        **MIMI,
    }  # fmt: skip


# Cards


def test_cards_say_what_made_the_weights(world):
    cards = {
        name: (world / name / "README.md").read_text(encoding="utf-8")
        for name in ("published", "merged", "finetune/adapter", *(f"{m}/model" for m in (
            "rvq", "recognizer", "speechless", "head", "parallel",
        )))
    }  # fmt: skip
    for name, card in cards.items():
        assert card.count(HEADING) == 1, name
        assert f"| closed | {NOT_FREE} | 3 | 0.00 |" in card, name
        assert f"**For non-commercial use only**: {NOT_FREE} of data" in card, name
        assert "Made with `gemma`" in card, name
        front_matter = ModelCard(card).data.to_dict()
        assert front_matter["license"] == "other", name
        assert front_matter["license_name"] == "non-commercial-data", name
        assert str(world) not in card, name
    assert "| speech head | noise | CC0-1.0 | 5 |" in cards["head/model"]
    for name in ("merged", "finetune/adapter"):
        assert "| adapter | chats | MIT | 3 | text |" in cards[name]
        assert "the licence is unknown" in cards[name]
    assert "the licence is unknown" not in cards["head/model"]
    assert "Weights: Apache-2.0" not in cards["published"]


def test_the_card_lists_what_the_files_of_tokens_were_made_from(world, tmp_path):
    words = ("--rvq", world / "rvq", "--codes", world / "codes", "--out", tmp_path / "shared")
    run(export_rvq.main, *words)
    card = (tmp_path / "shared" / "README.md").read_text(encoding="utf-8")
    assert f"| twi_semantic_tokens.jsonl | closed | {NOT_FREE} | 3 |" in card
    assert f"| quantiser | closed | {NOT_FREE} | 3 |" in card


def test_a_card_without_restrictions():
    section = data_section([Source("a|b", FREE, "quantiser", 1, 3600.0), base_model("x/y")])
    assert "| quantiser | a\\|b | CC0-1.0 | 1 | 1.00 |" in section and "Made with `x/y`" in section
    assert "commercial" not in section and "unknown" not in section


# What is not allowed


TRAININGS = {
    "stage1_rvq.train_recognizer": "--embeddings @embeddings",
    "stage1_rvq.train": "--embeddings @embeddings",
    "stage2_speechless.train": "--codes @codes",
    "stage3_finetune.train": "--dialogues @spoken --rvq @rvq --gemma @gemma",
    "speech_head.train": "--states @states",
}


@pytest.mark.parametrize("command", TRAININGS)
def test_a_licence_that_is_not_allowed_is_refused_in_one_line(world, command, tmp_path, capsys):
    words = [
        str(world / word[1:]) if word[0] == "@" else word for word in TRAININGS[command].split()
    ]
    words += ["--out", str(tmp_path / "out"), *ON_CPU, "--allow-licenses", "cc0-1.0", "mit"]
    with pytest.raises(SystemExit) as caught:
        run_command(lambda: importlib.import_module(command).main([*words, "unknown"]))
    assert caught.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{words[0]} {words[1]} was made from closed" in last
    assert f"whose licence is {NOT_FREE}: --allow-licenses names only cc0-1.0, mit, unknown" in last
    assert not (tmp_path / "out").exists()


def test_texts_that_are_not_allowed_are_left_out_and_counted(world, tmp_path, capsys):
    rows = [{"id": name, "text": SENTENCES[0], "corpus": "c", "license": name} if name else
            {"id": "none", "text": SENTENCES[1]} for name in (FREE, NOT_FREE, "")]  # fmt: skip
    write_rows(tmp_path / "rows.jsonl", rows)
    words = ("--speechless", world / "speechless", *ON_CPU, "--allow-licenses", FREE)
    run(generate.main, *words, "--text", tmp_path / "rows.jsonl", "--out", tmp_path / "spoken")
    assert (
        "2 sentences left out, because --allow-licenses does not name their licence: 1 under "
        f"{NOT_FREE}, 1 under unknown" in capsys.readouterr().err
    )
    assert {key: n for key, n in recorded(tmp_path / "spoken").items() if not key[0]} == {
        ("", "c", FREE): 1
    }
    words = ("--dialogues", world / "dialogues.jsonl", *words[:-1])
    run(speak_dialogues.main, *words, OF_DIALOGUES, "--out", tmp_path / "dialogues")
    assert "1 dialogues left out, because" in capsys.readouterr().err
    assert ("", "not recorded", "unknown") not in recorded(tmp_path / "dialogues")
    for command, line in (
        (speak_dialogues, words), (generate, ("--text", tmp_path / "rows.jsonl", *words[2:])),
    ):  # fmt: skip
        with pytest.raises(InputError, match="under an allowed licence"):
            run(command.main, *line, "GPL-3.0-only", "--out", tmp_path / "none")


def test_what_is_allowed_is_trained_on(world, tmp_path):
    words = ("--codes", world / "codes", "--width", 32, "--num-layers", 1, "--num-heads", 2,
             "--depth-width", 32, "--depth-layers", 1, "--depth-heads", 2, "--steps", 1, *ON_CPU,
             "--allow-licenses", "cc0-1.0", "CC BY NC 4.0")  # fmt: skip
    run(train_speechless.main, *words, "--out", tmp_path / "run")
    assert read_json(tmp_path / "run" / "config.json")["allow_licenses"] == [
        "cc0-1.0", "CC BY NC 4.0",
    ]  # fmt: skip


def test_a_head_that_starts_from_another_holds_its_data(world, tmp_path):
    free = without_sources(world / "states", tmp_path / "states", FREE, "base model")
    words = ("--states", free, "--init-from", world / "head", "--width", 32, "--num-layers", 1,
             "--num-heads", 2, "--depth-width", 32, "--depth-layers", 1, "--depth-heads", 2,
             "--steps", 1, *ON_CPU)  # fmt: skip
    with pytest.raises(InputError, match=r"--init-from .*head was made from closed"):
        run(train_head.main, *words, "--out", tmp_path / "x", "--allow-licenses", FREE)
    run(train_head.main, *words, "--out", tmp_path / "head")
    assert recorded(tmp_path / "head")[("speech head", "closed", NOT_FREE)] == 3


def without_sources(folder, copy, *kept):
    """A copy of a folder, whose record holds only some sources; none at all for an older one."""
    shutil.copytree(folder, copy)
    facts = read_json(copy / "provenance.json")
    sources = facts.pop("sources")
    if kept:
        facts["sources"] = [s for s in sources if {s["license"], s["used_for"]} & {*kept}]
    write_json(copy / "provenance.json", facts)
    (copy / "done").unlink()
    OutputFolder(copy, is_done=True).finish()
    return copy


# What says nothing


def test_older_folders_are_unknown_and_no_error(world, tmp_path):
    older = without_sources(world / "embeddings", tmp_path / "embeddings")
    (older / "sources.jsonl").unlink()
    (older / "done").unlink()
    OutputFolder(older, is_done=True).finish()
    rvq = shutil.copytree(world / "rvq" / "model", tmp_path / "rvq")
    config = read_json(rvq / "config.json")
    del config["sources"]
    write_json(rvq / "config.json", config)
    run(tokenize_corpus.main, "--embeddings", older, "--rvq", rvq, "--out", tmp_path / "codes",
        *ON_CPU)  # fmt: skip
    assert recorded(tmp_path / "codes") == {
        ("", "not recorded", "unknown"): 0, ("quantiser", "not recorded", "unknown"): 0,
    }  # fmt: skip
    words = ("--codes", tmp_path / "codes", "--out", tmp_path / "out", *ON_CPU)
    with pytest.raises(InputError, match="was made from not recorded, whose licence is unknown"):
        run(train_speechless.main, *words, "--allow-licenses", FREE)
    refuse_licenses({"--codes x": read_provenance(tmp_path / "codes").made_from()}, ["Unknown"])


def test_an_older_training_is_resumed(world, tmp_path):
    """Its settings say nothing of licences."""
    older = shutil.copytree(world / "recognizer", tmp_path / "recognizer")
    settings = read_json(older / "config.json")
    assert settings.pop("allow_licenses") == []
    write_json(older / "config.json", settings)
    (older / "done").unlink()
    OutputFolder(older, is_done=True).finish()
    [words] = [s.words for s in plan(world) if s.command == "stage1_rvq.train_recognizer"]
    words = (*words[:-1], older, "--resume")
    run(train_recognizer.main, *words)
    with pytest.raises(InputError, match="made with allow_licenses = None"):
        run(train_recognizer.main, *words, "--allow-licenses", FREE, NOT_FREE)


def test_shards_of_an_older_version_are_not_taken_for_known(world, tmp_path, monkeypatch):
    """A run that was begun before anything was recorded, and continued."""
    monkeypatch.setattr("stage1_rvq.corpus_encoder.UTTERANCES_PER_SHARD", 4)
    words = ("--manifest", world / "train.jsonl", "--gemma", world / "gemma", *ON_CPU)
    out = tmp_path / "embeddings"
    joined = shards.join_rows
    monkeypatch.setattr(shards, "join_rows", lambda folder, name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(embed.main, *words, "--out", out)
    monkeypatch.setattr(shards, "join_rows", joined)
    (out / "sources_00000.jsonl").unlink()
    run(embed.main, *words, "--out", out, "--resume")
    assert recorded(out) == {
        ("", "noise", FREE): 4, ("", "not recorded", "unknown"): 0, **GEMMA,
    }  # fmt: skip


def test_dialogues(tmp_path):
    table = tmp_path / "questions.jsonl"
    write_rows(table, [{"instruction": "Wo ho te sɛn?", "input": "", "output": "Me ho yɛ."}])
    run(build_dialogues.main, "--table", table, "--license", "CC-BY-4.0", "--out", tmp_path / "a")
    [dialogue] = read_dialogues(tmp_path / "a" / "dialogues.jsonl")
    assert (dialogue.corpus, dialogue.license) == ("questions", "CC-BY-4.0")
    run(build_dialogues.main, "--table", table, "--out", tmp_path / "b")
    [dialogue] = read_dialogues(tmp_path / "b" / "dialogues.jsonl")
    assert (dialogue.corpus, dialogue.license) == ("questions", "unknown")
    row = read_json_lines(tmp_path / "a" / "dialogues.jsonl")[0]
    for value, message in ((3, "'license' must be a string"), ("x" * 201, "at most 200")):
        write_rows(table, [{**row, "license": value}])
        with pytest.raises(InputError, match=message):
            list(read_dialogues(table))


# Rules


def test_licences_are_compared_by_name():
    assert is_allowed("CC-BY-4.0", ["cc-by-4.0"]) and is_allowed("cc by 4.0", ["CC-BY-4.0"])
    assert is_allowed("anything", [])
    for other in ("CC-BY-NC-4.0", "CC-BY-3.0", "CC-BY-SA-4.0", "unknown", ""):
        assert not is_allowed(other, ["CC-BY-4.0"])
    assert is_allowed("", ["unknown"]) and is_allowed("Unknown", ["unknown"])
    for name in ("CC-BY-NC-4.0", "cc-by-nc-nd-4.0", "CC BY-NC-SA 4.0"):
        assert is_non_commercial(name)
    for name in ("CC-BY-4.0", "NCSA", "CC0-1.0", "unknown", ""):
        assert not is_non_commercial(name)


def test_parts_add_up_and_what_they_were_made_with_is_kept_once():
    parts = [
        (Source("a", FREE, "", 2, 1.5), Source("b", FREE, "quantiser", 7, 9.0)),
        (Source("a", FREE, "", 3, 2.0), Source("a", NOT_FREE, "", 1, 1.0),
         Source("b", FREE, "quantiser", 7, 9.0)),
    ]  # fmt: skip
    expected = (
        Source("a", NOT_FREE, "", 1, 1.0), Source("a", FREE, "", 5, 3.5),
        Source("b", FREE, "quantiser", 7, 9.0),
    )  # fmt: skip
    assert set(merge(*parts)) == set(expected)
    assert merge(*parts) == merge(*reversed(parts)) == merge(merge(*parts))
    assert used_for(parts[0], "Speechless")[0] == Source("a", FREE, "Speechless", 2, 1.5)
    assert count_sources([("a", FREE, 1.0), ("a", FREE, 0.5), (" ", "", 0)]) == (
        Source("a", FREE, "", 2, 1.5), Source("not recorded", "unknown", "", 1, 0.0),
    )  # fmt: skip
    assert known(()) == () and known(None, "x")[0].used_for == "x"
    assert as_facts(merge(*parts))[0]["rows"] in (1, 5)


def test_a_corpus_for_every_row_is_not_listed():
    rows = [(f"c{i}", (FREE, NOT_FREE)[i % 2], 1.0) for i in range(5 * MAX_SOURCES)]
    sources = count_sources(rows)
    assert len(sources) <= MAX_SOURCES
    assert sum(source.rows for source in sources) == len(rows)
    many = {s.license: s.rows for s in sources if s.corpus == "many"}
    assert min(many[FREE], many[NOT_FREE]) > MAX_SOURCES
