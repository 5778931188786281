"""Texts that a head reads aloud, several takes of each, and the choice of the best one.

    read, reasons = read_aloud(talker, sentences, judge, choice, sampling_of_take)

As `stage2_speechless.takes` has it for codes: the best take is that in which a recogniser hears the
fewest errors.
"""

# N samples (24,000 per second), F Mimi frames (12.5 per second), K codebooks

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from commands.errors import InputError
from data_manifests.alignments import align_utterances
from data_manifests.normalization import normalize_for_training
from speech_head.answer import TeacherForcedAnswer, answer_states
from speech_head.stream import Sampling, speak_answers
from speech_head.talker import Talker, tokenize_within_limit
from stage1_rvq.data import iterate_batches
from stage1_rvq.listener import Transcriber
from stage2_speechless.speak import Sentence, unread_digits, with_numbers_in_words
from stage2_speechless.takes import ChoiceSettings, describe_takes, why_unusable


@dataclass(frozen=True)
class ReadText:
    """A text as it was read aloud.

    Attributes:
        take: number of the attempt that is kept, from 0.
        samples_N: float32, at Mimi's rate.
        cer: CER of what the recogniser heard in it; None without a recogniser.
    """

    take: int
    samples_N: np.ndarray
    cer: float | None


def read_aloud(
    talker: Talker,
    sentences: Sequence[Sentence],
    judge: Transcriber | None,
    choice: ChoiceSettings,
    sampling_of_take: Callable[[int], Sampling],
    *,
    batch_size: int,
    progress: "tqdm[Any]",
) -> tuple[dict[str, ReadText], dict[str, str]]:
    """Speak each sentence, and keep its best take.

    Args:
        talker: speaks, in its voice; its conversation plays no part.
        sentences: numbers are spoken as words where the dialect is known.
        judge: hears the takes; None keeps every one that ended.
        sampling_of_take: how the takes of a number, from 0, are drawn.
        batch_size: sentences spoken together; affects only speed.
        progress: updated for each sentence.

    Returns:
        What is kept, by id, and the reasons why other sentences are not, by id.
    """
    texts: dict[str, TeacherForcedAnswer] = {}
    reasons: dict[str, str] = {}
    for sentence in sentences:
        said = with_numbers_in_words(sentence)
        if reason := unread_digits(said):
            reasons[sentence.id] = reason
            continue
        try:
            text = normalize_for_training(said.text)
            texts[sentence.id] = tokenize_within_limit(text, talker.tokenizer)
        except InputError as error:
            reasons[sentence.id] = str(error)
    progress.update(len(reasons))
    read: dict[str, ReadText] = {}
    by_length = sorted(texts, key=lambda id_: len(texts[id_].ids_S))
    for positions in iterate_batches(len(by_length), batch_size):
        ids = [by_length[i] for i in positions]
        batch = {id_: texts[id_] for id_ in ids}
        best, num_unended = _read_batch(talker, batch, judge, choice.takes, sampling_of_take)
        for id_ in ids:
            count = describe_takes(choice.takes, num_unended[id_])
            if reason := why_unusable(best.get(id_), choice.max_cer, count):
                reasons[id_] = reason
            else:
                read[id_] = best[id_]
        progress.update(len(ids))
    return read, reasons


def _read_batch(
    talker: Talker,
    texts: dict[str, TeacherForcedAnswer],
    judge: Transcriber | None,
    takes: int,
    sampling_of_take: Callable[[int], Sampling],
) -> tuple[dict[str, ReadText], Counter[str]]:
    """The best take of each text, and how many of its takes never ended, by id."""
    layers = talker.head.config.layers
    answers = answer_states(talker.conversation.model, list(texts.values()), layers)
    tokens = dict(zip(texts, answers, strict=True))
    best: dict[str, ReadText] = {}
    num_unended: Counter[str] = Counter()
    waiting = list(texts)
    for take in range(takes):
        spoken = speak_answers(
            talker.head, [tokens[id_] for id_ in waiting], waiting, sampling_of_take(take),
            voices=[talker.voice_E] * len(waiting),
        )  # fmt: skip
        ended = {
            id_: s.codes_FK for id_, s in zip(waiting, spoken, strict=True) if s.end == "ended"
        }
        num_unended.update(id_ for id_ in waiting if id_ not in ended)
        if ended:
            sounds = [s_N.cpu().numpy() for s_N in talker.mimi.decode(list(ended.values()))]
            rates: Sequence[float | None] = [None] * len(ended)
            if judge:
                heard = judge.transcribe(sounds, talker.mimi.sample_rate_hz)
                said = [texts[id_].text for id_ in ended]
                rates = [one.characters.rate for one in align_utterances(said, heard)]
            for id_, samples_N, cer in zip(ended, sounds, rates, strict=True):
                if id_ not in best or (cer or 0.0) < (best[id_].cer or 0.0):
                    best[id_] = ReadText(take, samples_N, cer)
        waiting = [id_ for id_ in waiting if id_ not in best or best[id_].cer]
        if not waiting:
            break
    return best, num_unended
