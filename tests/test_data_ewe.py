"""A language other than Twi: Ewe's golden rows, its letters in every list, files of one's own."""

import json
import random
import re
import shutil
import unicodedata

import pytest
import torch
from conftest import ROOT
from languages import in_language
from test_data_twi_text import unescape

from commands.errors import InputError
from commands.ray_actors import PASSED_ON
from data_manifests import check
from data_manifests.inventory import loan_letters, outside_characters
from data_manifests.language import (
    FIRST_NORMALIZATION,
    VARIABLE,
    language,
    refuse_other_language,
    speaking,
)
from data_manifests.language_guess import guess_language, untranslated_english
from data_manifests.manifest import Utterance
from data_manifests.normalization import normalize_for_scoring, normalize_for_training
from data_manifests.sentences import split_sentences
from data_manifests.twi_numbers import number_dialects
from pipeline.recipe_steps import read_runnable
from speech_head.model import load_head
from stage1_rvq.text_units import train_units
from stage2_speechless.config import SpeechlessConfig
from stage2_speechless.model import Speechless, load_speechless
from stage2_speechless.vocabulary import Vocabulary
from stage3_finetune.model import add_adapter

GOLDEN = ROOT / "tests" / "golden" / "ewe_text.tsv"
NORMALIZE = {"training": normalize_for_training, "scoring": normalize_for_scoring}
EWE = (ROOT / "data_manifests" / "languages" / "ewe.toml").read_text(encoding="utf-8")
ROW = {
    "id": "1", "audio": "a.wav", "text": "Ŋdi.", "duration_s": 1.0, "speaker": "s",
    "corpus": "c", "split": "train", "license": "CC0-1.0",
}  # fmt: skip


def golden_rows():
    lines = GOLDEN.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [(level, unescape(text), unescape(expected)) for level, text, expected in rows]


@pytest.fixture
def ewe():
    with in_language("ewe") as used:
        yield used


def assert_invariants(text):
    trained, scored = normalize_for_training(text), normalize_for_scoring(text)
    assert normalize_for_training(trained) == trained == unicodedata.normalize("NFC", trained)
    assert normalize_for_scoring(scored) == scored == normalize_for_scoring(trained)
    assert normalize_for_training(scored) == scored
    assert all(char.isalnum() or char in " \u0303" for char in scored)


def test_every_golden_row(ewe):
    rows = golden_rows()
    assert len(rows) > 35
    for level, text, expected in rows:
        assert NORMALIZE[level](text) == expected, text
        assert_invariants(text)
    assert not set(ewe.look_alikes) - set("".join(text for _, text, _ in rows))


def test_invariants_hold_for_random_text(ewe):
    generator = random.Random(0)
    alphabet = "aɛãwkyÃƐ3)(13'-., \u0301\u0303\u0302\u200bε’ηΥʋð_n2"
    for _ in range(4_000):
        assert_invariants("".join(generator.choices(alphabet, k=generator.randint(0, 14))))


def test_letters_pass_check_recogniser_and_speechless(ewe):
    text = "Ƒo nu le Eʋegbe me: ɖevi etɔ\u0303 xɔ ŋkɔ, ɣletia kple katã."
    assert outside_characters(text) == "" and loan_letters("Cecilia, John") == "ccj"
    assert outside_characters("ß 3") == "ß3"
    units = train_units([text], 80)
    scored = normalize_for_scoring(text)
    encoding = units.encode(scored)
    assert 1 not in encoding.ids and units.decode(encoding.ids) == scored
    assert 1 in units.encode("ß").ids  # unknown
    vocabulary = Vocabulary()
    assert vocabulary.dialects == ("unknown",) and len(set(vocabulary.characters)) == 50
    assert vocabulary.spoken_characters(text) == scored
    with pytest.raises(InputError, match="no sound for ß"):
        vocabulary.spoken_characters("aß")


def test_syllables_end_in_a_vowel_and_its_tilde(ewe):
    units = train_units(["gbãtɔ etɔ\u0303wo"] * 50, 80)
    tokens = units.encode("gbãtɔ etɔ\u0303wo").tokens
    assert tokens == ["▁gbã", "tɔ", "▁e", "tɔ\u0303", "wo"]


def test_guesses_of_the_language(ewe):
    assert guess_language("Ameka nye fia le dua me?") == "ewe"
    assert guess_language("Kofi Annan") == "unknown"
    assert guess_language("Ŋutsu la ƒo nu kple ɖevia.") == "ewe"
    assert guess_language("Deɛn na ɛwɔ hɔ, na obi wɔ hɔ anaa?") == "other"
    assert guess_language("Where does the water come from?") == "english"
    assert untranslated_english("Ŋutsu la be this is the best way.") == "this is the best way"
    assert split_sentences("Eva. Ƒo nu! Ɖevia dzo.") == ["Eva.", "Ƒo nu!", "Ɖevia dzo."]
    assert number_dialects() == ()


