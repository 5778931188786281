"""Many conversations at once, on one set of models and one thread.

with Studio(talker, settings, sampling_of_turn, max_visits=16) as studio:
    visit = studio.enter(print)         # called with what happened, in the studio's thread
    visit.hear(samples_N)               # from any thread, returns at once
    visit.ask("Wo din de sɛn?")
    visit.leave()

All who are being answered advance together: one token each in one pass of Gemma, 80 ms of speech
each in one pass of the head and the codec. So nobody waits for another's answer to end; all answers
become somewhat slower as more are computed, and beyond `max_visits` nobody is let in.
"""

# N samples at 16 kHz

import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from commands.errors import InputError
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from speech_head.stream import Sampling
from speech_head.talker import Talker
from speech_head.voices import find_voice
from stage3_finetune.dialogue import Turn
from voice_chat.hands_free import HandsFree, work_together
from voice_chat.turn_taking import TurnSettings
from voice_chat.updates import Called, Left, Refused, Update

# Sound of one visitor that may wait: more means that the machine cannot keep up.
MAX_WAITING_S = 30.0

Listener = Callable[[list[Update]], None]
Job = Callable[[HandsFree], list[Update]]


class Studio:
    """Where conversations take place; `with` starts and ends its thread."""

    def __init__(
        self,
        talker: Talker,
        settings: TurnSettings,
        sampling_of_turn: Callable[[Sequence[Turn]], Sampling],
        *,
        max_visits: int,
    ) -> None:
        """
        Args:
            talker: its models are shared; its conversation is not used.
            settings: how turns are told from silence.
            sampling_of_turn: how the answer after these turns is sampled.
            max_visits: how many may be there at a time.
        """
        self._talker = talker
        self._settings = settings
        self._sampling_of_turn = sampling_of_turn
        self._max_visits = max_visits
        self._visits: list[Visit] = []
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="studio", daemon=True)

    def __enter__(self) -> "Studio":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def __len__(self) -> int:
        return len(self._visits)

    @property
    def voices(self) -> list[str]:
        """Names of the voices that visitors can choose from."""
        return self._talker.head.config.voices

    def enter(self, listener: Listener) -> "Visit":
        """Begin a conversation that nobody else can hear.

        Args:
            listener: called in the studio's thread with what happened; returns at once.

        Raises:
            InputError: too many are there, or silero-vad is missing.
        """
        self._refuse_too_many()
        conversation = self._talker.conversation.continuing([])
        live = HandsFree(
            replace(self._talker, conversation=conversation), self._settings,
            self._sampling_of_turn, clock_s=time.monotonic,
        )  # fmt: skip
        with self._changed:
            self._refuse_too_many()  # others came while the detector was loaded
            visit = Visit(self, live, listener)
            self._visits.append(visit)
        return visit

    def _refuse_too_many(self) -> None:
        if len(self._visits) >= self._max_visits:
            raise InputError(
                f"{self._max_visits} conversations are going on already: come again in a minute"
            )

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._is_closed or any(v.has_work for v in self._visits)
                )
                if self._is_closed:
                    return
                visits = list(self._visits)
            self._take_turn(visits)

    def _take_turn(self, visits: "list[Visit]") -> None:
        """Do what visitors asked for, then compute a little of every answer."""
        visits = [visit for visit in visits if visit.obey()]
        try:
            happened = work_together([visit.live for visit in visits])
        except Exception:  # a bug: it is printed, and those who were answered leave
            for visit in visits:
                if visit.live.is_busy:
                    visit.break_off()
            return
        for visit, updates in zip(visits, happened, strict=True):
            visit.tell(updates)

    def _remove(self, visit: "Visit") -> None:
        with self._changed:
            if visit in self._visits:
                self._visits.remove(visit)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()


