"""The demo's world: one answer a question, held-out pairs trained apart, a README in step."""

from collections import Counter, defaultdict

import pytest

from data_manifests.language import language
from data_manifests.normalization import normalize_for_scoring, normalize_for_training
from demo.world import describe, grammar
from demo.world.facts import WORLD_PATH, relation_facts
from demo.world.grammar import all_questions, listening_sentences, with_interruptions

TWI_LETTERS = set("abdeɛfghiklmnoɔprstuwy")
LOAN_LETTERS = set("cjqvxz")


@pytest.fixture(scope="module")
def questions():
    return all_questions()


def all_words():
    """Every distinct word of all questions and answers, normalised as for error rates."""
    texts = (text for q in all_questions() for text in (q.text, q.answer))
    return {word for text in texts for word in normalize_for_scoring(text).split()}


@pytest.fixture(scope="module")
def plain(questions):
    return [q for q in questions if not q.polite]


@pytest.fixture(scope="module")
def sentences():
    return listening_sentences(4000, seed=1)


def test_a_question_of_each_kind(questions):
    by_id = {q.id: q for q in questions}
    assert len(by_id) == len(questions)
    first = by_id["day_after/Dwoada/0"]
    assert first.text == "Sɛ ɛnnɛ yɛ Dwoada a, ɔkyena yɛ da bɛn?"
    assert first.answer == "Ɔkyena yɛ Benada."
    assert by_id["day_before/Dwoada/2"].answer == "Kwasiada na ɛdi Dwoada anim."
    answers = {q.text: q.answer for q in questions}
    assert answers["Asɛmfua baako pɛ: Ghana ahenkuro."] == "Nkran."
    assert answers["So mogya yɛ bruu?"] == "Daabi, mogya yɛ kɔkɔɔ."
    assert answers["Hwan ne me yere papa?"] == "Wo yere papa yɛ w'ase barima."


def test_calculations():
    assert len(relation_facts("sum")) == len(relation_facts("difference")) == 100
    assert relation_facts("sum")["mmienu-mmiɛnsa"]["total"] == "enum"
    assert relation_facts("difference")["nson-mmiɛnsa"]["rest"] == "ɛnan"
    assert relation_facts("price")["paya-mmiɛnsa-enum"]["total"] == "dunum"
    assert relation_facts("change")["du-nsia"]["rest_counted"] == "nan"
    assert "aduonu" not in relation_facts("number_after")


def test_counts(questions, plain):
    assert 5000 <= len(questions) <= 8000
    num_of_relation = Counter(q.relation for q in plain)
    assert min(num_of_relation.values()) >= 130
    assert max(num_of_relation.values()) <= 0.2 * len(plain)
    for relation in num_of_relation:
        assert len({q.phrasing for q in plain if q.relation == relation}) >= 6
    assert 0.08 <= 1 - len(plain) / len(questions) <= 0.12


def test_lengths(questions):
    assert max(len(normalize_for_scoring(q.text).split()) for q in questions) <= grammar.MAX_WORDS
    assert max(len(normalize_for_scoring(q.answer).split()) for q in questions) <= 8


def test_no_two_questions_read_the_same(questions):
    texts = [normalize_for_scoring(q.text) for q in questions]
    assert len(set(texts)) == len(texts)


def test_split_sizes(plain):
    num_test = Counter(q.relation for q in plain if q.split == "test")
    assert num_test.total() >= 420
    assert min(num_test[q.relation] for q in plain) >= 8
    share = Counter(q.split for q in plain)
    assert share["test"] / len(plain) == pytest.approx(0.09, abs=0.005)
    assert share["dev"] / len(plain) == pytest.approx(0.03, abs=0.005)


def test_held_out_combinations_are_trained_apart(plain):
    phrasings_of_fact, facts_of_phrasing = defaultdict(set), defaultdict(set)
    for q in plain:
        if q.split == "train":
            phrasings_of_fact[q.relation, q.fact].add(q.phrasing)
            facts_of_phrasing[q.relation, q.phrasing].add(q.fact)
    for q in plain:
        if q.split != "train":
            assert len(phrasings_of_fact[q.relation, q.fact] - {q.phrasing}) >= 2, q.id
            assert len(facts_of_phrasing[q.relation, q.phrasing] - {q.fact}) >= 2, q.id


