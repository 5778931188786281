"""How long one waits for an answer by voice, after the last word, in real time.

    python -m benchmarks.hands_free --questions runs/demo/corpus/test.jsonl

Recorded questions are played into `voice_chat.hands_free` at the speed of speech, each followed by
silence. The wait lasts from the end of its last word (where the voice detector last heard speech)
to the first sound of the answer; the pause by which the end of a turn is recognised is part of it.
Beside it stands the serial path, which begins to compute when the turn has ended, on the same
sound. Long questions are several recordings one after another, and show whether the wait grows.

The second table says where the time between the last word and the first sound goes: what is
computed in it, part by part, and what of it nothing is done in, since the pause must pass.
"""

# N samples at 16 kHz

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
from torch import Tensor
from tqdm import tqdm

from benchmarks.demo_talker import DemoTalkerConfig, hear_turn
from benchmarks.quiet_room import ROOM_NOISE
from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.setting_types import NonNegativeFloat, PositiveInt
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from data_manifests.manifest import read_manifest, read_utterance_audio
from gemma4 import tower_stream
from speech_head import speech
from speech_head.speech import Speech
from speech_head.talker import Talker
from stage3_finetune import live_prompt
from stage3_finetune.dialogue import Turn
from voice_chat import begun_answer
from voice_chat.hands_free import HandsFree
from voice_chat.own_voice import OwnVoice
from voice_chat.sound_source import RecordingSource, follow
from voice_chat.turn_taking import TurnEvent, VoiceDetector
from voice_chat.updates import Ended, Said

PATIENCE_S = 20.0  # of silence after a question, in which the answer must have begun
MAX_RECORDINGS = 200  # read; asked again in turns where more questions are wanted
PARTS: dict[str, tuple[type | ModuleType, str]] = {
    "echo canceller": (OwnVoice, "take_echo_out"),
    "voice detector": (VoiceDetector, "push"),
    "audio tower, what was left": (tower_stream, "_encode"),
    "prompt, what was left": (live_prompt, "extend"),
    "transcript and first tokens": (begun_answer, "compute_together"),
    "speech head": (speech, "step_together"),
    "codec": (speech, "decode_together"),
}


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(DemoTalkerConfig):
    """Measure the wait between a spoken question and the sound of its answer."""

    questions: Path
    """manifest of recorded questions"""
    num_questions: PositiveInt = 50
    """questions asked"""
    num_long: PositiveInt = 10
    """long questions asked"""
    long_s: NonNegativeFloat = 20.0
    """length of the long questions"""


@dataclass(frozen=True)
class Wait:
    """What one question took.

    Attributes:
        wait_s: from the last word to the first sound.
        serial_s: the same, if all is computed after the end of the turn.
        is_same: whether the answer is that of the serial path.
        question_s: how long the question was.
        computing_s: in the wait, by part.
    """

    wait_s: float
    serial_s: float
    is_same: bool
    question_s: float
    computing_s: dict[str, float]


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    config = parse_config(BenchmarkConfig, argv)
    recordings = [
        read_utterance_audio(utterance, GEMMA_SAMPLE_RATE_HZ)
        for utterance in islice(read_manifest(config.questions), MAX_RECORDINGS)
    ]
    talker = config.load()
    short = [recordings[i % len(recordings)] for i in range(config.num_questions)]
    long = list(_join(recordings, config.num_long, config.long_s))
    with _stopwatches() as watched:
        _ask(talker, config, short[0], watched)  # what is loaded on first use does not count
        waits, long_waits = (
            [_ask(talker, config, one, watched) for one in tqdm(asked, name, unit=" questions")]
            for name, asked in (("questions", short), ("long questions", long))
        )
    groups = {"questions": waits, "long questions": long_waits}
    print(format_waits(config.turns.pause_s, groups))
    print(f"\n{format_parts(groups)}")


def format_waits(pause_s: float, groups: dict[str, list[Wait]]) -> str:
    """A row for each group of questions, in milliseconds."""
    rows = [
        f"ms from the last word to the first sound; {1000 * pause_s:.0f} of them are the pause",
        f"{'':16}{'number':>8}{'length':>8}{'median':>8}{'95 %':>8}{'most':>8}"
        f"{'serial':>8}{'95 %':>8}{'same answer':>13}",
    ]
    for name, waits in groups.items():
        if not waits:
            continue
        ours, serial = ([1000 * w for w in ws] for ws in zip(
            *((wait.wait_s, wait.serial_s) for wait in waits), strict=True))  # fmt: skip
        length_s = statistics.median(wait.question_s for wait in waits)
        same = sum(wait.is_same for wait in waits)
        rows.append(
            f"{name:16}{len(waits):8}{length_s:7.1f}s{np.median(ours):8.0f}"
            f"{np.percentile(ours, 95):8.0f}{max(ours):8.0f}{np.median(serial):8.0f}"
            f"{np.percentile(serial, 95):8.0f}{f'{same} of {len(waits)}':>13}"
        )
    return "\n".join(rows)


