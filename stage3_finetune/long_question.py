"""Questions about a recording of any length.

    question = question_about(
        conversation, Path("talk.m4a"), "Dɛn ho asɛm na ɔreka?", show_progress
    )
    reply = conversation.ask(question, print)

A recording of up to `MAX_RECORDING_S` is heard: its embeddings stand in the prompt. A longer one
is written down first, and what stands in the prompt is its text, each piece with its time.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from commands.errors import InputError
from data_manifests.audio import audio_duration_s
from data_manifests.long_audio import open_long_audio
from stage3_finetune.conversation import Conversation
from stage3_finetune.dialogue import Turn
from stage3_finetune.long_transcript import (
    PIECES_AT_A_TIME,
    show_line,
    with_progress,
    write_down,
)
from stage3_finetune.prompt_limits import MAX_RECORDING_S, most_prompt_tokens, typed_question
from stage3_finetune.subtitles import Cue
from stage3_finetune.template_marks import without_template_marks


def question_about(
    conversation: Conversation, audio: Path, text: str, on_cue: Callable[[Cue], None]
) -> Turn:
    """A question about a recording.

    Args:
        audio: in any format that is read, of any length.
        text: what to do with it; may be "" if the recording is heard, and so is the question.
        on_cue: called with each piece of a long recording when it has been written down.

    Returns:
        A spoken turn, as `Conversation.spoken_turn`, if the recording is heard. Else a typed one:
        lines of `[0:12:05] what is said`, an empty line, `text`.

    Raises:
        InputError: the file is unusable; the text is, as `Conversation.typed_turn`; the recording
            is long, and there is no text, no speech was found in it, or more than the prompt takes.
    """
    if not _is_long(audio):
        return conversation.spoken_turn(audio, text)
    if not text:
        raise InputError(
            f"{audio}: lasts {audio_duration_s(audio):,.0f} s, at most {MAX_RECORDING_S:.0f} s are "
            "heard as a question; type after it what you want to know about it"
        )
    question = typed_question(text)
    most = most_prompt_tokens(conversation.model, conversation.max_new_tokens)
    num_tokens = 0
    lines = []
    for cue in _written_down(conversation, audio):
        on_cue(cue)
        if not cue.text:
            continue
        lines.append(f"[{_clock(cue.start_s)}] {without_template_marks(cue.text)}")
        num_tokens += len(conversation.tokenizer(lines[-1], add_special_tokens=False).input_ids)
        if num_tokens > most:
            raise InputError(
                f"{audio}: what is said up to {_clock(cue.end_s)} takes {num_tokens:,} tokens, "
                f"Gemma takes at most {most:,} at once: ask about a part of it, or write it down "
                "with stage3_finetune.transcribe"
            )
    if not lines:
        raise InputError(f"{audio}: no speech was found in it")
    return Turn("user", "\n".join([*lines, "", question]))


def written_lines(conversation: Conversation, audio: Path) -> Iterator[str]:
    """Write down a recording of any length, which leaves no trace in the conversation.

    Yields:
        What is said: one line, or, if the recording is long, a line for each piece with its times.

    Raises:
        InputError: the file is unusable.
    """
    if _is_long(audio):
        yield from map(str, _written_down(conversation, audio))
    else:
        yield conversation.write_down(audio)


def show_progress(cue: Cue) -> None:
    """Print a piece on stderr, where progress is told."""
    show_line(str(cue), file=sys.stderr)


def _is_long(audio: Path) -> bool:
    return audio_duration_s(audio) > MAX_RECORDING_S


def _written_down(conversation: Conversation, audio: Path) -> Iterator[Cue]:
    with open_long_audio(audio) as recording:
        pieces = write_down(conversation, recording, batch_size=PIECES_AT_A_TIME)
        for piece in with_progress(pieces, recording):
            yield piece.cue


def _clock(time_s: float) -> str:
    minutes, seconds = divmod(int(time_s), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
