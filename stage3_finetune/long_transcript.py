"""Write down what is said in a recording of any length, piece by piece.

    with open_long_audio(Path("talk.m4a")) as recording:
        for piece in write_down(conversation, recording): print(piece.cue)

Each piece is heard by itself, with the prompt whose transcripts stage 3 trains.
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

from tqdm import tqdm

from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, resample
from data_manifests.audio_defects import AudioDefect
from data_manifests.language import language
from data_manifests.long_audio import LongRecording
from data_manifests.pauses import LONGEST_PIECE_S, SHORTEST_PAUSE_S, SpeechPiece, cut_at_pauses
from stage3_finetune.conversation import Conversation
from stage3_finetune.dialogue import Turn, encode_prompt
from stage3_finetune.generate import generate_tokens, stop_ids
from stage3_finetune.subtitles import Cue

PIECES_AT_A_TIME = 8


@dataclass(frozen=True)
class WrittenPiece:
    """The transcript of a piece.

    Attributes:
        cue: its text and its times.
        is_complete: whether the text ended within the longest answer.
    """

    cue: Cue
    is_complete: bool


def write_down(
    conversation: Conversation,
    recording: LongRecording,
    *,
    longest_piece_s: float = LONGEST_PIECE_S,
    shortest_pause_s: float = SHORTEST_PAUSE_S,
    batch_size: int = 1,
) -> Iterator[WrittenPiece]:
    """Transcribe a recording as it is decoded; memory does not grow with its length.

    Args:
        conversation: whose model writes; its turns play no part.
        recording: its blocks are used up.
        longest_piece_s, shortest_pause_s: as `cut_at_pauses`.
        batch_size: pieces at a time; the texts do not depend on it (up to rounding).

    Yields:
        Pieces with speech, in order.

    Raises:
        AudioDefect: as the recording's blocks, after the pieces before.
    """
    tokenizer = conversation.tokenizer
    stops = stop_ids(tokenizer, conversation.model)
    pieces = cut_at_pauses(
        recording.blocks,
        recording.rate_hz,
        longest_piece_s=longest_piece_s,
        shortest_pause_s=shortest_pause_s,
    )
    for batch in _in_batches(pieces, batch_size):
        frames = conversation.encoder.encode(
            [resample(p.samples_N, recording.rate_hz, GEMMA_SAMPLE_RATE_HZ) for p in batch]
        )
        turns = [Turn("user", "", True, frames_TD=x_TD, prompt=language().write) for x_TD in frames]
        written = generate_tokens(
            conversation.model,
            tokenizer,
            [encode_prompt([turn], tokenizer) for turn in turns],
            max_new_tokens=conversation.max_new_tokens,
            batch_size=batch_size,
            description=None,
        )
        for piece, ids in zip(batch, written, strict=True):
            text = tokenizer.decode(ids, skip_special_tokens=True)
            cue = Cue(piece.start_s, piece.end_s, text.partition("\n")[0].strip())
            yield WrittenPiece(cue, bool(ids) and ids[-1] in stops)


def with_progress(
    pieces: Iterator[WrittenPiece], recording: LongRecording
) -> Iterator[WrittenPiece]:
    """The pieces of a recording, with a progress bar on stderr; what is printed meanwhile goes
    through `show_line`."""
    total_s = math.ceil(recording.duration_s) or None
    with tqdm(total=total_s, desc="transcribe", unit=" s of audio") as progress:
        for piece in pieces:
            yield piece
            progress.update(round(piece.cue.end_s) - progress.n)
        progress.update((total_s or progress.n) - progress.n)


def show_line(line: str, *, file: TextIO | None = None) -> None:
    """Print a line above a progress bar, on stdout where no file is given."""
    tqdm.write(line, file=file or sys.stdout)


def _in_batches(pieces: Iterator[SpeechPiece], batch_size: int) -> Iterator[list[SpeechPiece]]:
    batch: list[SpeechPiece] = []
    try:
        for piece in pieces:
            batch.append(piece)
            if len(batch) == batch_size:
                yield batch
                batch = []
    except AudioDefect:
        if batch:
            yield batch
        raise
    if batch:
        yield batch
