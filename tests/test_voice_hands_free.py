"""Talk without hands: what is heard, answered, thrown away and interrupted."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from head_world import alone, let_gemma_write

from commands.errors import InputError
from speech_head.stream import Sampling
from stage3_finetune.dialogue import Turn
from voice_chat.begun_answer import BegunAnswer
from voice_chat.hands_free import HandsFree
from voice_chat.listener import LEAD_S
from voice_chat.own_voice import EchoCanceller
from voice_chat.turn_taking import WINDOW_SAMPLES, TurnEvent, TurnSettings
from voice_chat.updates import Ended, Heard, Interrupted, Said

pytestmark = pytest.mark.skipif(find_spec("livekit") is None, reason="livekit is not installed")
WRITTEN = "Yoo, me te wo ase yiye."
RATE_HZ = 16_000
SETTINGS = TurnSettings(pause_s=0.7, early_pause_s=0.2, max_turn_s=10.0)


class LoudIsSpeech:
    """In place of Silero's detector: noise of amplitude 0.1 is speech."""

    def __init__(self):
        self.rest = np.zeros(0, np.float32)

    def push(self, samples_N):
        sound = np.concatenate([self.rest, samples_N])
        count = len(sound) // WINDOW_SAMPLES
        self.rest = sound[count * WINDOW_SAMPLES :]
        windows = sound[: count * WINDOW_SAMPLES].reshape(count, WINDOW_SAMPLES)
        return [float(abs(window).mean() > 0.01) for window in windows]


def speech(seconds, seed=0):
    noise = np.random.default_rng(seed).standard_normal(round(seconds * RATE_HZ))
    return (0.1 * noise).astype(np.float32)


def silence(seconds):
    return np.zeros(round(seconds * RATE_HZ), np.float32)


@pytest.fixture
def talk(talker, monkeypatch):
    """Begin a conversation by voice; Gemma writes the same whatever it is asked."""
    let_gemma_write(monkeypatch, WRITTEN)
    # What stands for speech here is noise, like what the tiny models say: an echo, it would seem.
    monkeypatch.setattr(EchoCanceller, "take_out", lambda self, played_N, heard_N: heard_N)
    mine = alone(talker)

    def begin(settings=SETTINGS):
        return HandsFree(mine, settings, lambda turns: Sampling(), voice=LoudIsSpeech())

    begin.turns = mine.conversation.turns
    begin.conversation = mine.conversation
    return begin


def drive(talk, *sounds, work=0):
    """Hear sounds in pieces of 32 ms, with so many steps of work after each; all updates."""
    sound, updates = np.concatenate(sounds), []
    for start in range(0, len(sound), 512):
        updates += talk.hear(sound[start : start + 512])
        for _ in range(work):
            updates += talk.work()
    return updates


def finish(talk):
    updates = []
    while talk.is_busy:
        updates += talk.work()
    return updates


def kinds(updates):
    """Without the pieces of sound."""
    named = [u.kind if isinstance(u, TurnEvent) else type(u).__name__ for u in updates]
    return [name for name in named if name != "Said"]


@pytest.mark.parametrize("work", [0, 1, 50])
def test_a_question_is_answered_when_it_has_ended(talk, work):
    live = talk()
    updates = drive(live, silence(0.5), speech(1.0), silence(1.0), work=work) + finish(live)
    assert kinds(updates) == ["began", "paused", "ended", "Ended"]
    assert updates[-1] == Ended(WRITTEN)
    first_said = next(i for i, u in enumerate(updates) if isinstance(u, Said))
    assert isinstance(updates[first_said - 1], TurnEvent)  # none before the turn has ended
    assert [turn.content for turn in talk.turns] == ["[spoken]", WRITTEN]


def test_the_answer_is_the_same_however_much_is_computed_in_between(talk):
    sounds = []
    for work in (0, 2, 50):
        live = talk()
        talk.turns.clear()
        updates = drive(live, speech(1.0), silence(1.0), work=work) + finish(live)
        sounds.append(np.concatenate([u.samples_N for u in updates if isinstance(u, Said)]))
    for sound in sounds[1:]:
        np.testing.assert_array_equal(sound, sounds[0])


