"""Transcribe a recording of any length: text, WebVTT, SRT or JSON, with times.

    python -m stage3_finetune.transcribe --audio talk.m4a --finetune runs/finetune --out talk.vtt
    python -m stage3_finetune.transcribe --audio talk.mp3 --pipeline runs/twi-hub --out talk.srt

The recording is decoded and cut at pauses as it is transcribed, so that memory does not grow with
its length. Every piece is heard by itself, and its times are those of its speech. The pieces are
printed as they come. `--out` is written at the end; if the recording turns out to be damaged, or
Ctrl-C ends the work, it holds the pieces up to there.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from commands.atomic_write import write_text
from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.new_paths import refuse_unwritable
from commands.setting_types import PositiveInt
from data_manifests.audio_defects import AudioDefect
from data_manifests.long_audio import LongRecording, open_long_audio
from data_manifests.pauses import LONGEST_PIECE_S, SHORTEST_PAUSE_S
from stage3_finetune.conversation import Conversation
from stage3_finetune.long_transcript import (
    PIECES_AT_A_TIME,
    WrittenPiece,
    show_line,
    with_progress,
    write_down,
)
from stage3_finetune.settings import TextConversationConfig
from stage3_finetune.subtitles import SUFFIXES, format_cues


@dataclass(frozen=True, kw_only=True)
class TranscribeConfig(TextConversationConfig):
    """Transcribe a recording of any length, with times."""

    audio: Path
    """recording in any format; what phones record (.m4a) needs the extra .[phone]"""
    out: Path
    """file to write: .txt, .vtt (WebVTT), .srt or .json"""
    longest_piece_s: Annotated[float, Field(ge=1, le=30)] = LONGEST_PIECE_S
    """longest piece that is heard at once, in seconds; Gemma hears 30"""
    shortest_pause_s: Annotated[float, Field(ge=0.1, le=10)] = SHORTEST_PAUSE_S
    """a pause of so many seconds ends a piece"""
    batch_size: PositiveInt = PIECES_AT_A_TIME
    """pieces at a time"""


def main(argv: list[str] | None = None) -> None:
    """Print the transcript piece by piece, and write it to a file."""
    config = parse_config(TranscribeConfig, argv)
    if config.out.suffix.lower() not in SUFFIXES:
        raise InputError(f"--out {config.out}: its name must end in {', '.join(SUFFIXES)}")
    refuse_unwritable(config.out, flag="--out")
    with open_long_audio(config.audio) as recording:
        conversation = config.load()
        written: list[WrittenPiece] = []
        try:
            _transcribe(config, conversation, recording, written)
        except (AudioDefect, KeyboardInterrupt):
            if written:
                _write(config.out, written)
                until_s = written[-1].cue.end_s
                print(f"{config.out} holds the first {until_s:.0f} s of it", file=sys.stderr)
            raise
    if not written:
        raise InputError(f"{config.audio}: no speech was found in it")
    _write(config.out, written)
    print(config.out)


def _transcribe(
    config: TranscribeConfig,
    conversation: Conversation,
    recording: LongRecording,
    written: list[WrittenPiece],
) -> None:
    """Append the pieces to `written` as they come."""
    pieces = write_down(
        conversation,
        recording,
        longest_piece_s=config.longest_piece_s,
        shortest_pause_s=config.shortest_pause_s,
        batch_size=config.batch_size,
    )
    for piece in with_progress(pieces, recording):
        written.append(piece)
        show_line(str(piece.cue))


def _write(out: Path, written: list[WrittenPiece]) -> None:
    """Write the file; says on stderr what is not as it should be."""
    cues = [piece.cue for piece in written]
    write_text(out, format_cues(cues, out.suffix.lower()))
    if num_empty := sum(not cue.text for cue in cues):
        print(f"{num_empty} of {len(cues)} pieces are without text: left out", file=sys.stderr)
    if num_cut := sum(not piece.is_complete for piece in written):
        print(
            f"{num_cut} of {len(cues)} transcripts reached --max-new-tokens and end there",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_command(main)
