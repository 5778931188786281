"""Many people talk with one server at once: how long they wait, and whether it keeps up.

    python -m benchmarks.many_talkers --questions runs/asked/test.jsonl --talkers 1 4 16
    python -m benchmarks.many_talkers --questions runs/asked/test.jsonl --talkers 4 --minutes 60

Starts `voice_chat.serve` as users do, and talks with it over WebSockets: each talker asks recorded
questions at the speed of speech, hears the answer to its end, asks the next, and begins a new
conversation after a few. What is said is written down beforehand, with the answers that the same
recordings get as files in the same conversation; so every answer can be judged.

wait     ms from the last word, as the server's voice detector has it, to the first sound: median
         and 95 %
speed    seconds of an answer's sound that arrive in a second, from its first to its last: median
stalled  answers whose sound arrived too late to be played without a gap, 60 ms after it came
same     answers that are those of the files, word by word
"""

# N samples at 16 kHz

import asyncio
import base64
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.demo_server import Server, serving
from benchmarks.demo_talker import DemoTalkerConfig, ask_sound
from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.setting_types import NonNegativeFloat, PositiveInt, PositiveInts
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, MIMI_SAMPLE_RATE_HZ, to_pcm16
from data_manifests.manifest import read_manifest, read_utterance_audio
from pipeline.own_process import in_own_process
from voice_chat.sound_source import PIECE_SAMPLES
from voice_chat.turn_taking import refuse_missing_detector

NOISE = 1e-4  # of a quiet room; digital silence does not occur
SILENCE_S = 0.5  # before a question, and after an answer
PATIENCE_S = 30.0  # after a question, in which its answer must have ended
MEMORY_EVERY_S = 5.0
AHEAD_S = 0.06  # by which the page plays sound later than it comes (talk.js)


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(DemoTalkerConfig):
    """Measure how a server keeps up with many talkers."""

    questions: Path
    """manifest of recorded questions"""
    talkers: PositiveInts = (1, 4, 16)
    """how many talk at a time: each number is tried"""
    minutes: NonNegativeFloat = 1.0
    """how long each number talks, at least one conversation each"""
    num_turns: PositiveInt = 1
    """questions in a conversation"""
    num_scripts: PositiveInt = 50
    """different conversations"""


@dataclass(frozen=True)
class Script:
    """A conversation to be had: recorded questions, and the answers to them as files."""

    questions: list[np.ndarray]
    answers: list[str]


@dataclass
class Told:
    """What a client is told of one answer.

    Attributes:
        last_word_s: when the last word was said, in the clock of the machine; None until known.
        first_sound_s: when the first sound arrived.
        last_sound_s: when the last one did.
        sound_s: how much there was of it.
        stalled_s: how long a player would have had nothing to play.
        text: the answer, once it is complete.
        ended: set when it is.
    """

    last_word_s: float | None = None
    first_sound_s: float | None = None
    last_sound_s: float = 0.0
    sound_s: float = 0.0
    stalled_s: float = 0.0
    text: str = ""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def take_sound(self, num_samples: int) -> None:
        """Note that sound has arrived."""
        now_s = time.monotonic()
        if self.first_sound_s is None:
            self.first_sound_s = now_s
        self.stalled_s += max(0.0, now_s - self.first_sound_s - self.stalled_s - self.sound_s)
        self.sound_s += num_samples / MIMI_SAMPLE_RATE_HZ
        self.last_sound_s = now_s


@dataclass(frozen=True)
class Answer:
    """How one question was answered; as the columns of the table."""

    wait_s: float
    speed: float
    is_stalled: bool
    is_same: bool


@dataclass(frozen=True)
class Outcome:
    """What one number of talkers found.

    Attributes:
        num_talkers: how many talked.
        answers: of all of them.
        memory_mb: of the server's process, every few seconds.
        num_cores: how many the server kept busy.
    """

    num_talkers: int
    answers: list[Answer]
    memory_mb: list[float]
    num_cores: float


def main(argv: list[str] | None = None) -> None:
    """Print the table, a row as soon as it is known."""
    config = parse_config(BenchmarkConfig, argv)
    refuse_missing_detector()
    scripts = in_own_process(write_scripts, config)
    print(f"ms; the pause that ends a turn is {1000 * config.turns.pause_s:.0f} of the wait")
    print(
        f"{'talkers':>8}{'answers':>9}{'wait':>7}{'95 %':>7}{'speed':>7}{'stalled':>9}{'same':>8}"
        f"{'memory, MB, first and most':>28}{'cores':>7}"
    )
    for num_talkers in config.talkers:
        with serving(config, max_visits=num_talkers) as server:
            outcome = asyncio.run(_talk(config, scripts, num_talkers, server))
        print(format_outcome(outcome), flush=True)


def write_scripts(config: BenchmarkConfig) -> list[Script]:
    """Put recordings together to conversations, and answer them as files."""
    num_questions = config.num_scripts * config.num_turns
    recordings = [
        read_utterance_audio(utterance, GEMMA_SAMPLE_RATE_HZ)
        for utterance in islice(read_manifest(config.questions), num_questions)
    ]
    conversation = config.load().conversation
    scripts = []
    for first in tqdm(range(0, num_questions, config.num_turns), "scripts", unit=" scripts"):
        questions = [
            recordings[i % len(recordings)] for i in range(first, first + config.num_turns)
        ]
        conversation.turns.clear()
        answers = [ask_sound(conversation, sound_N).answer for sound_N in questions]
        scripts.append(Script(questions, answers))
    return scripts


