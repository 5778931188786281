"""Say a sentence with espeak-ng, in Twi or Ewe.

python -m demo.voice.say --text "Me din de Kofi." --voice hi+m3 --out kofi.wav
"""

from dataclasses import dataclass
from pathlib import Path

from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.setting_types import PositiveInt
from data_manifests.audio import MIMI_SAMPLE_RATE_HZ, write_wav
from demo.voice.synthesizer import Synthesizer


@dataclass(frozen=True, kw_only=True)
class SpeakConfig:
    """Read a text aloud with espeak-ng."""

    text: str
    """text in Twi, or in Ewe where SPOKEN_LANGUAGE says so; numbers written as words"""
    out: Path
    """WAV file to write"""
    voice: str = "hi"
    """hi, or hi+ and a variant: m1 ... m8, f1 ... f5, or one of demo/voice/voice_variants.py"""
    rate_wpm: PositiveInt = 180
    """words per minute"""


def main(argv: list[str] | None = None) -> None:
    """Write the recording; prints the file."""
    config = parse_config(SpeakConfig, argv)
    try:
        speech = Synthesizer().speak(
            config.text,
            config.voice,
            sample_rate_hz=MIMI_SAMPLE_RATE_HZ,
            rate_wpm=config.rate_wpm,
        )
    except ValueError as error:
        raise InputError(str(error)) from None
    write_wav(config.out, speech.samples_N, speech.sample_rate_hz)
    print(config.out)


if __name__ == "__main__":
    run_command(main)
