"""The demo's world, read from world.toml: every question with its answer, and sentences to hear.

    questions = all_questions()
    questions[0].text       "Sɛ ɛnnɛ yɛ Dwoada a, ɔkyena yɛ da bɛn?"
    questions[0].answer     "Ɔkyena yɛ Benada."

A relation (the day after a day) has facts (Dwoada -> Benada) and phrasings. Some combinations of a
fact and a phrasing are held out; both are trained in other combinations.
"""

import hashlib
import itertools
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from data_manifests.manifest import Split
from data_manifests.normalization import normalize_for_scoring
from demo.world.facts import WORLD_PATH, read_world, relation_facts, relation_phrasings, slots_of

TEST_FRACTION = 0.09
DEV_FRACTION = 0.03
POLITE_FRACTION = 0.10
MIN_TRAINED_APART = 2
"""Fewest other phrasings in which a held-out combination's fact is trained, and fewest other facts
with which its phrasing is trained."""
QUESTIONS_PER_INTERRUPTION = 30
MAX_WORDS = 15
"""Length limit of questions and of listening sentences: about five seconds of speech."""


@dataclass(frozen=True)
class Question:
    """A question, and its only right answer.

    Attributes:
        id: relation/fact/phrasing, as in "day_after/Dwoada/3"; followed by /polite if polite.
        text: as typed, capitalised, with punctuation.
        answer: likewise.
        relation: a key of `relations` in world.toml.
        fact: names the row, or rows, of the tables that fill the slots.
        phrasing: index into `relation_phrasings`.
        polite: whether it begins with the polite prefix; the plain form is also a question.
        split: split of the combination of fact and phrasing; polite and plain forms share it.
    """

    id: str
    text: str
    answer: str
    relation: str
    fact: str
    phrasing: int
    polite: bool
    split: Split


def all_questions(path: Path = WORLD_PATH) -> tuple[Question, ...]:
    """Every question of a world in the order of its file, polite forms after plain ones.

    Raises:
        ValueError: no fact fills a slot, or two questions have the same text.
    """
    return _all_questions(path)


