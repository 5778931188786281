"""Does our own voice interrupt us, and does a speaker?

    python -m demo.voice.say --text "Gyae!" --voice hi+m5 --out runs/gyae.wav
    python -m benchmarks.echo --questions runs/asked/test.jsonl --words runs/gyae.wav

Typed questions are answered by `voice_chat.hands_free`, and what it says comes back into its
microphone: after 150 ms, through a small room, at several levels. Nothing waits for real time; the
sound that is heard is the clock. In the second table somebody says a word while an answer is heard,
at the loudness of its recording, beside the same echo. Answers that were over by then do not count.

held         answers that were held up for a moment, since somebody seemed to speak
interrupted  answers that were interrupted
ms           from the first speech in the word, as the voice detector hears it alone, until the
             answer is held up: median and most
"""

# N samples at 16 kHz

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import numpy as np
import soxr
from tqdm import tqdm

from benchmarks.demo_talker import DemoTalkerConfig
from benchmarks.quiet_room import ROOM_NOISE
from commands.command_line import parse_config, run_command
from commands.setting_types import FiniteFloats, PositiveInt
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, MIMI_SAMPLE_RATE_HZ, read_audio
from data_manifests.manifest import read_manifest
from speech_head.talker import Talker
from voice_chat.hands_free import HandsFree
from voice_chat.own_voice import EchoCanceller
from voice_chat.turn_taking import WINDOW_SAMPLES, VoiceDetector
from voice_chat.updates import Ended, Held, Interrupted, Resumed, Said, Update

DELAY_S = 0.15  # from the server through loudspeaker and air to the microphone
REVERBERATION_S = 0.06  # in which it falls to a third
WORD_AFTER_S = (0.8, 1.2)  # of the answer; in its first 0.6 s nobody is heard
TOO_LATE_S = 0.3  # an answer that has ended so soon after a word began was over
TRAIL_S = 2.0  # of silence after it
STEPS = 4  # of work for 32 ms of sound


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(DemoTalkerConfig):
    """Play answers into the microphone while they are being said."""

    questions: Path
    """manifest whose sentences are the questions, typed"""
    words: tuple[Path, ...] = ()
    """recordings with which somebody interrupts"""
    num_answers: PositiveInt = 50
    """answers at each level"""
    levels_db: FiniteFloats = (0.0, -10.0, -20.0, -30.0)
    """how much softer the echo is than what is played"""


@dataclass(frozen=True)
class Heard:
    """What became of one answer.

    Attributes:
        num_held: how often it was held up.
        is_interrupted: whether it was interrupted.
        was_over: whether a word came too late for it.
        reaction_s: from a word's first speech to the first time it was held up; None if never, or
            if there was no word.
    """

    num_held: int
    is_interrupted: bool
    was_over: bool
    reaction_s: float | None


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    config = parse_config(BenchmarkConfig, argv)
    texts = [u.text for u in islice(read_manifest(config.questions), config.num_answers)]
    words = [read_audio(path, GEMMA_SAMPLE_RATE_HZ) for path in config.words]
    talker = config.load()
    print(f"{'echo':>8}{'canceller':>11}{'answers':>9}{'held':>8}{'interrupted':>13}")
    for with_canceller in (False, True):
        for level_db in config.levels_db:
            with nullcontext() if with_canceller else _no_canceller():
                found = _answer_all(talker, config, texts, level_db, [])
            print(
                f"{level_db:5.0f} dB{'yes' if with_canceller else 'no':>11}{format_row(found)}",
                flush=True,
            )
    if words:
        print(
            f"\n{'echo':>8}{'a word said':>11}{'answers':>9}{'held':>8}{'interrupted':>13}{'ms':>6}"
        )
        for level_db in config.levels_db:
            answers = _answer_all(talker, config, texts, level_db, words)
            found = [heard for heard in answers if not heard.was_over]
            print(
                f"{level_db:5.0f} dB{'':>11}{format_row(found)}{format_reactions(found)}",
                flush=True,
            )


