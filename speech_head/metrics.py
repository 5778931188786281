"""Speak held-out answers, transcribe them, and compute error rates: stage 4's row of the report."""

# F Mimi frames (12.5 per second), K codebooks, N samples

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from data_manifests.manifest import read_utterance_audio
from data_manifests.quoted_rates import LABEL_WIDTH, QuotedRates, format_rates, quote_rates
from speech_head.answer import answer_states
from speech_head.asked_voices import VoiceMetrics, measure_voices, median_pitch_hz
from speech_head.held_out import HeldOut
from speech_head.mimi import Mimi
from speech_head.naturalness import Rater, Versions
from speech_head.parallel import ParallelHead
from speech_head.spoken_answers import (
    PARALLEL,
    RECORDING,
    SPOKEN,
    THROUGH_MIMI,
    VERSIONS,
    Sound,
    SpokenRow,
    Version,
)
from speech_head.stream import End, Sampling, speak_answers
from speech_head.talker import Talker
from stage1_rvq.listener import Transcriber

RECORDED = "recorded"  # the only speaker, for a head of one voice


@dataclass(frozen=True)
class Spoken:
    """A spoken answer.

    Attributes:
        held_out: the answer to speak.
        sounds: the speech at Mimi's rate, and whatever else there is of the same words: the
            recording at Gemma's rate, the recording coded by Mimi, the parallel head's speech.
        end: how the speech ended.
        num_pushed: tokens from which the cursor had to be moved on.
    """

    held_out: HeldOut
    sounds: dict[Version, Sound]
    end: End
    num_pushed: int

    def as_row(self, heard: Mapping[str, str], paths: Mapping[str, str]) -> SpokenRow:
        """Its row of `utterances.jsonl`.

        Args:
            heard, paths: transcripts and WAV files of its versions, by their keys in the row.
        """
        return SpokenRow(
            id=self.held_out.id, text=self.held_out.answer.text, end=self.end,
            num_pushed=self.num_pushed, **{**heard, **paths, **self._voice_facts()},
        )  # fmt: skip

    def _voice_facts(self) -> dict[str, Any]:
        """What its row says of the voice, if the head has several."""
        voice, recording = self.held_out.voice, self.held_out.recording
        if voice is None:
            return {}
        keys = {
            SPOKEN: "pitch_hz", RECORDING: "pitch_hz_recording", THROUGH_MIMI: "pitch_hz_mimi"
        }  # fmt: skip
        there = {key: self.sounds[v] for v, key in keys.items() if v in self.sounds}
        return {"voice": voice.name, "speaker": recording.speaker if recording else None} | {
            key: median_pitch_hz(sound.samples_N, sound.sample_rate_hz)
            for key, sound in there.items()
        }


def speak(
    batch: Sequence[HeldOut],
    talker: Talker,
    sampling: Sampling,
    parallel: ParallelHead | None = None,
) -> list[Spoken]:
    """Speak a batch of answers; the recordings go with it."""
    mimi = talker.mimi
    texts = [row.answer for row in batch]
    answers = answer_states(talker.conversation.model, texts, talker.head.config.layers)
    voices = [row.voice.vector_E if row.voice else talker.voice_E for row in batch]
    said = speak_answers(talker.head, answers, [row.id for row in batch], sampling, voices=voices)
    spoken = [
        Spoken(row, {SPOKEN: sound}, one.end, one.num_pushed)
        for row, one, sound in zip(
            batch, said, _sounds(mimi.decode([one.codes_FK for one in said]), mimi), strict=True
        )
    ]
    recorded = [one for one in spoken if one.held_out.recording is not None]
    if not recorded:
        return spoken
    recordings = [one.held_out.recording for one in recorded if one.held_out.recording is not None]
    waveforms = [read_utterance_audio(u, mimi.sample_rate_hz) for u in recordings]
    coded = mimi.encode(waveforms)
    decoded = _sounds(mimi.decode(coded, [len(waveform) for waveform in waveforms]), mimi)
    for one, recording, through_mimi in zip(recorded, recordings, decoded, strict=True):
        heard = read_utterance_audio(recording, GEMMA_SAMPLE_RATE_HZ)
        one.sounds[RECORDING] = Sound(heard, GEMMA_SAMPLE_RATE_HZ)
        one.sounds[THROUGH_MIMI] = through_mimi
    if parallel:
        told = [answers[i] for i, one in enumerate(spoken) if RECORDING in one.sounds]
        codes = parallel.speak(told, [len(codes_FK) for codes_FK in coded])
        for one, sound in zip(recorded, _sounds(mimi.decode(codes), mimi), strict=True):
            one.sounds[PARALLEL] = sound
    return spoken