def choose_questions(split: Split, count: int, path: Path = WORLD_PATH) -> list[Question]:
    """`count` questions of a split, spread evenly over its order and so over all relations; 0 gives
    all."""
    questions = [q for q in all_questions(path) if q.split == split]
    if not 0 < count < len(questions):
        return questions
    return [questions[i * len(questions) // count] for i in range(count)]


def interruptions(count: int, path: Path = WORLD_PATH) -> list[Question]:
    """`count` times a word that interrupts somebody ("Gyae.": stop), in turn; all of them are
    trained, by many voices, and none is among `all_questions`."""
    words = itertools.cycle(read_world(path)["interruptions"])
    return [
        Question(
            id=f"interruption/{word.strip('.').replace(' ', '_')}/{i}",
            text=_capitalise(word),
            answer=_capitalise(answer),
            relation="interruption",
            fact=word.strip("."),
            phrasing=0,
            polite=False,
            split="train",
        )
        for i, (word, _, answer) in enumerate(itertools.islice(words, count))
    ]


def with_interruptions(questions: list[Question], path: Path = WORLD_PATH) -> list[Question]:
    """The questions, and then, one for thirty of them, words that interrupt."""
    return questions + interruptions(len(questions) // QUESTIONS_PER_INTERRUPTION, path)


def listening_sentences(count: int, seed: int, path: Path = WORLD_PATH) -> list[str]:
    """Meaningless sentences, from which an ear learns to hear words instead of guessing them.

    They alternate between a pattern whose slots hold any words of the world, and two to nine words
    in random order (single words and pieces of training questions). None contains a dev or test
    question, or has more than `MAX_WORDS` words.
    """
    generator = random.Random(seed)
    held_out = [
        f" {normalize_for_scoring(q.text)} " for q in all_questions(path) if q.split != "train"
    ]
    fillers = _slot_fillers(path)
    words, training_questions = _spoken_words(path)
    sentences: list[str] = []
    while len(sentences) < count:
        if len(sentences) % 2 == 0:
            sentence = _shuffle_slots(fillers, generator, path)
        else:
            sentence = _draw_salad(words, training_questions, generator)
        heard = f" {normalize_for_scoring(sentence)} "
        is_short = len(heard.split()) <= MAX_WORDS
        if is_short and not any(question in heard for question in held_out):
            sentences.append(sentence)
    return sentences


@lru_cache
def _all_questions(path: Path) -> tuple[Question, ...]:
    questions: list[Question] = []
    for relation in read_world(path)["relations"]:
        questions.extend(_expand(relation, path))
    seen: dict[str, Question] = {}
    for question in questions:
        twin = seen.setdefault(normalize_for_scoring(question.text), question)
        if twin is not question:
            raise ValueError(f"{path}: {twin.id} and {question.id} both read {question.text!r}")
    return tuple(questions)


def _expand(relation: str, path: Path) -> list[Question]:
    world = read_world(path)
    facts, phrasings = relation_facts(relation, path), relation_phrasings(relation, path)
    per_fact = world["relations"][relation].get("per_fact", len(phrasings))
    combinations = []
    for fact in facts:
        chosen = sorted(range(len(phrasings)), key=lambda p: _hash("use", relation, fact, p))
        combinations += [(fact, phrasing) for phrasing in sorted(chosen[:per_fact])]
    splits = _assign_splits(relation, combinations)
    questions = []
    for fact, number in combinations:
        slots, phrasing = facts[fact], phrasings[number]
        for polite in (False, True):
            if polite and _hash("polite", relation, fact, number) >= POLITE_FRACTION:
                continue
            pattern = world["polite"][0] + phrasing.question if polite else phrasing.question
            questions.append(
                Question(
                    id=f"{relation}/{fact}/{number}" + ("/polite" if polite else ""),
                    text=_capitalise(pattern.format_map(slots)),
                    answer=_capitalise(phrasing.answer.format_map(slots)),
                    relation=relation,
                    fact=fact,
                    phrasing=number,
                    polite=polite,
                    split=splits[fact, number],
                )
            )
    return questions


def _assign_splits(
    relation: str, combinations: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], Split]:
    """Hold out the combinations with the lowest hashes; skip those whose fact or phrasing would
    have fewer than `MIN_TRAINED_APART` other combinations in training."""
    splits: dict[tuple[str, int], Split] = dict.fromkeys(combinations, "train")
    of_fact = Counter(fact for fact, _ in combinations)
    of_phrasing = Counter(phrasing for _, phrasing in combinations)
    num_test = round(TEST_FRACTION * len(combinations))
    num_held_out = num_test + round(DEV_FRACTION * len(combinations))
    held_out: list[tuple[str, int]] = []
    for fact, phrasing in sorted(combinations, key=lambda c: _hash("split", relation, *c)):
        fewest_left = min(of_fact[fact], of_phrasing[phrasing]) - 1
        if len(held_out) < num_held_out and fewest_left >= MIN_TRAINED_APART:
            of_fact[fact] -= 1
            of_phrasing[phrasing] -= 1
            splits[fact, phrasing] = "test" if len(held_out) < num_test else "dev"
            held_out.append((fact, phrasing))
    return splits


def _slot_fillers(path: Path) -> list[str]:
    values: set[str] = set()
    for relation in read_world(path)["relations"]:
        for fact in relation_facts(relation, path).values():
            values |= {value for slot, value in fact.items() if slot != "key"}
    return sorted(values)


def _spoken_words(path: Path) -> tuple[list[str], list[list[str]]]:
    """Every word, and every training question as words; only names are capitalised."""
    proper = {
        word
        for relation in read_world(path)["relations"]
        for p in relation_phrasings(relation, path)
        for fact in relation_facts(relation, path).values()
        for word in _strip(" ".join([re.sub(r"\{.*?\}", "", p.question), *fact.values()]))
        if word[0].isupper()
    }

    def spoken(text: str) -> list[str]:
        return [word if word in proper else word.lower() for word in _strip(text)]

    questions = all_questions(path)
    words = {word for q in questions for word in spoken(q.text) + spoken(q.answer)}
    return sorted(words), [spoken(q.text) for q in questions if q.split == "train"]


def _shuffle_slots(fillers: Sequence[str], generator: random.Random, path: Path) -> str:
    relation = generator.choice(list(read_world(path)["relations"]))
    pattern = generator.choice(relation_phrasings(relation, path)).question
    if generator.random() < POLITE_FRACTION:
        pattern = read_world(path)["polite"][0] + pattern
    slots = {slot: generator.choice(fillers) for slot in sorted(slots_of(pattern))}
    return _capitalise(pattern.format_map(slots))


def _draw_salad(
    words: Sequence[str], questions: Sequence[list[str]], generator: random.Random
) -> str:
    num_words = generator.randint(2, 9)
    salad: list[str] = []
    while len(salad) < num_words:
        if generator.random() < 0.5:
            salad.append(generator.choice(words))
        else:
            question = generator.choice(questions)
            start = generator.randrange(len(question))
            salad += question[start : start + generator.randint(1, 3)]
    return _capitalise(" ".join(salad[:num_words]) + generator.choice(".?"))


def _strip(text: str) -> list[str]:
    return [word.strip(".,:?") for word in text.split() if word.strip(".,:?")]


def _capitalise(text: str) -> str:
    return re.sub(r"(?:^|(?<=[.?] ))\w", lambda letter: letter[0].upper(), text)


def _hash(*key: str | int) -> float:
    """A fraction in [0, 1) that depends only on the key, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