class Visit:
    """One conversation in the studio; its methods may be called from any thread."""

    def __init__(self, studio: Studio, live: HandsFree, listener: Listener) -> None:
        self._studio = studio
        self.live = live
        self._listener = listener
        self._jobs: list[Job] = []
        self._sound: list[np.ndarray] | None = None  # that of the last job, if that is to hear it
        self._num_waiting = 0  # samples
        self._has_left = False
        self._lock = threading.Lock()

    @property
    def talker(self) -> Talker:
        """What speaks: the models, and the voice in use."""
        return self.live.answerer.talker

    @property
    def has_work(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._jobs) or self.live.is_busy

    def hear(self, samples_N: np.ndarray) -> None:
        """Hear the visitor's microphone, float32 in [-1, 1], mono, 16 kHz.

        Raises:
            InputError: too much sound waits already.
        """
        with self._lock:
            if self._num_waiting > MAX_WAITING_S * GEMMA_SAMPLE_RATE_HZ:
                raise InputError(
                    f"{MAX_WAITING_S:.0f} s of sound wait already: too many talk at once"
                )
            self._num_waiting += len(samples_N)
            if self._sound is not None:
                self._sound.append(samples_N)
                return
        sound = [samples_N]

        def hear(live: HandsFree) -> list[Update]:
            sound_N = np.concatenate(sound)
            with self._lock:
                self._num_waiting -= len(sound_N)
            return live.hear(sound_N)

        self._add(hear, sound)

    def end_turn(self) -> None:
        """End the visitor's turn now: a button was released, say."""
        self._add(HandsFree.end_turn)

    def ask(self, text: str) -> None:
        """Ask a typed question.

        Raises:
            InputError: as `Conversation.typed_turn`.
        """
        question = self.live.typed_turn(text)
        self._add(lambda live: live.ask(question))

    def instruct(self, text: str, *, speaks: bool, voice: str | None = None) -> None:
        """Say what is to be done with what is said from now on.

        Args:
            text: shown to Gemma beside it; "" for none.
            speaks: whether answers are said aloud, or only written.
            voice: name of the voice in which they are said; None for the one in use.

        Raises:
            InputError: as `Conversation.typed_turn`, or the head does not know the voice.
        """
        if text:
            self.live.typed_turn(text)
        found = find_voice(self.talker.head, voice, flag="voice") if voice is not None else None

        def instruct(live: HandsFree) -> list[Update]:
            live.answerer.instruction, live.answerer.speaks = text, speaks
            if found:
                live.answerer.speak_in(found)
            return []

        self._add(instruct)

    def stop(self) -> None:
        """End the answer."""
        self._add(HandsFree.stop)

    def leave(self) -> None:
        """End the conversation, which is forgotten."""
        self._studio._remove(self)
        with self._lock:
            # What was not done refers to this visit: it would keep its models' caches alive.
            self._has_left, self._jobs, self._sound = True, [], None

    def obey(self) -> bool:
        """Do what was asked for; called by the studio. Returns whether the visit goes on."""
        with self._lock:
            jobs, self._jobs, self._sound = self._jobs, [], None
        updates: list[Update] = []
        try:
            for job in jobs:
                try:
                    updates += job(self.live)
                except InputError as error:
                    updates.append(Refused(str(error)))
        except Exception:  # a bug: it is printed, this conversation ends, others go on
            self.tell(updates)
            self.break_off()
            return False
        self.tell(updates)
        return True

    def tell(self, updates: list[Update]) -> None:
        """Pass on what happened; that a function failed is said on stderr, without its arguments,
        which belong to the conversation."""
        for update in updates:
            if isinstance(update, Called) and update.result.problem:
                print(f"{update.result.call.name}: {update.result.problem}", file=sys.stderr)
        if updates:
            self._listener(updates)

    def break_off(self) -> None:
        """Print the error that is being handled, and end the conversation by it."""
        traceback.print_exc(file=sys.stderr)
        self.leave()
        self.tell([Left("the conversation ended by an error of the server")])

    def _add(self, job: Job, sound: list[np.ndarray] | None = None) -> None:
        with self._lock:
            if self._has_left:
                return
            self._jobs.append(job)
            self._sound = sound
        self._studio._wake()
