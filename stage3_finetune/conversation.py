"""A conversation with Gemma: the turns so far, and the next answer as it is generated."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Gemma4ForConditionalGeneration, PreTrainedTokenizerBase

from commands.json_files import read_json
from commands.origins import UNKNOWN, Origin, refuse_mixture
from commands.trained_pipeline import TrainedPipeline, find_pipeline
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, read_audio
from data_manifests.language import language
from gemma4.gemma import AudioEncoder, load_feature_extractor
from gemma4.weight_quantization import QuantizeName
from stage3_finetune.dialogue import Turn, encode_prompt, split_chain
from stage3_finetune.generate import MAX_NEW_TOKENS, stream_tokens
from stage3_finetune.model import TARGET_KEY, finetuned_origins, load_finetuned
from stage3_finetune.prompt_limits import (
    most_prompt_tokens,
    num_turns_to_forget,
    refuse_long_recording,
    typed_question,
)

BASE_GEMMA = "google/gemma-4-E4B-it"


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
        origins: Mapping[str, Origin],
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> None:
        """
        Args:
            writes_transcripts: whether the model was trained with the chain target, so that answers
                to speech begin with a transcript.
            origins: what the model and its adapter belong to, by flag and value; callers pass it to
                `refuse_mixture`, with what else they use.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.writes_transcripts = writes_transcripts
        self.max_new_tokens = max_new_tokens
        self.origins = origins
        self.turns: list[Turn] = []

    def continuing(self, turns: list[Turn]) -> "Conversation":
        """Another conversation with the same model; `turns` is its history, extended in place."""
        other = copy.copy(self)
        other.turns = turns
        return other

    def typed_turn(self, text: str) -> Turn:
        """A typed question; raises InputError as `typed_question` does."""
        return Turn("user", typed_question(text))

    def spoken_turn(self, audio: Path, instruction: str = "") -> Turn:
        """A recorded question.

        Args:
            instruction: text shown to Gemma beside the speech, such as what to do with it.

        Raises:
            InputError: the file is unusable or too long; the instruction is, as `typed_turn`.
        """
        refuse_long_recording(audio)
        prompt = typed_question(instruction) if instruction else ""
        [frames_TD] = self.encoder.encode([read_audio(audio, GEMMA_SAMPLE_RATE_HZ)])
        return Turn("user", f"[{audio.name}]", spoken=True, frames_TD=frames_TD, prompt=prompt)

    def write_down(self, audio: Path) -> str:
        """Gemma's transcript of a recording, which leaves no trace in the conversation; raises
        InputError as `spoken_turn`."""
        question = self.spoken_turn(audio, language().write)
        prompt = encode_prompt([question], self.tokenizer)
        tokens = stream_tokens(
            self.model, self.tokenizer, prompt, max_new_tokens=self.max_new_tokens
        )
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.partition("\n")[0].strip()

    def make_room(self, question: Turn) -> int:
        """Forget as many of the oldest turns as needed for a question to fit into the prompt.

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

        Question and answer are added to the conversation. If Ctrl-C stops the answer, the part
        written so far is added.

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
        # Without a line break there is no transcript: all of the text is the answer, shown late.
        if has_transcript and "\n" not in written:
            on_text(written)
        self.remember(question, written)
        return Reply(*split_chain(written)) if has_transcript else Reply("", written.strip())

    def remember(self, question: Turn, written: str) -> None:
        """Add a question and what the model wrote to the conversation."""
        # If the model spells out a mark of the chat template, it must not corrupt later prompts.
        answer = written.replace("<|", "<").replace("|>", ">").strip()
        self.turns += [question, Turn("assistant", answer)]

    def as_messages(self) -> dict[str, list[dict[str, str]]]:
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
    """Load everything a conversation needs; raises the same errors as `load_finetuned`."""
    model, tokenizer = load_finetuned(
        gemma, finetune, device=device, dtype=dtype, quantize=quantize
    )
    tower = (model.get_base_model() if finetune else model).model.audio_tower
    if finetune:
        target = read_json(finetune / "config.json")["target"]
    else:
        target = getattr(model.config, TARGET_KEY, "direct")  # set in a merged checkpoint
    return Conversation(
        model,
        tokenizer,
        AudioEncoder(tower, load_feature_extractor(gemma)),
        writes_transcripts=target == "chain",
        origins=finetuned_origins(gemma, model, finetune),
        max_new_tokens=max_new_tokens,
    )


def load_chosen_conversation(
    pipeline: str | None,
    gemma: str | None,
    finetune: Path | None,
    *,
    allow_mixture: bool,
    device: torch.device,
    dtype: torch.dtype,
    quantize: QuantizeName = "none",
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Conversation:
    """Load what `--pipeline`, `--gemma` and `--finetune` name.

    Args:
        pipeline: hub name or folder of a trained pipeline; what else is named takes the place of
            its own.
        gemma: as `load_finetuned`; without it and a pipeline, `BASE_GEMMA`.
        finetune: as `load_finetuned`.
        allow_mixture: whether the parts may belong to different audio towers.

    Raises:
        InputError: one of them cannot be loaded, or they do not belong together.
    """
    base = TrainedPipeline({"gemma": BASE_GEMMA}, UNKNOWN)
    trained = find_pipeline(pipeline) if pipeline else base
    adapter = finetune or trained.parts.get("finetune")
    conversation = load_conversation(
        gemma or trained.parts["gemma"],
        Path(adapter) if adapter else None,
        device=device,
        dtype=dtype,
        quantize=quantize,
        max_new_tokens=max_new_tokens,
    )
    refuse_mixture(
        {f"--pipeline {pipeline}": trained.origin, **conversation.origins}, allowed=allow_mixture
    )
    return conversation


def _text_pieces(tokens: Iterator[int], tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Tokens -> text, once it is final: a character split over byte tokens waits for its last
    one."""
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
