"""How often speakers are cut off, and how long they wait, by the pause that ends a turn.

    python -m benchmarks.turn_taking --recordings data/cv/train.jsonl

Two groups of turns are heard by the detectors of `voice_chat.turn_taking`, with no model behind
them and as fast as they can: two to four recordings of one speaker, joined by pauses of random
lengths, and single recordings, which show what the pauses inside a read sentence do. The last word
ends where the voice detector, given the recording alone, last hears speech.

A speaker is cut off where a turn is ended before the last word was over. A detector that knew when
people speak would still cut off every turn with a pause of that length in it; the share of those
stands beside it, as the ideal.
"""

# N samples at 16 kHz

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.quiet_room import ROOM_NOISE
from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.setting_types import PositiveFloats, PositiveInt, Seed
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from data_manifests.manifest import Utterance, read_manifest, read_utterance_audio
from voice_chat.turn_taking import (
    HYSTERESIS,
    WINDOW_S,
    WINDOW_SAMPLES,
    TurnDetector,
    TurnSettings,
    VoiceDetector,
    refuse_missing_detector,
)

MIN_RECORDINGS, MOST_RECORDINGS = 2, 4  # in a turn
MAX_READ = 400  # recordings read, as many of one speaker as of another
LEAD_S = 0.5  # of silence before a turn
TRAIL_S = 3.0  # of silence after it, in which it must end
# Speech heard within a longer sound ends a little earlier or later than in its recording alone.
TOLERANCE_S = 0.1
# Pauses within a speaker's turn. That the longer ones are log-normal: Kirsner, Dunn, Hird and
# Hennessey 2003, "Temporal co-ordination". Heldner and Edlund 2010, "Pauses, gaps and overlaps in
# conversations" (Dutch, Scottish, Swedish; as others quote it, not read here), take no silence
# under 180 ms for a pause; 28 to 31 % of pauses exceed a second there. Of these 29 % do.
PAUSE_MEDIAN_S, PAUSE_DEVIATION, SHORTEST_PAUSE_S = 0.5, 1.0, 0.18
LEGEND = (
    "pause    of silence that ends a turn",
    "cut off  turns ended before their last word was over; cuts: how often, a turn",
    "ideal    the same, if speech were always told exactly: turns with a pause of that length",
    "never    turns of which no end was noticed after the last word",
    "wait     ms from the last word to the decision that the turn has ended: median and 95 %",
    "in vain  early answers begun in a pause and thrown away, a turn",
)


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure how often a speaker is cut off, and how long one waits, by the length of the pause
    that ends a turn."""

    recordings: Path
    """manifest of recorded sentences, several of each speaker"""
    pauses: PositiveFloats = (0.3, 0.5, 0.7, 1.0, 1.5)
    """pauses that end a turn, in seconds: each is tried"""
    num_turns: PositiveInt = 200
    """turns in each of the two groups"""
    seed: Seed = 0
    """seed for which recordings follow each other, after how long a pause"""

    def __post_init__(self) -> None:
        if max(self.pauses) > TRAIL_S - LEAD_S:
            raise ValueError(
                f"--pauses: {max(self.pauses):g} is longer than {TRAIL_S - LEAD_S:g} s; no more "
                "silence than that follows the last word"
            )


@dataclass(frozen=True)
class JoinedSpeech:
    """Recordings of one speaker with pauses between them.

    Attributes:
        sound_N: float32, with `LEAD_S` of silence before it and `TRAIL_S` after it.
        pauses_s: how long the pauses are.
        last_word_s: where the last recording's speech ends.
    """

    sound_N: np.ndarray
    pauses_s: tuple[float, ...]
    last_word_s: float


@dataclass(frozen=True)
class Turn:
    """What was heard of one turn: probabilities of speech, when its last word ended, and the
    pauses that were put into it."""

    probabilities: list[float]
    last_word_s: float
    pauses_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How a turn went.

    Attributes:
        num_cuts: how often it was ended before the last word was over.
        num_in_vain: how often an early answer was begun and thrown away, since speech went on.
        wait_s: from the last word to the decision that the turn has ended; None if there was none.
    """

    num_cuts: int
    num_in_vain: int
    wait_s: float | None


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    config = parse_config(BenchmarkConfig, argv)
    refuse_missing_detector()
    generator = np.random.default_rng(config.seed)
    rows = choose_rows(read_manifest(config.recordings))
    spoken: dict[str, list[np.ndarray]] = defaultdict(list)
    single: list[Turn] = []
    for row in tqdm(rows, "recordings", unit=" recordings"):
        samples_N = read_utterance_audio(row, GEMMA_SAMPLE_RATE_HZ)
        speech_N, turn = hear_recording(samples_N, generator)
        single.append(turn)
        if len(speech_N):
            spoken[row.speaker].append(speech_N)
    joined = [
        Turn(VoiceDetector().push(speech.sound_N), speech.last_word_s, speech.pauses_s)
        for speech in tqdm(
            join_recordings(spoken, config.num_turns, generator), "turns", config.num_turns,
            unit=" turns",
        )
    ]  # fmt: skip
    num_spoken = sum(map(len, spoken.values()))
    num_pauses = np.mean([len(turn.pauses_s) for turn in joined])
    print(
        f"recordings: {len(rows)}; speakers: {len(spoken)}; without speech, so not joined: "
        f"{len(rows) - num_spoken}\njoined, on average: {num_pauses:.1f} pauses, last word after "
        f"{np.mean([turn.last_word_s for turn in joined]) - LEAD_S:.1f} s\n"
    )
    groups = {"joined recordings": joined, "single recordings": single[: config.num_turns]}
    print(format_outcomes(groups, config.pauses))