def _sounds(speech: Sequence[Tensor], mimi: Mimi) -> list[Sound]:
    return [Sound(samples_N.cpu().numpy(), mimi.sample_rate_hz) for samples_N in speech]


def transcribe(spoken: Sequence[Spoken], judge: Transcriber | None) -> list[dict[str, str]]:
    """What a judge hears in every version of each answer, by the key of `SpokenRow`; nothing
    without a judge."""
    heard: list[dict[str, str]] = [{} for _ in spoken]
    for version in VERSIONS if judge else ():
        rows = [i for i, one in enumerate(spoken) if version in one.sounds]
        if not rows:
            continue
        sounds = [spoken[i].sounds[version] for i in rows]
        assert judge is not None
        texts = judge.transcribe([s.samples_N for s in sounds], sounds[0].sample_rate_hz)
        for i, text in zip(rows, texts, strict=True):
            heard[i][version.heard] = text
    return heard


def rate_speech(
    spoken: Sequence[Spoken], mimi: Mimi, raters: Sequence[Rater]
) -> dict[str, dict[str, float]]:
    """Ratings of the speech and of recordings of the same words, by the rater's name."""
    recorded, through_mimi, samples, speakers, voices = [], [], [], [], []
    for one in spoken:
        if one.held_out.recording is not None:
            waveform = read_utterance_audio(one.held_out.recording, mimi.sample_rate_hz)
            [codes_FK] = mimi.encode([waveform])
            recorded.append(waveform)
            through_mimi.append(mimi.decode(codes_FK, len(waveform)).cpu().numpy())
            samples.append(one.sounds[SPOKEN].samples_N)
            voice = one.held_out.voice
            # A head of one voice is to sound like all that was recorded.
            speakers.append(one.held_out.recording.speaker if voice else RECORDED)
            voices.append(voice.name if voice else RECORDED)
    versions = Versions(recorded, through_mimi, samples, mimi.sample_rate_hz, speakers, voices)
    return {rater.name: rater.rate(versions) for rater in raters}


@dataclass(frozen=True)
class HeadMetrics:
    """Stage 4's row of the report; rates are fractions, None if there is nothing to measure.

    Attributes:
        judge: what transcribed the speech; None if nothing has yet.
        error_rates: of each version, by its name; None if there is none. That of "recording" is the
            judge's own error.
        wer_teacher, wer_mimi: WER of the recordings, and of the recordings coded by Mimi.
        wer_spoken, wer_spoken_low, wer_spoken_high: WER of the speech, and its 95 % interval.
        cer_spoken: its CER.
        wer_parallel: WER of the parallel head's speech.
        runaway, cut_short: fractions of answers that had to be cut off, as in `stream.End`.
        pushed_on: fraction of answers in which the cursor had to be moved on.
        num_held_out: number of answers.
        num_recorded: how many of them have a recording.
        left_out: ids of questions whose answers cannot be spoken.
        voices: metrics of each voice that was spoken in, by its name; empty for a head of one.
        sound: as `rate_speech`; None if not measured.
    """

    judge: str | None
    error_rates: dict[str, QuotedRates | None]
    wer_teacher: float | None
    wer_mimi: float | None
    wer_spoken: float | None
    wer_spoken_low: float | None
    wer_spoken_high: float | None
    cer_spoken: float | None
    wer_parallel: float | None
    runaway: float
    cut_short: float
    pushed_on: float
    num_held_out: int
    num_recorded: int
    left_out: list[str]
    voices: dict[str, VoiceMetrics]
    sound: dict[str, dict[str, float]] | None = None

    def as_dict(self) -> dict[str, Any]:
        """For `metrics.json`, without the sound if it was not rated, and the voices if there is
        only one."""
        numbers = asdict(self) | {"voices": {n: one.as_dict() for n, one in self.voices.items()}}
        for name in ("sound", "voices"):
            if not numbers[name]:
                del numbers[name]
        return numbers