def format_outcome(outcome: Outcome) -> str:
    """A row of the table."""
    waits_ms = [1000 * answer.wait_s for answer in outcome.answers]
    num = len(outcome.answers)
    stalled = sum(answer.is_stalled for answer in outcome.answers)
    same = sum(answer.is_same for answer in outcome.answers)
    memory = f"{outcome.memory_mb[0]:.0f} {max(outcome.memory_mb):.0f}"
    speed = np.median([answer.speed for answer in outcome.answers])
    return (
        f"{outcome.num_talkers:8}{num:9}{np.median(waits_ms):7.0f}"
        f"{np.percentile(waits_ms, 95):7.0f}{speed:7.1f}{stalled / num:9.1%}"
        f"{same / num:8.1%}{memory:>28}{outcome.num_cores:7.2f}"
    )


async def _talk(
    config: BenchmarkConfig, scripts: Sequence[Script], num_talkers: int, server: Server
) -> Outcome:
    pid = server.pid
    address = server.address.replace("http://", "ws://") + "/v1/realtime"
    answers: list[Answer] = []
    memory_mb: list[float] = []
    until_s = time.monotonic() + 60 * config.minutes
    before = _cpu_s(pid), time.monotonic()

    async def watch() -> None:
        while True:
            await asyncio.sleep(MEMORY_EVERY_S)
            memory_mb.append(_memory_mb(pid))
            progress.n = min(progress.total, round(progress.total - until_s + time.monotonic()))
            progress.refresh()

    async def talk(number: int) -> None:
        await asyncio.sleep(number * 0.4)  # people do not begin at the same moment
        for index in itertools.count(number, num_talkers):  # no two have the same one
            answers.extend(await _converse(address, scripts[index % len(scripts)]))
            if time.monotonic() >= until_s:
                return

    with tqdm(total=round(60 * config.minutes), desc=f"{num_talkers} talk", unit="s") as progress:
        watching = asyncio.create_task(watch())
        await asyncio.gather(*(talk(number) for number in range(num_talkers)))
        watching.cancel()
    memory_mb.append(_memory_mb(pid))
    num_cores = (_cpu_s(pid) - before[0]) / (time.monotonic() - before[1])
    return Outcome(num_talkers, answers, memory_mb, num_cores)


async def _converse(address: str, script: Script) -> list[Answer]:
    """Have one conversation."""
    import websockets

    answers = []
    async with websockets.connect(address, max_size=2**22) as socket:
        audio_format = {"type": "audio/pcm", "rate": GEMMA_SAMPLE_RATE_HZ}
        settings = {"audio": {"input": {"format": audio_format}}}
        await socket.send(json.dumps({"type": "session.update", "session": settings}))
        began_s = time.monotonic()
        heard: list[Told] = [Told()]  # of every question so far

        async def read() -> None:
            async for message in socket:
                _take(json.loads(message), heard[-1], began_s)

        reading = asyncio.create_task(read())
        microphone = _Microphone(socket, began_s)
        for sound_N, expected in zip(script.questions, script.answers, strict=True):
            told = Told()
            heard.append(told)
            await microphone.say(np.zeros(round(SILENCE_S * GEMMA_SAMPLE_RATE_HZ), np.float32))
            await microphone.say(sound_N)
            await microphone.be_silent(told.ended, PATIENCE_S)
            if told.first_sound_s is None or told.last_word_s is None:
                raise InputError(f"a question was not answered aloud within {PATIENCE_S:g} s")
            answers.append(Answer(
                told.first_sound_s - told.last_word_s,
                told.sound_s / max(0.08, told.last_sound_s - told.first_sound_s),
                told.stalled_s > AHEAD_S, told.text == expected,
            ))  # fmt: skip
            left_s = told.first_sound_s + told.stalled_s + told.sound_s - time.monotonic()
            await microphone.be_silent(asyncio.Event(), max(0.0, left_s) + SILENCE_S)
        reading.cancel()
    return answers


def _take(event: dict[str, Any], told: Told, began_s: float) -> None:
    if event["type"] == "input_audio_buffer.speech_stopped":
        told.last_word_s = began_s + event["audio_end_ms"] / 1000
    elif event["type"] == "response.output_audio.delta":
        told.take_sound(len(base64.b64decode(event["delta"])) // 2)
    elif event["type"] == "response.output_audio_transcript.done":
        told.text = event["transcript"]
    elif event["type"] == "response.done":
        told.ended.set()


class _Microphone:
    """Sends sound at the speed of speech."""

    def __init__(self, socket: Any, began_s: float) -> None:
        self._socket = socket
        self._began_s = began_s
        self._num_sent = 0
        self._noise = np.random.default_rng(0)

    async def say(self, sound_N: np.ndarray) -> None:
        """Send this, with the noise of the room."""
        noise_N = NOISE * self._noise.standard_normal(len(sound_N)).astype(np.float32)
        noisy_N = sound_N + noise_N
        for start in range(0, len(noisy_N), PIECE_SAMPLES):
            piece_N = noisy_N[start : start + PIECE_SAMPLES]
            self._num_sent += len(piece_N)
            due_s = self._began_s + self._num_sent / GEMMA_SAMPLE_RATE_HZ
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            audio = base64.b64encode(to_pcm16(piece_N)).decode("ascii")
            await self._socket.send(
                json.dumps({"type": "input_audio_buffer.append", "audio": audio})
            )

    async def be_silent(self, event: asyncio.Event, seconds: float) -> None:
        """Send the noise of the room until something happens, or so long."""
        until = self._num_sent + seconds * GEMMA_SAMPLE_RATE_HZ
        while not event.is_set() and self._num_sent < until:
            await self.say(np.zeros(PIECE_SAMPLES, np.float32))


def _memory_mb(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def _cpu_s(pid: int) -> float:
    """Seconds of computing that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    run_command(main)
