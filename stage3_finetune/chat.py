"""Chat with Gemma in Twi: type, or give a recording; the answer is written as it comes.

    python -m stage3_finetune.chat --gemma google/gemma-4-E4B-it --finetune runs/finetune
    python -m stage3_finetune.chat ... --audio question.mp3            one question, one answer
    python -m stage3_finetune.chat ... --prompt "Wo din de sɛn?" --json

In the conversation: `/audio FILE` asks with a recording, `/reset` forgets what was said, `/save
FILE` writes it as a `messages` row, `/quit` ends. Ctrl-C stops an answer; at the prompt it ends the
program. When a conversation has grown longer than Gemma is told at once (`prompt_limits.py`), its
oldest turns are forgotten, and a line says so.
"""

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Gemma4ForConditionalGeneration, PreTrainedTokenizerBase

from commands.atomic_write import write_text
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, DtypeName, pick_device, pick_dtype
from commands.errors import InputError
from commands.json_files import read_json
from commands.setting_types import ModelName, PositiveInt
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, read_audio
from gemma4.gemma import AudioEncoder, load_feature_extractor
from gemma4.weight_quantization import QuantizeName
from stage3_finetune.dialogue import Turn, encode_prompt, split_chain
from stage3_finetune.generate import MAX_NEW_TOKENS, stream_tokens
from stage3_finetune.model import TARGET_KEY, load_finetuned
from stage3_finetune.prompt_limits import (
    most_prompt_tokens,
    num_turns_to_forget,
    refuse_long_recording,
    typed_question,
)
from stage3_finetune.terminal import announce_forgotten, converse, path_of

HELP = "/audio FILE  /reset  /save FILE  /quit"


@dataclass(frozen=True, kw_only=True)
class ChatConfig:
    """Chat with Gemma in Twi, typed or with recordings."""

    gemma: ModelName = "google/gemma-4-E4B-it"
    """hub name or folder of an instruction-tuned Gemma 4 (E2B, E4B)"""
    finetune: Path | None = None
    """folder of stage3_finetune.train; without it the base model answers"""
    prompt: str | None = None
    """ask this one typed question and end"""
    audio: Path | None = None
    """ask with this one recording, of any format and at most five minutes, and end"""
    json: bool = False
    """with --prompt or --audio: print one JSON object with transcript and answer"""
    max_new_tokens: PositiveInt = MAX_NEW_TOKENS
    """longest answer, in tokens"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    dtype: DtypeName = "auto"
    """bfloat16 on CUDA, float32 elsewhere"""
    quantize: QuantizeName = "none"
    """8bit or 4bit: load the decoder so (needs bitsandbytes)"""

    def __post_init__(self) -> None:
        if self.prompt is not None and self.audio is not None:
            raise ValueError("--prompt and --audio are two ways to ask one question: give one")
        if self.json and self.prompt is None and self.audio is None:
            raise ValueError("--json needs --prompt or --audio")


@dataclass(frozen=True)
class Reply:
    """What the model wrote: its transcript of a spoken question ("" if none), and the answer."""

    transcript: str
    answer: str


class Conversation:
    """Turns so far, and the model that continues them."""

    def __init__(
        self,
        model: Gemma4ForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        encoder: AudioEncoder,
        *,
        writes_transcripts: bool,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> None:
        """
        Args:
            model: from `load_finetuned`.
            tokenizer: its tokenizer.
            encoder: the model's audio tower.
            writes_transcripts: trained with the chain target: answers to speech begin with a
                transcript.
            max_new_tokens: longest answer.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.writes_transcripts = writes_transcripts
        self.max_new_tokens = max_new_tokens
        self.turns: list[Turn] = []

    def continuing(self, turns: list[Turn]) -> "Conversation":
        """Another conversation with the same model; `turns` is what was said, and grows with it."""
        other = copy.copy(self)
        other.turns = turns
        return other

    def typed_turn(self, text: str) -> Turn:
        """A typed question; InputError as `typed_question`."""
        return Turn("user", typed_question(text))

    def spoken_turn(self, audio: Path) -> Turn:
        """A recorded question; InputError where the file is unusable or too long."""
        refuse_long_recording(audio)
        [frames_TD] = self.encoder.encode([read_audio(audio, GEMMA_SAMPLE_RATE_HZ)])
        return Turn("user", f"[{audio.name}]", spoken=True, frames_TD=frames_TD)

    def make_room(self, question: Turn) -> int:
        """Forget the oldest turns, as many as must be for a question to be heard.

        Returns:
            How many turns were forgotten.

        Raises:
            InputError: the question alone is too long.
        """
        max_tokens = most_prompt_tokens(self.model, self.max_new_tokens)
        num_forgotten = num_turns_to_forget(self.turns, question, self.tokenizer, max_tokens)
        del self.turns[:num_forgotten]
        return num_forgotten

    def ask(self, question: Turn, on_text: Callable[[str], None]) -> Reply:
        """Answer a question; `on_text` gets the answer (never the transcript) piece by piece.

        Question and answer join the conversation; of an answer that is stopped by Ctrl-C, as much
        as was written.

        Raises:
            InputError: as `make_room`.
        """
        self.make_room(question)
        prompt = encode_prompt([*self.turns, question], self.tokenizer)
        has_transcript = question.spoken and self.writes_transcripts
        written = ""
        tokens = stream_tokens(
            self.model, self.tokenizer, prompt, max_new_tokens=self.max_new_tokens
        )
        try:
            for piece in _text_pieces(tokens, self.tokenizer):
                in_answer = not has_transcript or "\n" in written
                written += piece
                if in_answer:
                    on_text(piece)
                elif "\n" in piece:
                    on_text(piece.partition("\n")[2])
        except KeyboardInterrupt:
            if written.strip():
                self.remember(question, written)
            raise
        # Without a line break the model wrote no transcript: all of it is the answer, shown late.
        if has_transcript and "\n" not in written:
            on_text(written)
        self.remember(question, written)
        return Reply(*split_chain(written)) if has_transcript else Reply("", written.strip())

    def remember(self, question: Turn, written: str) -> None:
        """Add a question and what the model wrote to the conversation."""
        # A model that spells out a mark of the chat template must not spoil every later prompt.
        answer = written.replace("<|", "<").replace("|>", ">").strip()
        self.turns += [question, Turn("assistant", answer)]

    def as_messages(self) -> dict:
        """The conversation as a row of a `messages` file."""
        return {"messages": [{"role": turn.role, "content": turn.content} for turn in self.turns]}