def test_where_nothing_tells_a_language_nothing_is_guessed(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(EWE[: EWE.index("[cues]")].replace("version = 1", ""), encoding="utf-8")
    with in_language(str(path)):
        assert guess_language("Ŋutsu la ƒo nu kple ɖevia.") == "unknown"
        assert untranslated_english("this is the best way") == ""


def test_what_was_made_for_another_language_is_refused(ewe):
    with pytest.raises(InputError, match=r"--rvq x was made .* twi-1, this is ewe-1: set .*=twi"):
        refuse_other_language(FIRST_NORMALIZATION, what="--rvq x")
    with pytest.raises(InputError, match="ewe-0, this is ewe-1: train it again"):
        refuse_other_language("ewe-0", what="--head x")
    refuse_other_language("ewe-1", what="--head x")
    Utterance(**ROW, dialect="unknown")
    with pytest.raises(InputError, match=r"one of unknown, got 'asante': SPOKEN_LANGUAGE is ewe"):
        Utterance(**ROW, dialect="asante")


def test_models_of_earlier_rules_are_used_where_the_file_says_so(tmp_path):
    with in_language("twi"):
        assert language().normalization == "twi-2"
        refuse_other_language("twi-1", what="--head x")
        for other in ("twi-0", "twi-3"):
            with pytest.raises(InputError, match=rf"{other}, this is twi-2: train it again"):
                refuse_other_language(other, what="--head x")
    path = tmp_path / "ewe.toml"
    text = EWE.replace("version = 1", "")
    path.write_text(f'{text}\n[still_read]\newe-1 = "The same rules."\n', encoding="utf-8")
    with in_language(str(path)):
        refuse_other_language("ewe-1", what="--head x")
        with pytest.raises(InputError, match=r"ewe-0, this is ewe-[0-9a-f]{8}: train it again"):
            refuse_other_language("ewe-0", what="--head x")


def test_folders_of_another_language_are_refused(tmp_path):
    cpu = torch.device("cpu")
    shape = {"num_codebooks": 2, "codebook_size": 8, "width": 16, "num_layers": 1, "num_heads": 2}
    with in_language("ewe"):
        with pytest.raises(InputError, match=r"--head .*weights/head was made for texts in twi-2"):
            load_head(str(ROOT / "demo" / "weights" / "head"), device=cpu)
        with pytest.raises(InputError, match=r"--finetune .* in twi-2, this is ewe-1: set SPOKEN"):
            add_adapter(None, ROOT / "demo" / "weights" / "finetune", gemma="")
        model = Speechless(SpeechlessConfig(**shape, depth_width=8, depth_layers=1, depth_heads=2))
        model.save_pretrained(tmp_path / "ewe")
        assert load_speechless(str(tmp_path / "ewe"), device=cpu).vocabulary == Vocabulary()
        assert "- ewe\n" in (tmp_path / "ewe" / "README.md").read_text(encoding="utf-8")
    with in_language("twi"):
        with pytest.raises(InputError, match=r"this is twi-2: set .*LANGUAGE=ewe"):
            load_speechless(str(tmp_path / "ewe"), device=cpu)
        older = shutil.copytree(ROOT / "demo" / "weights" / "head" / "model", tmp_path / "older")
        settings = json.loads((older / "config.json").read_text(encoding="utf-8"))
        (older / "config.json").write_text(json.dumps(settings | {"normalization": "twi-1"}))
        head = load_head(str(older), device=cpu)
        assert head.config.normalization == "twi-1"  # in twi.toml's still_read


def test_twi_is_what_is_spoken_where_nobody_says_otherwise(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with speaking("") as used:
        assert (used.key, used.normalization) == ("twi", "twi-2") and used is language()
    assert used.characters == "abcdeɛfghijklmnŋoɔpqrstuvwxyz0123456789"
    with speaking("ewe") as other, pytest.raises(InputError, match=r"to be twi, and SPOKEN.* ewe"):
        assert other.key == "ewe"
        with speaking("twi"):
            pass
    assert language() is used


def test_a_file_of_ones_own_carries_a_hash_of_its_rules(tmp_path):
    path = tmp_path / "ewe.toml"

    def made_for(text):
        path.write_text(text, encoding="utf-8")
        from data_manifests import language as module

        module._read.cache_clear()
        with in_language(str(path)) as used:
            return used.normalization

    own = EWE.replace("version = 1\n", "")
    first = made_for(own)
    assert re.fullmatch(r"ewe-[0-9a-f]{8}", first)
    assert made_for(own.replace('speak = "Ƒo nu."', 'speak = "Gblɔe."')) == first
    assert (
        made_for(own.replace('"đ" = "ɖ"', '"đ" = "d"').replace('"Đ" = "Ɖ"', '"Đ" = "D"')) != first
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "alphabet = ",
            'alfabet = "x"\nalphabet = ',
            r"unknown key 'alfabet': did you mean 'alphabet'\?",
        ),
        ('name = "Ewe"', "", "has no 'name'"),
        ('name = "Ewe"', 'name = " "', "'name' must be filled"),
        ('codes = ["ee"]', 'codes = ["e1"]', r"'codes' must be language codes, as in \[\"tw\""),
        ('tags = ["ewe"]', "tags = []", "'tags' must be plain words"),
        ('alphabet = "a', 'alphabet = "aA', "'alphabet' must be lower-case letters, each of them"),
        ('alphabet = "a', 'alphabet = "ã', "'alphabet' must be lower-case letters"),
        ('vowels = "', 'vowels = "é', "'vowels' must be letters of the alphabet"),
        ('kept_marks = "\\u0303"', 'kept_marks = "\\u0308"', "'kept_marks' must be some of the ma"),
        ('marks = "', 'marks = "x', "'marks' must be combining marks"),
        ("punctuation = \" '", "punctuation = \"'", "'punctuation' must be a space, and"),
        ("dialects = []", 'dialects = ["a b"]', "'dialects' must be plain names, without unknown"),
        ("dialects = []", "dialects = 3", "'dialects' must be a valid tuple|array"),
        ('numbers = "none"', 'numbers = "ewe"', "'numbers' must be 'twi' or 'none', got 'ewe'"),
        ('"đ" = "ɖ" ', '"đ" = "ß" ', "'look_alikes' must be letters of the alphabet"),
        ('"đ" = "ɖ" ', "", "'look_alikes' must be in both cases: also 'đ', not only 'Đ'"),
        ("[cues]", '[typed_letters]\n"x" = "ɖ"\n[cues]', "'typed_letters' must be letters by a"),
        ("version = 1", 'version = 1\nnormalization = "x"', "'normalization' is not for you"),
        ("[cues]", '[word_shape]\nonsets = ["B"]\n[cues]', "'word_shape' must be letters of the"),
        ("[cues]", '[still_read]\newe-0 = ""\n[cues]', "'still_read' must be reasons by the norm"),
        ('name = "Ewe"', 'name = "Ewe', "not valid TOML"),
        ("version = 1", "version = 1999-01-01", "not valid TOML"),
    ],
)
def test_a_slip_in_a_language_file_is_named(tmp_path, old, new, message):
    path = tmp_path / "slip.toml"
    text = EWE.replace(old, new, 1)
    assert text != EWE
    if "version" not in old:
        text = text.replace("version = 1\n", "")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught, in_language(str(path)):
        pass
    assert "\n" not in str(caught.value) and f"{VARIABLE}={path}" in str(caught.value)


