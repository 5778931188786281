"""The voice in which a head speaks: of a speaker it was trained on, by name, or of a recording.

    voice = find_voice(head, "ama")
    voice = hear_voice(head, mimi, Path("ama.wav"))

A recording of a person may be used only if that person has agreed to it.
"""

# E width of a voice

import sys
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from commands.errors import InputError, nearest_name
from data_manifests.audio import audio_duration_s, read_audio
from speech_head.mimi import Mimi
from speech_head.model import SpeechHead
from speech_head.voice_encoder import MAX_VOICE_S, MIN_VOICE_S

NUM_SHOWN = 12  # names in a message


@dataclass(frozen=True)
class Voice:
    """A voice to speak in.

    Attributes:
        name: of the speaker; None if it was heard in a recording.
        vector_E: what the head reads of it.
    """

    name: str | None
    vector_E: Tensor


def find_voice(head: SpeechHead, name: str, *, flag: str = "--voice") -> Voice:
    """The voice of a speaker whom the head was trained on.

    Raises:
        InputError: the head does not know the name.
    """
    _refuse_one_voice(head, f"{flag} {name}")
    names = head.config.voices
    if name not in names:
        hint = nearest_name(name, names)
        close = f"{hint} " if hint.startswith("did you mean") else ""
        raise InputError(f"{flag} {name}: no such voice; {close}{list_voices(names)}")
    return Voice(name, head.voices_VE[names.index(name)])


def list_voices(names: list[str]) -> str:
    """The names of a head's voices, in a few words."""
    if not names:
        return "the head knows none by name"
    more = f" and {len(names) - NUM_SHOWN} more" if len(names) > NUM_SHOWN else ""
    return f"the head knows {', '.join(names[:NUM_SHOWN])}{more}"


def hear_voice(
    head: SpeechHead, mimi: Mimi, recording: Path, *, flag: str = "--voice-recording"
) -> Voice:
    """The voice in a recording; if it is longer than `MAX_VOICE_S`, in its beginning, which is said
    on stderr.

    Raises:
        InputError: the head speaks in one voice only; the recording is missing, damaged, silent or
            shorter than `MIN_VOICE_S`.
    """
    _refuse_one_voice(head, flag)
    duration_s = audio_duration_s(recording)
    if duration_s < MIN_VOICE_S:
        raise InputError(
            f"{flag} {recording}: {duration_s:.2f} s long, a voice needs at least {MIN_VOICE_S:g} s"
        )
    if duration_s > MAX_VOICE_S:
        print(f"{flag} {recording}: only its first {MAX_VOICE_S:g} s are heard", file=sys.stderr)
    heard_s = min(duration_s, MAX_VOICE_S)
    samples_N = read_audio(recording, mimi.sample_rate_hz, duration_s=heard_s)
    return Voice(None, head.voice_encoder.mean(mimi.encode([samples_N])))


def choose_voice(
    head: SpeechHead, mimi: Mimi, name: str | None, recording: Path | None
) -> Voice | None:
    """The voice that was asked for; else the first that the head knows by name, who speaks most in
    its training data; None for a head of one voice. Errors as above."""
    if recording is not None:
        return hear_voice(head, mimi, recording)
    if name is not None:
        return find_voice(head, name)
    names = head.config.voices
    return find_voice(head, names[0]) if names else None


def _refuse_one_voice(head: SpeechHead, what: str) -> None:
    if not head.config.voice_width:
        raise InputError(
            f"{what}: this head speaks in one voice; one that is trained on several speakers "
            "speaks in theirs"
        )