def format_row(found: Sequence[Heard]) -> str:
    """Answers, and the shares of those that were held up and interrupted."""
    held = sum(heard.num_held > 0 for heard in found) / len(found)
    interrupted = sum(heard.is_interrupted for heard in found) / len(found)
    return f"{len(found):9}{held:8.0%}{interrupted:13.0%}"


def format_reactions(found: Sequence[Heard]) -> str:
    """How soon the answers were held up that were, in milliseconds."""
    reactions = [1000 * heard.reaction_s for heard in found if heard.reaction_s is not None]
    return f"{np.median(reactions):6.0f}, {max(reactions):.0f}" if reactions else f"{'-':>6}"


def _answer_all(
    talker: Talker,
    config: BenchmarkConfig,
    texts: Sequence[str],
    level_db: float,
    words: Sequence[np.ndarray],
) -> list[Heard]:
    # In one room, one after another; what was said before is forgotten.
    conversation = talker.conversation.continuing([])
    live = HandsFree(
        replace(talker, conversation=conversation), config.turns, config.sampling_of_turn
    )
    room = _Room(level_db, np.random.default_rng(0))
    found = []
    for number, text in enumerate(tqdm(texts, f"{level_db:g} dB", unit=" answers", leave=False)):
        conversation.turns.clear()
        live.stop()
        room.be_quiet()
        word_N = words[number % len(words)] if words else np.zeros(0, np.float32)
        found.append(_answer(live, room, text, word_N))
    return found


def _answer(live: HandsFree, room: "_Room", text: str, word_N: np.ndarray) -> Heard:
    """Let one question be answered."""
    updates = live.ask(live.typed_turn(text))
    word_s: float | None = None
    held_s: list[float] = []
    is_interrupted = has_ended = was_over = False
    # An answer that interrupted itself would be answered, and so on.
    while not is_interrupted and (
        not has_ended or live.is_answering or room.now_s < room.end_s + TRAIL_S
    ):
        updates += live.hear(room.hear())
        for _ in range(STEPS):
            updates += live.work()
        for update in updates:
            room.take(update)
            is_interrupted |= isinstance(update, Interrupted)
            has_ended |= isinstance(update, Ended)
            if isinstance(update, Held):
                held_s.append(room.now_s)
        updates = []
        if len(word_N) and word_s is None and room.began_s is not None:
            start_s = room.began_s + float(room.generator.uniform(*WORD_AFTER_S))
            room.say(word_N, start_s)
            word_s = start_s + _first_speech_s(word_N)
        # Not to be told at the end: a word after an answer is a question, and is answered.
        if word_s is not None and not held_s and room.now_s < word_s + TOO_LATE_S:
            was_over = has_ended and not room.is_playing
    reaction_s = min((s - word_s for s in held_s if s > word_s), default=None) if word_s else None
    return Heard(len(held_s), is_interrupted, was_over, reaction_s)