def choose_rows(utterances: Iterable[Utterance]) -> list[Utterance]:
    """At most `MAX_READ` rows of a manifest, a few of each speaker and then a few more."""
    seen: Counter[str] = Counter()

    def round_of(utterance: Utterance) -> int:
        seen[utterance.speaker] += 1
        return (seen[utterance.speaker] - 1) // MOST_RECORDINGS

    return sorted(utterances, key=round_of)[:MAX_READ]


def hear_recording(
    samples_N: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, Turn]:
    """Find the speech in a recording.

    Args:
        samples_N: float32, the recording.
        generator: draws the noise of the room.

    Returns:
        The recording from the first sound of speech to the last, empty if there is none; and the
        recording as a turn, whose last word is the recording's end if there is no speech.
    """
    probabilities = VoiceDetector().push(_in_a_quiet_room([samples_N], generator))
    lead = _num_samples(LEAD_S)
    first, last = (window * WINDOW_SAMPLES - lead for window in bounds_of_speech(probabilities))
    speech_N = samples_N[max(0, first) : max(0, last)]
    end = min(last, len(samples_N)) if len(speech_N) else len(samples_N)
    return speech_N, Turn(probabilities, (lead + end) / GEMMA_SAMPLE_RATE_HZ)


def bounds_of_speech(probabilities: list[float]) -> tuple[int, int]:
    """The first window of speech and the one after the last, by `TurnDetector`'s rule; (0, 0) if
    there is no speech."""
    threshold = TurnSettings().speech_probability
    windows = [i for i, probability in enumerate(probabilities) if probability >= threshold]
    if not windows:
        return 0, 0
    end = windows[-1] + 1
    while end < len(probabilities) and probabilities[end] >= threshold - HYSTERESIS:
        end += 1
    return windows[0], end


def draw_pause_s(generator: np.random.Generator) -> float:
    """How long a speaker pauses, in seconds."""
    pause_s = 0.0
    while pause_s < SHORTEST_PAUSE_S:
        pause_s = float(generator.lognormal(np.log(PAUSE_MEDIAN_S), PAUSE_DEVIATION))
    return pause_s


