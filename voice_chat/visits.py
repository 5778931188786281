"""Many visitors talk with one Gemma, one answer at a time: the logic behind the browser page.

voice_chat = VoiceChat(talker, config, Path("files"))
for shown in voice_chat.ask("ama", "Wo din de sɛn?"):
    print(shown.answer)
voice_chat.next_sound(shown.sound)     # meanwhile, in another thread
voice_chat.leave("ama")

Conversations are private: the names of sounds and files cannot be guessed, and everything but the
WAVs in `--out` is deleted when a visitor leaves. The number of visitors, and the data kept for
each, are limited, so that memory stays bounded.
"""

# N samples (24,000 per second)

import base64
import os
import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from commands.errors import InputError, WriteError
from data_manifests.audio import to_pcm16
from speech_head.generate import Speech, Talker
from speech_head.settings import TalkerConfig
from stage3_finetune.dialogue import Turn, split_chain
from stage3_finetune.prompt_limits import refuse_long_recording
from voice_chat.answer_files import keep_answer
from voice_chat.live_sound import LiveSound
from voice_chat.waiting_line import Place, WaitingLine

# A request from the browser waits this long for the next sound, then asks again.
POLL_S = 10.0
# Questions that may wait while one is answered; the last gets its answer in about a minute.
MAX_WAITING = 8
# Conversations kept; when one more begins, the one that was idle longest is forgotten.
MAX_VISITS = 64
# Most recent questions and answers of a long conversation that the page keeps showing.
MAX_EXCHANGES = 50


@dataclass(frozen=True)
class Shown:
    """What the page shows of a question and its answer so far.

    Attributes:
        question: the typed question; for a recording, Gemma's transcript, once it is known.
        recording: the spoken question.
        num_before: questions that will be answered before this one.
        sound: name of the answer's sound, for `VoiceChat.next_sound`; "" before it begins.
        answer: the text so far.
        wav: the complete speech, at the end.
        num_forgotten: oldest turns no longer in Gemma's prompt, because the conversation is long.
    """

    question: str
    recording: Path | None = None
    num_before: int = 0
    sound: str = ""
    answer: str = ""
    wav: Path | None = None
    num_forgotten: int = 0


@dataclass
class Visit:
    """One visitor's conversation.

    Attributes:
        name: name of the folders with its files; cannot be guessed.
        turns: the conversation as Gemma gets it.
        exchanges: the conversation as the page shows it, oldest first.
        sound: the answer that is being played, and its name.
        has_left: whether the visitor has left, so that nothing more of it is needed.
    """

    name: str = field(default_factory=secrets.token_urlsafe)
    turns: list[Turn] = field(default_factory=list)
    exchanges: list[Shown] = field(default_factory=list)
    sound: tuple[str, LiveSound] | None = None
    has_left: bool = False