def test_an_unknown_language_is_a_users_mistake(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**ROW, "dialect": "unknown"}) + "\n", encoding="utf-8")
    monkeypatch.setenv(VARIABLE, "eve")
    language.cache_clear()
    try:
        with pytest.raises(InputError, match=r"=eve: did you mean 'ewe'\? .* a \.toml file of you"):
            check.main(["--manifest", str(path), "--no-decode"])
    finally:
        monkeypatch.undo()
        language.cache_clear()


def test_a_recipe_says_its_language_once(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    path = tmp_path / "recipe.toml"
    line = "stage2 stage2_speechless.build_text\\n --corpus text=a.txt --dialect {d} --out {out}/t"
    path.write_text(
        f'[corpus]\nhours = 1\n[values]\nd = "unknown"\n[run]\nlanguage = "ewe"\n'
        f'commands = "{line}"\n'
    )
    assert read_runnable(path, tmp_path, []).language == "ewe"
    with pytest.raises(InputError, match=r"dialect.* must be a dialect of Ewe: unknown"):
        read_runnable(path, tmp_path, ["d=asante"])
    monkeypatch.setenv(VARIABLE, "twi")
    with pytest.raises(InputError, match="is to be ewe, and SPOKEN_LANGUAGE says twi"):
        read_runnable(path, tmp_path, [])


def test_actors_of_a_ray_cluster_are_told_the_language():
    assert VARIABLE in PASSED_ON