def join_recordings(
    spoken: dict[str, list[np.ndarray]], num_turns: int, generator: np.random.Generator
) -> Iterator[JoinedSpeech]:
    """Turns of several recordings, each turn by one speaker.

    Args:
        spoken: every speaker's recordings, without silence before or after speech.
        num_turns: how many turns.
        generator: draws speakers, recordings and pauses.

    Raises:
        InputError: no speaker has two recordings.
    """
    speakers = sorted(name for name, of in spoken.items() if len(of) >= MIN_RECORDINGS)
    if not speakers:
        raise InputError(
            f"--recordings: no speaker has {MIN_RECORDINGS} recordings with speech in them"
        )
    for _ in range(num_turns):
        mine = spoken[speakers[generator.integers(len(speakers))]]
        count = min(int(generator.integers(MIN_RECORDINGS, MOST_RECORDINGS + 1)), len(mine))
        chosen = generator.choice(len(mine), count, replace=False)
        pauses_s = tuple(draw_pause_s(generator) for _ in chosen[1:])
        pieces = [mine[chosen[0]]]
        for pause_s, at in zip(pauses_s, chosen[1:], strict=True):
            pieces += [np.zeros(_num_samples(pause_s), np.float32), mine[at]]
        end = _num_samples(LEAD_S) + sum(map(len, pieces))
        sound_N = _in_a_quiet_room(pieces, generator)
        yield JoinedSpeech(sound_N, pauses_s, end / GEMMA_SAMPLE_RATE_HZ)


def judge_turn(turn: Turn, settings: TurnSettings) -> Outcome:
    """Let the turn detector hear a turn."""
    detector = TurnDetector(settings)
    num_cuts = num_in_vain = 0
    wait_s = None
    for window, probability in enumerate(turn.probabilities, start=1):
        event = detector.step(probability)
        if event is None:
            continue
        now_s = window * WINDOW_S
        if event.kind == "resumed":
            num_in_vain += 1
        elif event.kind == "ended" and now_s < turn.last_word_s - TOLERANCE_S:
            num_cuts += 1
        elif event.kind == "ended" and wait_s is None:
            wait_s = now_s - turn.last_word_s
    return Outcome(num_cuts, num_in_vain, wait_s)


def format_outcomes(groups: dict[str, list[Turn]], pauses: tuple[float, ...]) -> str:
    """A row for each group of turns and each pause that ends a turn."""
    rows = [
        f"{'':26}{'pause':>7}{'cut off':>9}{'ideal':>9}{'cuts':>7}{'never':>8}"
        f"{'wait':>7}{'95 %':>7}{'in vain':>9}"
    ]
    for name, turns in groups.items():
        for pause_s in pauses:
            settings = replace(TurnSettings(), pause_s=pause_s)
            outcomes = [judge_turn(turn, settings) for turn in turns]
            cut = _percent([outcome.num_cuts > 0 for outcome in outcomes])
            longer = [max(turn.pauses_s) >= pause_s for turn in turns if turn.pauses_s]
            never = _percent([outcome.wait_s is None for outcome in outcomes])
            waits = [1000 * o.wait_s for o in outcomes if o.wait_s is not None] or [np.nan]
            cuts, vain = np.mean([(o.num_cuts, o.num_in_vain) for o in outcomes], axis=0)
            rows.append(
                f"{f'{len(turns)} {name}':26}{pause_s:6.1f}s{cut:>9}{_percent(longer):>9}"
                f"{cuts:7.2f}{never:>8}{np.median(waits):7.0f}{np.percentile(waits, 95):7.0f}"
                f"{vain:9.2f}"
            )
    return "\n".join([*rows, "", *LEGEND])


def _percent(cases: list[bool]) -> str:
    return f"{100 * np.mean(cases):.1f} %" if cases else "-"


def _in_a_quiet_room(pieces: list[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """Pieces of sound one after another, with silence before and after, and faint noise."""
    lead_N, trail_N = (np.zeros(_num_samples(s), np.float32) for s in (LEAD_S, TRAIL_S))
    sound_N = np.concatenate([lead_N, *pieces, trail_N])
    noise_N = ROOM_NOISE * generator.standard_normal(len(sound_N)).astype(np.float32)
    return np.asarray(sound_N + noise_N, np.float32)


def _num_samples(seconds: float) -> int:
    return round(seconds * GEMMA_SAMPLE_RATE_HZ)


if __name__ == "__main__":
    run_command(main)
