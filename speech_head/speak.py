"""Speak a text, or let Gemma answer a question and speak the answer while it is generated.

    python -m speech_head.speak --head runs/head --text "Me din de Ama." --out greeting.wav
    python -m speech_head.speak --head runs/head --finetune runs/finetune \
        --audio question.wav --out answer.wav

Prints the answer, then the WAV's path; with `--json`, one object with both, the time of every word,
and how long it took. The WAV is written when the speech is complete.
"""

# N samples (24,000 per second)

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.new_paths import refuse_unwritable
from data_manifests.audio import write_wav
from data_manifests.normalization import normalize_for_training
from speech_head.answer import AnswerTokens, answer_states
from speech_head.settings import TalkerConfig
from speech_head.speech import Speech
from speech_head.talker import Talker, tokenize_within_limit
from speech_head.timed_speech import TimedSpeech, describe, record
from stage3_finetune.prompt_limits import MAX_TYPED_CHARACTERS


@dataclass(frozen=True, kw_only=True)
class SpeakConfig(TalkerConfig):
    """Speak a text, or the answer to a typed or spoken question."""

    out: Path
    """WAV file to write, 24 kHz"""
    text: str | None = None
    """speak this text"""
    prompt: str | None = None
    """ask this typed question, and speak the answer"""
    audio: Path | None = None
    """ask with this recording, and speak the answer"""
    json: bool = False
    """print one JSON object: answer, wav, words with their times, time to first sound"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if sum(given is not None for given in (self.text, self.prompt, self.audio)) != 1:
            raise ValueError("give one of --text, --prompt, --audio")


def main(argv: list[str] | None = None) -> None:
    """Speak; prints the text and the path."""
    config = parse_config(SpeakConfig, argv)
    refuse_unwritable(config.out, flag="--out")
    sampling = config.sampling.with_seed(config.seed, pace=config.pace)
    if config.text is not None:
        _refuse_unspeakable(config.text)
    talker = config.load()
    speech = Speech(talker, sampling)
    recording = record(speech, _what_to_say(config, talker))
    write_wav(config.out, recording.samples_N, talker.mimi.sample_rate_hz)
    print(describe(speech, recording), file=sys.stderr)
    if config.json:
        print(json.dumps(_as_row(speech, recording, config.out), ensure_ascii=False))
        return
    print(speech.text)
    print(config.out)


def _refuse_unspeakable(text: str) -> None:
    """Raise InputError if a text cannot be spoken at all, before models are loaded."""
    if not text.strip():
        raise InputError("--text is empty: nothing to say")
    if len(text) > MAX_TYPED_CHARACTERS:
        raise InputError(
            f"--text has {len(text):,} characters, at most {MAX_TYPED_CHARACTERS:,} can be spoken "
            "at once: split it"
        )


def _as_row(speech: Speech, recording: TimedSpeech, wav: Path) -> dict[str, Any]:
    return {
        "answer": speech.text,
        "wav": str(wav),
        "voice": speech.talker.voice.name if speech.talker.voice else None,
        "end": speech.end,
        "num_pushed": speech.num_pushed,
        "duration_s": round(recording.duration_s, 3),
        "time_to_first_audio_ms": round(1000 * recording.first_sound_s, 1),
        "real_time_factor": round(recording.total_s / recording.duration_s, 4),
        "words": [asdict(word) for word in speech.words],
    }


def _what_to_say(config: SpeakConfig, talker: Talker) -> Iterator[AnswerTokens]:
    conversation = talker.conversation
    if config.text is not None:
        text = tokenize_within_limit(normalize_for_training(config.text), talker.tokenizer)
        return iter(answer_states(conversation.model, [text], talker.head.config.layers))
    if config.audio is not None:
        return talker.answer(conversation.spoken_turn(config.audio))
    return talker.answer(conversation.typed_turn(config.prompt or ""))


if __name__ == "__main__":
    run_command(main)