def compute_metrics(
    rows: Sequence[SpokenRow], left_out: list[str], *, judge: str | None
) -> HeadMetrics:
    """Everything but the sound's ratings.

    Args:
        rows: the answers, with their transcripts.
        left_out: as `HeadMetrics`.
        judge: what transcribed them.
    """
    texts = [row.text for row in rows]
    rates = {v.name: quote_rates(texts, [row.heard_in(v) for row in rows]) for v in VERSIONS}
    spoken = rates[SPOKEN.name]

    def wer(version: Version) -> float | None:
        found = rates[version.name]
        return found.wer if found else None

    return HeadMetrics(
        judge=judge,
        error_rates=rates,
        wer_teacher=wer(RECORDING),
        wer_mimi=wer(THROUGH_MIMI),
        wer_spoken=wer(SPOKEN),
        wer_spoken_low=spoken.wer_low if spoken else None,
        wer_spoken_high=spoken.wer_high if spoken else None,
        cer_spoken=spoken.cer if spoken else None,
        wer_parallel=wer(PARALLEL),
        runaway=sum(row.end == "runaway" for row in rows) / len(rows),
        cut_short=sum(row.end == "cut short" for row in rows) / len(rows),
        pushed_on=sum(row.num_pushed > 0 for row in rows) / len(rows),
        num_held_out=len(rows),
        num_recorded=sum(
            row.wav_of(RECORDING) is not None or row.heard_in(RECORDING) is not None for row in rows
        ),
        left_out=left_out,
        voices=measure_voices(rows),
    )


def format_table(metrics: HeadMetrics) -> str:
    """Format the numbers as a readable table."""
    judge = f"heard by {metrics.judge}" if metrics.judge else "not transcribed yet"
    lines = [
        f"{metrics.num_held_out} texts, {metrics.num_recorded} of them recorded; {judge}"
        + (f"; {len(metrics.left_out)} answers left out" if metrics.left_out else ""),
        *format_rates({v.label: metrics.error_rates[v.name] for v in VERSIONS}),
    ]
    for name, share in (
        ("runaway", metrics.runaway),
        ("cut short", metrics.cut_short),
        ("pushed on, where stuck", metrics.pushed_on),
    ):
        lines.append(f"{name:<{LABEL_WIDTH}}{100 * share:7.2f} %")
    if metrics.voices:
        lines += ["in the voice of", *_format_voices(metrics.voices)]
    for key, rated in (metrics.sound or {}).items():
        name = {"dnsmos": "DNSMOS", "speaker_similarity": "voice"}[key]
        others = f", other speakers {rated['others']:.2f}" if "others" in rated else ""
        nearest = rated.get("right_voice")
        lines.append(
            f"{name:<12}recordings {rated['teacher']:.2f}, through Mimi {rated['mimi']:.2f}, "
            f"spoken {rated['spoken']:.2f}{others}"
            + ("" if nearest is None else f"; nearest to its own voice: {100 * nearest:.1f} %")
        )
    return "\n".join(lines)


def _format_voices(voices: Mapping[str, VoiceMetrics]) -> list[str]:
    lines = [line.rstrip() for line in format_rates({n: v.rates for n, v in voices.items()})]
    for name, voice in voices.items():
        if voice.in_pitch is not None:
            mimi = voice.in_pitch_mimi
            ceiling = "" if mimi is None else f", of its recordings through Mimi {100 * mimi:.1f} %"
            lines.append(f"at the pitch of {name}: {100 * voice.in_pitch:.1f} %{ceiling}")
    return lines
