"""The small world in Ewe: read by rule, spoken, and with held-out questions, as the Twi one."""

from collections import defaultdict

import pytest
from conftest import ROOT
from languages import in_language

from commands.errors import InputError
from commands.json_files import read_json_lines
from data_manifests.manifest import read_manifest
from data_manifests.normalization import normalize_for_scoring, normalize_for_training
from demo.voice.espeak import IPA_OF
from demo.voice.phonemes import phonemize
from demo.world import make_corpus
from demo.world.grammar import MAX_WORDS, all_questions, listening_sentences

WORLD = ROOT / "demo" / "world" / "ewe.toml"


@pytest.fixture(autouse=True)
def ewe():
    with in_language("ewe") as used:
        yield used


def test_words_are_read_by_rule():
    lines = (ROOT / "tests" / "golden" / "ewe_espeak.tsv").read_text(encoding="utf-8")
    golden = dict(line.split("\t") for line in lines.splitlines() if line and line[0] != "#")
    read = {word: phonemize(word)[0].words[0] for word in golden}
    assert {word: " ".join(phonemes) for word, phonemes in read.items()} == golden
    assert {phoneme for phonemes in read.values() for phoneme in phonemes} <= IPA_OF.keys()
    with pytest.raises(ValueError, match="word '3': cannot pronounce '3'; write numbers in words"):
        phonemize("Gblɔ 3.")


def test_a_language_that_nothing_reads_is_named(tmp_path):
    path = tmp_path / "mine.toml"
    text = (ROOT / "data_manifests" / "languages" / "ewe.toml").read_text(encoding="utf-8")
    text = text.replace("version = 1\n", "").replace('phonemes = "ewe"', 'phonemes = "none"')
    path.write_text(text, encoding="utf-8")
    with (
        in_language(str(path)),
        pytest.raises(InputError, match=r"no rules say how Ewe is pronounc"),
    ):
        phonemize("Ŋdi.")


def test_questions_of_the_world(ewe):
    questions = [q for q in all_questions(WORLD) if not q.polite]
    answers = {q.text: q.answer for q in questions}
    assert answers["Egbe nye Dzoɖa. Ŋkeke kae nye etsɔ si gbɔna?"] == "Etsɔ si gbɔna nye Blaɖa."
    assert answers["Xexlẽdzesi kae kplɔa eve ɖo?"] == "Etɔ\u0303 kplɔa eve ɖo."
    split = defaultdict(list)
    apart = defaultdict(set)
    for q in questions:
        split[q.split].append(q)
        if q.split == "train":
            apart[q.relation, q.fact].add(q.phrasing)
            apart[q.relation, q.phrasing].add(q.fact)
        assert normalize_for_training(q.text) == q.text and len(q.text.split()) <= MAX_WORDS
        assert set(normalize_for_scoring(q.text + q.answer)) <= set(f" {ewe.characters}")
    assert (len(questions), len(split["test"]), len(split["dev"])) == (370, 32, 11)
    for q in split["test"] + split["dev"]:
        assert len(apart[q.relation, q.fact]) >= 2 <= len(apart[q.relation, q.phrasing])
    held_out = [normalize_for_scoring(q.text) for q in split["test"] + split["dev"]]
    for sentence in listening_sentences(100, 0, WORLD):
        assert not any(f" {q} " in f" {normalize_for_scoring(sentence)} " for q in held_out)


def test_the_corpus_is_spoken(espeak, tmp_path):
    out = tmp_path / "corpus"
    words = ["--num-questions", "3", "--num-held-out", "2", "--out", str(out)]
    make_corpus.main(["--world", str(WORLD), *words])
    heard = list(read_manifest(out / "train.jsonl"))
    assert len(heard) > 4 and {row.dialect for row in heard} == {"unknown"}
    [asked, *_] = read_json_lines(out / "dialogues_test.jsonl")
    assert asked["messages"][0]["content"] in {q.text for q in all_questions(WORLD)}


def test_a_world_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"--world .*absent.toml: No such file"):
        make_corpus.main(["--world", str(tmp_path / "absent.toml"), "--out", str(tmp_path / "x")])
    (tmp_path / "bad.toml").write_text("polite = [", encoding="utf-8")
    with pytest.raises(InputError, match=r"--world .*bad.toml: not valid TOML"):
        make_corpus.main(["--world", str(tmp_path / "bad.toml"), "--out", str(tmp_path / "x")])
    assert not (tmp_path / "x").exists()