class _Room:
    """A loudspeaker and a microphone; time passes as the microphone hears.

    Attributes:
        generator: for the noise, the room and whatever else is drawn.
        now_s: how much was heard.
        began_s: when the first sound was played.
        end_s: when the last one will have been.
    """

    def __init__(self, level_db: float, generator: np.random.Generator) -> None:
        self.generator = generator
        self.now_s = self.end_s = 0.0
        self.began_s: float | None = None
        self._scale = 10 ** (level_db / 20)
        self._queue_N = np.zeros(0, np.float32)  # to be played, at 24 kHz
        self._is_held = False
        self._resample = soxr.ResampleStream(
            MIMI_SAMPLE_RATE_HZ, GEMMA_SAMPLE_RATE_HZ, 1, dtype="float32"
        )
        self._others: tuple[int, np.ndarray] = (0, np.zeros(0, np.float32))  # from which sample on
        self._num_heard = 0
        count = round(4 * REVERBERATION_S * GEMMA_SAMPLE_RATE_HZ)
        times = np.arange(count) / GEMMA_SAMPLE_RATE_HZ
        response_N = 0.1 * generator.standard_normal(count) * np.exp(-times / REVERBERATION_S)
        response_N[0] = 1.0
        self._response_N = response_N / np.sqrt(np.square(response_N).sum())
        # What was played, from as far back as its echo lasts.
        self._delay = round(DELAY_S * GEMMA_SAMPLE_RATE_HZ)
        self._played_N = np.zeros(self._delay + count - 1, np.float32)

    @property
    def is_playing(self) -> bool:
        """Whether anything is left to be played."""
        return len(self._queue_N) > 0

    def be_quiet(self) -> None:
        """Play nothing more of what was said before."""
        self.began_s, self.end_s = None, self.now_s
        self._queue_N, self._is_held = self._queue_N[:0], False

    def take(self, update: Update) -> None:
        """Play, hold or stop, as a terminal does."""
        if isinstance(update, Said):
            self._queue_N = np.concatenate([self._queue_N, update.samples_N])
        elif isinstance(update, Held | Resumed):
            self._is_held = isinstance(update, Held)
        elif isinstance(update, Interrupted):
            self._queue_N, self._is_held = self._queue_N[:0], False

    def say(self, sound_N: np.ndarray, start_s: float) -> None:
        """Somebody says this."""
        self._others = round(start_s * GEMMA_SAMPLE_RATE_HZ), sound_N

    def hear(self) -> np.ndarray:
        """The next 32 ms of the microphone."""
        size = round(WINDOW_SAMPLES * MIMI_SAMPLE_RATE_HZ / GEMMA_SAMPLE_RATE_HZ)
        piece_N = self._queue_N[: 0 if self._is_held else size]
        self._queue_N = self._queue_N[len(piece_N) :]
        if len(piece_N):
            self.end_s = self.now_s + len(piece_N) / MIMI_SAMPLE_RATE_HZ
            self.began_s = self.now_s if self.began_s is None else self.began_s
        heard_N = ROOM_NOISE * self.generator.standard_normal(WINDOW_SAMPLES)
        start, others_N = self._others
        begin = max(0, start - self._num_heard)
        others_N = others_N[max(0, self._num_heard - start) :][: max(0, WINDOW_SAMPLES - begin)]
        heard_N[begin : begin + len(others_N)] += others_N
        self._num_heard += WINDOW_SAMPLES
        self.now_s = self._num_heard / GEMMA_SAMPLE_RATE_HZ
        heard_N += self._scale * self._echo(np.pad(piece_N, (0, size - len(piece_N))))
        return heard_N.astype(np.float32)

    def _echo(self, piece_N: np.ndarray) -> np.ndarray:
        """What comes back while this is played."""
        played_N = self._resample.resample_chunk(piece_N)  # a little late, but before its echo
        self._played_N = np.concatenate([self._played_N, played_N])
        source_N = self._played_N[: WINDOW_SAMPLES + len(self._response_N) - 1]
        self._played_N = self._played_N[WINDOW_SAMPLES:]
        return np.convolve(source_N, self._response_N, "valid")


def _first_speech_s(word_N: np.ndarray) -> float:
    """Where the voice detector hears the first speech in a recording alone."""
    silence_N = np.zeros(GEMMA_SAMPLE_RATE_HZ, np.float32)
    noise_N = ROOM_NOISE * np.random.default_rng(0).standard_normal(
        len(word_N) + 2 * len(silence_N)
    )
    sound_N = np.concatenate([silence_N, word_N, silence_N]) + noise_N.astype(np.float32)
    is_speech = np.array(VoiceDetector().push(sound_N)) >= 0.5
    first_s = float(is_speech.argmax()) * WINDOW_SAMPLES / GEMMA_SAMPLE_RATE_HZ - 1.0
    return max(0.0, first_s)


@contextmanager
def _no_canceller() -> Iterator[None]:
    with patch.object(EchoCanceller, "take_out", lambda self, played_N, heard_N: heard_N):
        yield


if __name__ == "__main__":
    run_command(main)
