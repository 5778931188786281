"""How words are pronounced: golden/*_phonemes.tsv, texts, and the command."""

import re

import pytest
from conftest import ROOT, run
from hypothesis import given
from hypothesis import strategies as st
from languages import in_language

from commands.errors import InputError
from data_manifests import english_phonemes, ewe_phonemes, twi_phonemes
from data_manifests import phonemes as command
from data_manifests.english_respelling import respell_english
from data_manifests.pronunciation import phonemes, read_clauses
from demo.voice.espeak import IPA_OF, SAID_AS


def read_rows(name: str) -> list[list[str]]:
    lines = (ROOT / "tests" / "golden" / name).read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if line and not line.startswith("#")]


def test_twi_words() -> None:
    rows = read_rows("twi_phonemes.tsv")
    assert len(rows) > 160 and all(source for *_, source in rows)
    for word, dialect, said, _ in rows:
        dialect = "unknown" if dialect == "-" else dialect
        assert " ".join(twi_phonemes.to_phonemes(word, dialect=dialect)) == said, word


def test_ewe_words() -> None:
    rows = read_rows("ewe_phonemes.tsv")
    with in_language("ewe"):
        read = {word: ewe_phonemes.to_phonemes(word) for word, *_ in rows}
    assert {word: " ".join(said) for word, said in read.items()} == {w: p for w, p, _ in rows}
    assert {p for said in read.values() for p in said} == set(ewe_phonemes.SPELLINGS.values())


@pytest.mark.parametrize(("word", "said", "source"), read_rows("english_phonemes.tsv"))
def test_english_words(word: str, said: str, source: str) -> None:
    assert " ".join(english_phonemes.to_phonemes(word) or ()) == said
    assert source


def test_english_that_no_dictionary_has() -> None:
    assert english_phonemes.to_phonemes("xyzzy") is None


@given(st.text(alphabet="abdeɛghikmnoɔprstuwyŋz\u0303", min_size=1, max_size=12))
def test_any_twi_word_can_be_said_by_the_demo(letters: str) -> None:
    """And each letter is heard: no word has fewer phonemes than vowels."""
    try:
        said = twi_phonemes.to_phonemes(letters)
    except ValueError:
        return  # a tilde on a consonant
    plain = [phoneme.removesuffix("\u0303") for phoneme in said]
    assert all(SAID_AS[phoneme] for phoneme in plain)
    assert len(said) >= sum(phoneme in "ieɛaɔou" for phoneme in plain)


def test_english_needs_no_sound_that_the_demo_lacks() -> None:
    words = [word for word, *_ in read_rows("english_phonemes.tsv")]
    assert {p for word in words for p in english_phonemes.to_phonemes(word) or ()} <= SAID_AS.keys()
    assert {name for names in SAID_AS.values() for name in names} <= IPA_OF.keys()


def test_a_text() -> None:
    assert phonemes("Akwaaba") == [["a", "kʷ", "a", "a", "b", "a"]]
    first, second = read_clauses("“Fa laptop no kɔ”, na wan kɔ.")
    assert first.spellings == ("Fa", "laptop", "no", "kɔ")
    assert first.words[1] == ("l", "a", "p", "t", "ɔ", "p")
    assert (first.punctuation, second.punctuation) == (",", ".")
    assert second.words[1] == ("w", "a", "ŋ")
    with in_language("ewe"):
        assert phonemes("table") == [["t", "a", "b", "l", "e"]]


def test_english_in_twi_letters() -> None:
    assert respell_english("Fa “Laptop-no” bra, table no 5!") == "Fa “Laptɔp-no” bra, tebul no 5!"
    assert respell_english("Don't worry.") == "Don wɛri."
    assert respell_english("Kofi kɔ London.") == "Kofi kɔ London."
    for word, said, _ in read_rows("english_phonemes.tsv"):
        _, respelt, _ = respell_english(f"the {word} the").split()
        [heard] = phonemes(f"ɛ{respelt}")
        left_out = "ieɛaɔouɪʊwŋɲnɡ"  # vowels, and what assimilates to its neighbour
        assert [p[0] for p in heard if p[0] not in left_out] == [
            p[0] for p in said.split() if p[0] not in left_out
        ], word


def test_prints_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command.main, "--text", "Ɔpɛ table agua.") == "ɔpɛ tebul aɡʷa\n"
    tokens = run(command.main, "--text", "Ɔpɛ agua.", "--tokens", "--dialect", "akuapem")
    assert tokens == "ɔ p ɛ | a ɡ u a\n"
    assert run(command.main, "--text", "Aboa 1000", "--dialect", "asante") == "abwa apɪm\n"


def test_prints_a_dictionary_of_a_manifest(tmp_path, capsys) -> None:
    path = tmp_path / "train.jsonl"
    rows = ['{"id": "a", "text": "Wan kɔ."}', '{"id": "b", "text": "\'Wan te H2O ho."}', ""]
    path.write_text("\n".join(rows), encoding="utf-8")
    printed = run(command.main, "--file", path, "--dictionary")
    assert printed.splitlines() == ["ho\th ʊ", "kɔ\tk ɔ", "te\tt ɪ", "wan\tw a n", "wan\tw a ŋ"]
    assert "words that cannot be read: 1, as H2O" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--text", "Mfe 5"), "--text: word '5': cannot pronounce '5'; write numbers in words"),
        (("--text", "...?"), "--text: text '...?': no word to pronounce"),
        ((), "give one of --text and --file"),
        (("--text", "a", "--tokens", "--dictionary"), "--dictionary has its own form"),
    ],
)
def test_bad_input_is_one_line(words, message) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        command.main([*words])


def test_a_file_that_cannot_be_read_is_named(tmp_path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("Kofi\nKofi & Ama\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"t\.txt:2: word '&': cannot pronounce '&'"):
        command.main(["--file", str(path)])


def test_a_language_without_rules_is_refused(tmp_path) -> None:
    text = (ROOT / "data_manifests" / "languages" / "ewe.toml").read_text(encoding="utf-8")
    text = text.replace("version = 1\n", "").replace('phonemes = "ewe"\n', "")
    (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
    refused = pytest.raises(InputError, match="no rules say how Ewe is pronounced")
    with in_language(str(tmp_path / "mine.toml")), refused:
        command.main(["--text", "Ŋdi", "--dictionary"])