class VoiceChat:
    """Answers visitors aloud, one answer at a time."""

    def __init__(self, talker: Talker, config: TalkerConfig, out: Path, files: Path) -> None:
        """
        Args:
            talker: the models that answer every visitor.
            config: how they speak.
            out: where answers are kept, in one folder per visit.
            files: where recordings and answers that the page plays are kept, in one folder per
                visit, which is deleted with the visit.
        """
        self.talker = talker
        self.config = config
        self.out = out
        self.files = files
        self._line = WaitingLine(MAX_WAITING)
        self._visits: OrderedDict[str, Visit] = OrderedDict()
        self._sounds: dict[str, LiveSound] = {}
        self._lock = threading.Lock()

    def visit(self, visitor: str) -> Visit:
        """The visitor's conversation; a new one if there is none."""
        with self._lock:
            visit = self._visits.setdefault(visitor, Visit())
            self._visits.move_to_end(visitor)
            longest_silent = next(iter(self._visits))
            is_full = len(self._visits) > MAX_VISITS
        if is_full:
            self.leave(longest_silent)
        return visit

    def leave(self, visitor: str) -> None:
        """Forget a visitor: conversation, sounds, recordings."""
        self.interrupt(visitor)
        with self._lock:
            visit = self._visits.pop(visitor, None)
        if visit:
            visit.has_left = True
            shutil.rmtree(self.files / visit.name, ignore_errors=True)

    def receive(self, visitor: str, upload: Path) -> Path:
        """Move an uploaded recording into the visit's files, under a new name.

        Raises:
            InputError: it is gone; uploads that no question uses are deleted after a while.
        """
        folder = self._folder(self.visit(visitor))
        kept = folder / f"{secrets.token_urlsafe()}{upload.suffix}"
        try:
            os.replace(upload, kept)
        except FileNotFoundError:
            raise InputError("the recording is no longer there: record it again") from None
        return kept

    def ask(self, visitor: str, question: str | Path) -> Iterator[Shown]:
        """Answer a question aloud, when its turn has come.

        Args:
            visitor: who asks; an answer they are still listening to is interrupted.
            question: typed, or a recording from `receive`.

        Yields:
            What to show, whenever there is more; nothing more once the visitor leaves. If an answer
            is interrupted, the part written so far stays in the conversation.

        Raises:
            InputError: the question cannot be asked or answered, or too many visitors wait; the
                message is for the visitor. The conversation is unchanged.
            WriteError, OSError: the answer was given, but its WAV cannot be written.
        """
        try:
            if isinstance(question, Path):
                refuse_long_recording(question)
                shown = Shown("", question)
            else:
                self.talker.conversation.typed_turn(question)
                shown = Shown(question)
            with self._line.join(visitor) as place:
                yield from self._answer_in_turn(self.visit(visitor), place, shown)
        except InputError as error:
            if not isinstance(question, Path):
                raise
            question.unlink(missing_ok=True)
            # Do not reveal paths on the server.
            raise InputError(str(error).replace(str(question), "the recording")) from None

    def next_sound(self, name: str) -> str | None:
        """Samples not yet fetched; waits for some, at most `POLL_S`.

        Returns:
            16-bit little-endian integers as base64; None at the end of the sound.
        """
        sound = self._sounds.get(name)
        samples_N = sound.take(POLL_S) if sound else None
        if samples_N is None:
            self._sounds.pop(name, None)
            return None
        return base64.b64encode(to_pcm16(samples_N)).decode()

    def interrupt(self, visitor: str) -> None:
        """Interrupt the answer that the visitor is listening to."""
        visit = self._visits.get(visitor)
        if visit and visit.sound:
            name, sound = visit.sound
            sound.interrupt()
            self._sounds.pop(name, None)

    def _answer_in_turn(self, visit: Visit, place: Place, shown: Shown) -> Iterator[Shown]:
        while (num_before := place.wait()) and not visit.has_left:
            if num_before != shown.num_before:
                shown = replace(shown, num_before=num_before)
                yield shown
            place.wait(timeout_s=1.0)
        if not visit.has_left:
            yield from self._answer(visit, replace(shown, num_before=0))

    def _answer(self, visit: Visit, shown: Shown) -> Iterator[Shown]:
        """As `ask`, for the visitor whose turn it is."""
        talker = replace(self.talker, conversation=self.talker.conversation.continuing(visit.turns))
        conversation = talker.conversation
        if shown.recording:
            turn = conversation.spoken_turn(shown.recording)
        else:
            turn = conversation.typed_turn(shown.question)
            shown = replace(shown, question=turn.content)
        shown = replace(shown, num_forgotten=conversation.make_room(turn))
        speech = Speech(talker, self.config.sampling_of_turn(visit.turns))
        sound = LiveSound()
        shown = replace(shown, sound=self._add_sound(visit, sound))
        yield shown
        pieces: list[np.ndarray] = []
        try:
            with closing(talker.answer(turn)) as answer, closing(speech.say(answer)) as speaking:
                for samples_N in speaking:
                    if sound.is_interrupted or visit.has_left:
                        break
                    pieces.append(samples_N)
                    sound.add(samples_N)
                    if speech.text != shown.answer:
                        shown = replace(shown, answer=speech.text)
                        yield shown
        finally:
            sound.end()
        if visit.has_left:
            return
        shown = replace(shown, answer=speech.text)  # words may come after the last sound
        if turn.spoken and conversation.writes_transcripts and pieces:
            shown = replace(shown, question=split_chain(visit.turns[-1].content)[0])
        refused: WriteError | OSError | None = None
        try:
            if pieces:
                shown = replace(shown, wav=self._keep(visit, np.concatenate(pieces)))
        except (WriteError, OSError) as error:
            refused = error  # what was said and heard stays on the page
        self._add_exchange(visit, shown)
        yield shown
        if refused:
            raise refused

    def _add_sound(self, visit: Visit, sound: LiveSound) -> str:
        """Make a sound the one that the visitor hears, replacing the last; returns its name."""
        if visit.sound:
            visit.sound[1].interrupt()
            self._sounds.pop(visit.sound[0], None)
        name = secrets.token_urlsafe()
        visit.sound = (name, sound)
        self._sounds[name] = sound
        return name

    def _keep(self, visit: Visit, samples_N: np.ndarray) -> Path:
        """Write an answer to the visit's folder in `out`; returns the copy that the page plays."""
        kept = keep_answer(self.out / visit.name, samples_N, self.talker.mimi.sample_rate_hz)
        copy = self._folder(visit) / f"{secrets.token_urlsafe()}.wav"
        shutil.copyfile(kept, copy)
        return copy

    def _add_exchange(self, visit: Visit, shown: Shown) -> None:
        visit.exchanges.append(shown)
        while len(visit.exchanges) > MAX_EXCHANGES:
            oldest = visit.exchanges.pop(0)
            for path in (oldest.recording, oldest.wav):
                if path:
                    path.unlink(missing_ok=True)

    def _folder(self, visit: Visit) -> Path:
        folder = self.files / visit.name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder
