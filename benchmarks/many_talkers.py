"""Many people talk with one server at once: how long they wait, and whether it keeps up.

    python -m benchmarks.many_talkers --questions runs/asked/test.jsonl --talkers 1 4 16
    python -m benchmarks.many_talkers --questions runs/asked/test.jsonl --talkers 4 --minutes 60

Starts `voice_chat.serve` as users do, and talks with it over WebSockets: each talker asks recorded
questions at the speed of speech, hears the answer to its end, asks the next, and begins a new
conversation after a few. What is said is written down beforehand, with the answers that the same
sound gets as files in the same conversation; so every answer can be judged.

wait     ms from the last word, as the server's voice detector has it, to the first sound: median
         and 95 %
speed    seconds of an answer's sound that arrive in a second, from its first to its last: median
stalled  answers whose sound arrived too late to be played without a gap, 60 ms after it came
same     answers that are, word by word, those to a file of the same sound: of the question from a
         little before its first word to a little after its last, as hands free hears it (of later
         questions of a conversation, whose beginning hangs on the answer before, nearly the same)
as files answers that are those to the recording itself, which may begin otherwise
"""

# N samples at 16 kHz

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, starmap
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.demo_server import Server, serving
from benchmarks.demo_talker import DemoTalkerConfig, ask_sound, hear_turn
from benchmarks.realtime_client import Told, converse, in_a_room
from commands.command_line import parse_config, run_command
from commands.setting_types import NonNegativeFloat, PositiveInt, PositiveInts
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from data_manifests.manifest import read_manifest, read_utterance_audio
from pipeline.own_process import in_own_process
from stage3_finetune.conversation import Conversation
from voice_chat.turn_taking import refuse_missing_detector

MEMORY_EVERY_S = 5.0
NUM_SHOWN = 12  # parts of the time for which memory is shown
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
class Expected:
    """The answers to files: of the sound that hands free hears of a question, and its recording."""

    heard: str
    recorded: str


@dataclass(frozen=True)
class Script:
    """A conversation to be had: recorded questions, and what should be answered."""

    questions: list[np.ndarray]
    answers: list[Expected]


@dataclass(frozen=True)
class Answer:
    """How one question was answered; as the columns of the table."""

    wait_s: float
    speed: float
    is_stalled: bool
    is_same: bool
    is_as_recorded: bool


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
        f"{'as files':>10}{'memory, MB, first and most':>28}{'cores':>7}"
    )
    for num_talkers in config.talkers:
        with serving(config, max_visits=num_talkers) as server:
            outcome = asyncio.run(_talk(config, scripts, num_talkers, server))
        print(format_outcome(outcome), flush=True)
        if len(outcome.memory_mb) > NUM_SHOWN:
            print(format_memory(outcome.memory_mb), flush=True)


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
        heard = [hear_turn(in_a_room(sound_N), config.turns) for sound_N in questions]
        both = (_ask_all(conversation, sounds) for sounds in (heard, questions))
        scripts.append(Script(questions, list(starmap(Expected, zip(*both, strict=True)))))
    return scripts


def judge(told: Told, expected: Expected) -> Answer:
    """How a question was answered."""
    return Answer(
        told.wait_s, told.speed, told.stalled_s > AHEAD_S,
        is_same=told.text == expected.heard, is_as_recorded=told.text == expected.recorded,
    )  # fmt: skip


def format_outcome(outcome: Outcome) -> str:
    """A row of the table."""
    waits_ms = [1000 * answer.wait_s for answer in outcome.answers]
    num = len(outcome.answers)
    stalled = sum(answer.is_stalled for answer in outcome.answers)
    same = sum(answer.is_same for answer in outcome.answers)
    as_recorded = sum(answer.is_as_recorded for answer in outcome.answers)
    memory = f"{outcome.memory_mb[0]:.0f} {max(outcome.memory_mb):.0f}"
    speed = np.median([answer.speed for answer in outcome.answers])
    return (
        f"{outcome.num_talkers:8}{num:9}{np.median(waits_ms):7.0f}"
        f"{np.percentile(waits_ms, 95):7.0f}{speed:7.1f}{stalled / num:9.1%}"
        f"{same / num:8.1%}{as_recorded / num:10.1%}{memory:>28}{outcome.num_cores:7.2f}"
    )


def format_memory(memory_mb: Sequence[float]) -> str:
    """The most memory in each twelfth of the time: whether it goes on growing."""
    most = [part.max() for part in np.array_split(np.array(memory_mb), NUM_SHOWN)]
    return "memory, MB, by twelfths of the time:" + "".join(f" {mb:.0f}" for mb in most)


def _ask_all(conversation: Conversation, sounds: Sequence[np.ndarray]) -> list[str]:
    """The answers to files, in one conversation."""
    conversation.turns.clear()
    return [ask_sound(conversation, sound_N).answer for sound_N in sounds]


async def _talk(
    config: BenchmarkConfig, scripts: Sequence[Script], num_talkers: int, server: Server
) -> Outcome:
    pid = server.pid
    address = server.address.replace("http://", "ws://")
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
            script = scripts[index % len(scripts)]
            answers.extend(map(judge, await converse(address, script.questions), script.answers))
            if time.monotonic() >= until_s:
                return

    with tqdm(total=round(60 * config.minutes), desc=f"{num_talkers} talk", unit="s") as progress:
        watching = asyncio.create_task(watch())
        await asyncio.gather(*(talk(number) for number in range(num_talkers)))
        watching.cancel()
    memory_mb.append(_memory_mb(pid))
    num_cores = (_cpu_s(pid) - before[0]) / (time.monotonic() - before[1])
    return Outcome(num_talkers, answers, memory_mb, num_cores)


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