def test_what_gemma_hears_is_the_turn_and_a_little_before_and_after(talk):
    live = talk()
    question = speech(1.5)
    drive(live, silence(0.96), question, silence(1.5), work=5)
    finish(live)
    lead, tail = round(LEAD_S * RATE_HZ), 7 * 512  # until the pause is found
    sound = np.concatenate([silence(0.96)[-lead:], question, silence(1)[:tail]])
    [expected_TD] = talk.conversation.encoder.encode([sound])
    found_TD = talk.turns[0].frames_TD
    assert abs(len(found_TD) - len(expected_TD)) <= 1
    count = min(len(found_TD), len(expected_TD)) - 1
    torch.testing.assert_close(found_TD[:count], expected_TD[:count], atol=1e-5, rtol=0)


def test_sound_that_is_kept_does_not_grow(talk):
    live = talk()
    for sound in (silence(3.0), speech(0.1), silence(3.0), speech(8.0), silence(0.3)):
        drive(live, sound)
        assert len(live._listener._recent_N) < (LEAD_S + 0.2) * RATE_HZ
    assert kinds(drive(live, silence(1.0), work=100))[-1] == "Ended"
    assert len(talk.turns[0].frames_TD) > 25 * 8


def test_who_goes_on_after_a_pause_is_heard_to_the_end(talk):
    live = talk()
    updates = drive(live, speech(1.0), silence(0.4), speech(1.0, seed=1), silence(1.0), work=50)
    assert kinds(updates) == ["began", "paused", "resumed", "paused", "ended", "Ended"]
    assert len(talk.turns) == 2 and len(talk.turns[0].frames_TD) > 25 * 2.3


LONG = "Yoo, me te wo ase yiye pa ara, na me bɛka ho asɛm kakra akyerɛ wo. " * 4


def begin_long_answer(talk, monkeypatch):
    """A question has been answered for a second, and the answer goes on."""
    let_gemma_write(monkeypatch, LONG.strip())
    live = talk()
    updates = drive(live, speech(1.0), silence(2.0), work=1)
    assert kinds(updates) == ["began", "paused", "ended"] and live.is_answering
    return live


def test_who_speaks_while_the_answer_is_heard_interrupts_it(talk, monkeypatch):
    live = begin_long_answer(talk, monkeypatch)
    updates = drive(live, speech(0.8, seed=1), silence(1.0))
    assert kinds(updates) == ["began", "Held", "Interrupted", "paused", "ended"]
    let_gemma_write(monkeypatch, WRITTEN)
    updates = finish(live)
    assert updates[-1] == Ended(WRITTEN)
    contents = [turn.content for turn in talk.turns]
    assert contents[0] == contents[2] == "[spoken]" and LONG.startswith(contents[1])
    assert len(contents) == 4 and contents[3] == WRITTEN


def test_a_word_of_assent_does_not_interrupt(talk, monkeypatch):
    live = begin_long_answer(talk, monkeypatch)
    updates = drive(live, speech(0.3, seed=1), silence(1.0)) + finish(live)
    assert kinds(updates) == ["began", "Held", "paused", "Resumed", "ended", "Ignored", "Ended"]
    assert len(talk.turns) == 2 and not live.is_busy


def test_an_answer_that_is_held_is_played_as_much_later(talk, monkeypatch):
    live = begin_long_answer(talk, monkeypatch)
    finish(live)
    left_s = live._own.voice._until_s - live._listener.heard_s
    updates = drive(live, speech(0.3, seed=1), silence(left_s - 0.3))
    assert kinds(updates)[-1] == "Ignored" and live.is_answering
    drive(live, silence(0.6))  # 0.2 s of speech and 0.2 s of silence, in whole steps
    assert not live.is_answering