def load_conversation(
    gemma: str,
    finetune: Path | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quantize: QuantizeName = "none",
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Conversation:
    """Load everything a conversation needs; errors as `load_finetuned`."""
    model, tokenizer = load_finetuned(
        gemma, finetune, device=device, dtype=dtype, quantize=quantize
    )
    tower = (model.get_base_model() if finetune else model).model.audio_tower
    if finetune:
        target = read_json(finetune / "config.json")["target"]
    else:
        target = getattr(model.config, TARGET_KEY, "direct")  # of a merged checkpoint
    return Conversation(
        model,
        tokenizer,
        AudioEncoder(tower, load_feature_extractor(gemma)),
        writes_transcripts=target == "chain",
        max_new_tokens=max_new_tokens,
    )


def main(argv: list[str] | None = None) -> None:
    """Chat until the input ends, or answer one question."""
    config = parse_config(ChatConfig, argv)
    device = pick_device(config.device)
    conversation = load_conversation(
        config.gemma,
        config.finetune,
        device=device,
        dtype=pick_dtype(config.dtype, device),
        quantize=config.quantize,
        max_new_tokens=config.max_new_tokens,
    )
    if config.prompt is None and config.audio is None:
        _converse(conversation)
        return
    question = (
        conversation.spoken_turn(config.audio)
        if config.audio
        else conversation.typed_turn(config.prompt or "")
    )
    reply = conversation.ask(question, on_text=lambda piece: None if config.json else _show(piece))
    print(json.dumps(vars(reply), ensure_ascii=False) if config.json else "")


def _converse(conversation: Conversation) -> None:
    def ask(question: Turn) -> None:
        announce_forgotten(conversation.make_room(question))
        conversation.ask(question, on_text=_show)
        print()

    def take(line: str) -> None:
        command, _, argument = line.partition(" ")
        if command == "/reset":
            conversation.turns.clear()
        elif command == "/save":
            row = json.dumps(conversation.as_messages(), ensure_ascii=False)
            write_text(path_of(argument, commands=HELP), row + "\n")
        elif command == "/audio":
            ask(conversation.spoken_turn(path_of(argument, commands=HELP)))
        elif command.startswith("/"):
            raise InputError(f"unknown command {command[:40]}: {HELP}")
        elif line:
            ask(conversation.typed_turn(line))

    converse(take, commands=HELP)


def _show(piece: str) -> None:
    print(piece, end="", flush=True)


def _text_pieces(tokens: Iterator[int], tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Tokens -> text as it becomes certain: a character split over byte tokens waits for its
    last."""
    ids: list[int] = []
    shown = ""
    for token in tokens:
        ids.append(token)
        text = tokenizer.decode(ids, skip_special_tokens=True)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield text[len(shown) :]
            shown = text
    text = tokenizer.decode(ids, skip_special_tokens=True)
    if text != shown:
        yield text[len(shown) :]


if __name__ == "__main__":
    run_command(main)
