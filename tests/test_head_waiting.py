"""Who waits in the browser: a listener for sound that is being made, a visitor for the answer."""

import threading

import numpy as np
import pytest

from commands.errors import InputError
from voice_chat.live_sound import LiveSound
from voice_chat.waiting_line import WaitingLine


def test_sound_arrives_whole_and_once():
    sound, heard = LiveSound(), []

    def listen():
        while (samples_N := sound.take()) is not None:
            heard.append(samples_N)

    listener = threading.Thread(target=listen)
    listener.start()
    pieces = [np.full(3, i, np.float32) for i in range(100)]
    for samples_N in pieces:
        sound.add(samples_N)
    sound.end()
    listener.join(timeout=10)
    assert np.array_equal(np.concatenate(heard), np.concatenate(pieces))


def test_a_listener_who_interrupts_or_waits_hears_nothing_more():
    sound = LiveSound()
    assert sound.take(timeout_s=0.01).size == 0  # nothing yet, and more may come
    sound.add(np.ones(3, np.float32))
    sound.interrupt()
    assert sound.is_interrupted and sound.take() is None


def test_a_sound_holds_up_one_thread_and_not_all():
    sound, heard = LiveSound(), []
    first = threading.Thread(target=lambda: heard.append(sound.take(timeout_s=60)))
    first.start()
    while not sound._is_awaited:
        pass
    assert sound.take(timeout_s=60).size == 0
    sound.add(np.ones(3, np.float32))
    first.join(timeout=10)
    assert heard[0].size == 3


def test_in_line_everybody_waits_once_and_not_too_many():
    line = WaitingLine(max_waiting=2)
    ama, kofi = line.join("ama"), line.join("kofi")
    with pytest.raises(InputError, match="your question before this one still waits"):
        line.join("kofi")
    again = line.join("ama")  # whose first question is being answered
    with pytest.raises(InputError, match="2 questions are waiting already: ask again in a minute"):
        line.join("esi")
    assert [place.wait() for place in (ama, kofi, again)] == [0, 1, 2]
    moved_on = threading.Timer(0.05, lambda: line.leave(ama))
    moved_on.start()
    assert kofi.wait(timeout_s=60) == 0 and again.wait() == 1
    with kofi, again:
        pass
    assert len(line) == 0