def format_parts(groups: dict[str, list[Wait]]) -> str:
    """A row for each part of the wait, in milliseconds: medians and means over questions."""
    asked = {name: waits for name, waits in groups.items() if waits}
    rows = [f"{'ms in the wait, median, mean':30}" + "".join(f"{name:>18}" for name in asked)]
    for part in PARTS:
        taken = [[1000 * w.computing_s.get(part, 0.0) for w in waits] for waits in asked.values()]
        rows.append(f"{part:30}" + "".join(f"{np.median(t):10.0f}{np.mean(t):8.0f}" for t in taken))
    idle = [
        [1000 * (w.wait_s - sum(w.computing_s.values())) for w in waits] for waits in asked.values()
    ]
    name = "nothing: the pause must pass"
    rows.append(f"{name:30}" + "".join(f"{np.median(t):10.0f}{np.mean(t):8.0f}" for t in idle))
    return "\n".join(rows)


def _join(recordings: list[np.ndarray], count: int, seconds: float) -> Iterator[np.ndarray]:
    """Several recordings one after another, until they last so long."""
    at = 0
    for _ in range(count if seconds else 0):
        pieces: list[np.ndarray] = []
        while sum(map(len, pieces)) < seconds * GEMMA_SAMPLE_RATE_HZ:
            pieces.append(recordings[at % len(recordings)])
            at += 1
        yield np.concatenate(pieces)


def _ask(
    talker: Talker, config: BenchmarkConfig, question_N: np.ndarray, watched: "list[Watched]"
) -> Wait:
    """Ask one question of a new conversation, in real time, and once more in series."""
    talker.conversation.turns.clear()
    generator = np.random.default_rng(0)
    watched.clear()
    silence_s = PATIENCE_S + config.turns.pause_s
    silent = np.zeros(round(silence_s * GEMMA_SAMPLE_RATE_HZ), np.float32)
    sound_N = np.concatenate([silent[: GEMMA_SAMPLE_RATE_HZ // 2], question_N, silent])
    sound_N += ROOM_NOISE * generator.standard_normal(len(sound_N)).astype(np.float32)
    live = HandsFree(talker, config.turns, config.sampling_of_turn)
    began = time.perf_counter()
    last_word_s = first_sound_s = None
    text = ""
    for update in follow(live, RecordingSource(sound_N)):
        if isinstance(update, TurnEvent) and update.kind == "ended" and first_sound_s is None:
            last_word_s = update.time_s
        elif isinstance(update, Said) and first_sound_s is None:
            first_sound_s = time.perf_counter() - began
        elif isinstance(update, Ended):
            text = update.text
            break
    if first_sound_s is None or last_word_s is None:
        raise InputError(f"a question was not answered aloud within {PATIENCE_S:g} s: {text!r}")
    heard_TD = talker.conversation.turns[0].frames_TD if talker.conversation.turns else None
    if heard_TD is None:
        raise InputError(f"a question was not answered aloud: {text!r}")
    heard_N = hear_turn(sound_N, config.turns)
    serial_s, serial_text = _ask_in_series(talker, config, heard_N, heard_TD)
    return Wait(
        first_sound_s - last_word_s,
        config.turns.pause_s + serial_s,
        text == serial_text,
        len(question_N) / GEMMA_SAMPLE_RATE_HZ,
        _computing_in(watched, began + last_word_s, began + first_sound_s),
    )


def _ask_in_series(
    talker: Talker, config: BenchmarkConfig, sound_N: np.ndarray, frames_TD: Tensor
) -> tuple[float, str]:
    """Encode sound, let Gemma answer embeddings, and speak: seconds to the first sound, the
    answer."""
    talker.conversation.turns.clear()
    began = time.perf_counter()
    talker.conversation.encoder.encode([sound_N])
    question = Turn("user", "[spoken]", spoken=True, frames_TD=frames_TD)
    speech = Speech(talker, config.sampling_of_turn([]))
    sounds = speech.say(talker.answer(question))
    next(sounds)
    seconds = time.perf_counter() - began
    for _ in sounds:
        pass
    return seconds, speech.text


@dataclass(frozen=True)
class Watched:
    """One computation: of which part, when it began, and how many seconds it took."""

    part: str
    began: float
    seconds: float


def _computing_in(watched: list[Watched], start: float, end: float) -> dict[str, float]:
    """Seconds of each part in a span of time."""
    seconds: dict[str, float] = defaultdict(float)
    for one in watched:
        seconds[one.part] += max(0.0, min(end, one.began + one.seconds) - max(start, one.began))
    return dict(seconds)


@contextmanager
def _stopwatches() -> Iterator[list[Watched]]:
    """Note every computation of every part."""
    watched: list[Watched] = []

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **settings: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **settings)
            finally:
                watched.append(Watched(part, began, time.perf_counter() - began))

        return run

    with ExitStack() as stack:
        for name, (owner, method) in PARTS.items():
            replacement = timed(name, getattr(owner, method))
            stack.enter_context(patch.object(owner, method, replacement))
        yield watched


if __name__ == "__main__":
    run_command(main)