def test_every_held_out_word_is_trained(questions):
    def words(is_trained):
        texts = [q.text + " " + q.answer for q in questions if (q.split == "train") is is_trained]
        return set(normalize_for_scoring(" ".join(texts)).split())

    assert words(False) <= words(True)
    assert words(False) | words(True) == all_words()


def test_no_training_question_contains_a_held_out_one(questions):
    held_out = [f" {normalize_for_scoring(q.text)} " for q in questions if q.split != "train"]
    for q in questions:
        if q.split == "train":
            heard = f" {normalize_for_scoring(q.text)} "
            assert not any(text in heard for text in held_out), q.id


def test_polite_forms_are_where_their_plain_form_is(questions):
    by_id = {q.id: q for q in questions}
    for q in questions:
        if q.polite:
            twin = by_id[q.id.removesuffix("/polite")]
            assert (q.split, q.answer) == (twin.split, twin.answer)
            assert q.text.startswith("Mepa wo kyɛw, ")
            assert q.text.lower().endswith(twin.text.lower())


def test_listening_sentences_hold_no_held_out_question(questions, sentences):
    held_out = [f" {normalize_for_scoring(q.text)} " for q in questions if q.split != "train"]
    for sentence in sentences:
        heard = f" {normalize_for_scoring(sentence)} "
        assert not any(text in heard for text in held_out), sentence


def test_listening_sentences_bring_every_word(sentences):
    heard = {word for s in sentences for word in normalize_for_scoring(s).split()}
    assert heard == all_words()


def test_listening_sentences_are_sentences_and_repeatable(sentences):
    assert len(sentences) == 4000
    assert max(len(s.split()) for s in sentences) <= grammar.MAX_WORDS
    assert all(s[0].isupper() and s[-1] in ".?" for s in sentences)
    assert all(2 <= len(s.split()) <= 9 for s in sentences[1::2])
    assert listening_sentences(50, seed=1) == sentences[:50] != listening_sentences(50, seed=2)


def test_one_training_question_in_thirty_interrupts(questions):
    """They are asked in turn, and are no questions of the world, so that none is held out."""
    train = [q for q in questions if q.split == "train"]
    more = with_interruptions(train[:150])[150:]
    assert len(more) == 5 and {q.text for q in more} == {
        "Gyae.", "Gyae ma.", "Gyae kasa.", "Twɛn.", "Twɛn kakra.",
    }  # fmt: skip
    assert {normalize_for_scoring(q.text) for q in more} <= set(language().stop_words)
    assert len({q.id for q in with_interruptions(train)}) == len(train) + len(train) // 30
    assert not {q.text for q in more} & {q.text for q in questions}
    assert all(q.split == "train" and q.answer.startswith("Yoo") for q in more)


def test_spelling(questions):
    loans = {word for word in all_words() if set(word) & LOAN_LETTERS}
    for word in all_words():
        assert set(word) <= TWI_LETTERS | LOAN_LETTERS, word
    assert loans == {"abuja", "banjul", "monrovia", "portonovo"}
    for q in questions:
        assert normalize_for_training(q.text) == q.text
        assert normalize_for_training(q.answer) == q.answer
        assert q.text[0].isupper() and q.text[-1] in ".?"
        assert q.answer[0].isupper() and q.answer[-1] in ".?"


def test_readme_shows_the_world_as_it_is():
    readme = describe.README_PATH.read_text(encoding="utf-8")
    assert readme.endswith(f"{describe.START}\n\n{describe.pattern_tables()}"), (
        "run: python -m demo.world.describe --write"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ɔkyena yɛ {after}.", "ɔkyena yɛ {afte}.", "relation day_after: .*{afte}"),
        ("{a} ne {b} yɛ sɛn?", "ne {b} yɛ sɛn?", "both read"),
    ],
)
def test_a_slip_in_the_world_is_named(tmp_path, old, new, message):
    world = WORLD_PATH.read_text(encoding="utf-8")
    assert old in world
    path = tmp_path / "world.toml"
    path.write_text(world.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        grammar._all_questions(path)