@pytest.mark.parametrize("is_stop", [True, False])
def test_some_words_interrupt_however_short(talk, monkeypatch, is_stop):
    """Where Gemma writes transcripts, it is asked what the word was."""
    talk.conversation.writes_transcripts = True
    live = begin_long_answer(talk, monkeypatch)
    word = "Gyae!" if is_stop else "Aane."
    ids = talk.conversation.tokenizer(f"{word}\n", add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(BegunAnswer, "draft", ids[:-1])
    monkeypatch.setattr(BegunAnswer, "has_transcript", True)
    updates = drive(live, speech(0.3, seed=1), silence(1.0), work=20)
    end = ["Interrupted", "ended", "Ignored"] if is_stop else ["Resumed", "ended", "Ignored"]
    named = [kind for kind in kinds(updates) if kind != "Ended"]
    assert named == ["began", "Held", "paused", *end]
    assert live._own.voice.is_held is False


def test_who_was_only_thinking_goes_on_with_the_question(talk, monkeypatch):
    """Half a second after the turn has ended; the answer's beginning is taken back."""
    let_gemma_write(monkeypatch, LONG.strip())
    live = talk()
    first, second = speech(1.0), speech(0.8, seed=1)
    drive(live, first, silence(1.2), work=1)
    assert live.is_answering
    updates = drive(live, second, silence(1.0), work=1) + finish(live)
    assert kinds(updates) == ["began", "Held", "Interrupted", "paused", "ended", "Ended"]
    assert [u.is_continued for u in updates if isinstance(u, Interrupted)] == [True]
    [question, answer] = talk.turns
    assert answer.content == LONG.strip()
    sound = np.concatenate([first, silence(1.2), second, silence(1.0)[: 7 * 512]])
    [expected_TD] = talk.conversation.encoder.encode([sound])
    count = min(len(question.frames_TD), len(expected_TD)) - 1
    assert abs(len(question.frames_TD) - len(expected_TD)) <= 1
    found_TD = question.frames_TD
    torch.testing.assert_close(found_TD[:count], expected_TD[:count], atol=1e-5, rtol=0)


def test_after_the_answer_has_been_played_a_short_word_is_a_question(talk):
    live = talk()
    updates = drive(live, speech(1.0), silence(0.8), work=100)
    played_s = sum(len(u.samples_N) for u in updates if isinstance(u, Said)) / 24_000
    drive(live, silence(played_s + 0.1))
    assert not live.is_answering
    updates = drive(live, speech(0.3, seed=1), silence(1.0), work=100)
    assert kinds(updates) == ["began", "paused", "ended", "Ended"] and len(talk.turns) == 4


def test_the_transcript_is_told_before_the_answer(talk, monkeypatch):
    talk.conversation.writes_transcripts = True
    let_gemma_write(monkeypatch, f"Wo ho te sɛn?\n{WRITTEN}")
    live = talk()
    updates = drive(live, speech(1.0), silence(1.0), work=100)
    assert kinds(updates) == ["began", "paused", "ended", "Heard", "Ended"]
    assert [u for u in updates if isinstance(u, Heard)] == [Heard("Wo ho te sɛn?")]
    assert updates[-1] == Ended(WRITTEN)
    assert talk.turns[1].content == f"Wo ho te sɛn?\n{WRITTEN}"


def test_an_answer_that_cannot_be_said_is_told_and_the_next_one_comes(talk, monkeypatch):
    let_gemma_write(monkeypatch, "...")
    live = talk()
    [ended] = [u for u in drive(live, speech(1.0), silence(1.0), work=100) if isinstance(u, Ended)]
    assert "nothing to pronounce" in ended.problem and talk.turns == []
    let_gemma_write(monkeypatch, WRITTEN)
    updates = drive(live, speech(1.0), silence(1.0), work=100)
    assert updates[-1] == Ended(WRITTEN)


def test_a_turn_longer_than_gemma_takes_is_refused_at_once(talk):
    with pytest.raises(InputError, match="ask a shorter one"):
        talk(replace(SETTINGS, max_turn_s=1000.0))


def test_a_turn_can_be_ended_by_hand(talk):
    live = talk()
    assert live.end_turn() == []
    drive(live, speech(1.0))
    updates = live.end_turn() + finish(live)
    assert kinds(updates) == ["ended", "Ended"] and updates[-1] == Ended(WRITTEN)
    assert kinds(drive(live, silence(1.0))) == []


def test_a_typed_question_interrupts_and_is_answered(talk):
    live = talk()
    updates = live.ask(Turn("user", "Wo din de sɛn?"))
    assert kinds(updates) == ["Asked"] and finish(live)[-1] == Ended(WRITTEN)
    drive(live, silence(20.0), speech(1.0), silence(0.8))
    assert kinds(live.ask(Turn("user", "Wo din de sɛn?"))) == ["Interrupted", "Asked"]
    assert finish(live)[-1] == Ended(WRITTEN)
    asked = [turn.content for turn in talk.turns if turn.role == "user"]
    assert asked == ["Wo din de sɛn?"] * 2  # the spoken one had no word of an answer yet
    with pytest.raises(InputError, match="ask a shorter one"):
        live.ask(Turn("user", "Wo din de sɛn? " * 4000))


def test_an_answer_can_be_stopped(talk):
    live = talk()
    drive(live, speech(1.0), silence(0.8), work=1)
    assert kinds(live.stop()) == ["Interrupted"] and not live.is_busy and not live.is_answering
    [question, written] = [turn.content for turn in talk.turns]
    assert question == "[spoken]" and WRITTEN.startswith(written)
    drive(live, speech(0.5))
    assert live.stop() == []
    assert kinds(drive(live, silence(1.0))) == []
