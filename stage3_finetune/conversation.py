"""A conversation with Gemma: the turns so far, and the next answer as it is generated."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from commands.errors import InputError
from commands.finished_folder import read_provenance
from commands.json_files import read_json
from commands.origins import Origin
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, read_audio
from data_manifests.language import language
from gemma4.function_calls import FunctionCall, refuse_unable_to_call
from gemma4.kinds import AnyGemma
from gemma4.packed_linear import pack_linear_layers
from gemma4.speech_encoder import SpeechEncoder, encoder_of
from gemma4.weight_quantization import QuantizeName
from stage3_finetune.calling import WrittenPart, begins_call, read_part, refuse_further_round
from stage3_finetune.dialogue import EncodedDialogue, Turn, as_messages, encode_prompt
from stage3_finetune.generate import MAX_NEW_TOKENS, stream_tokens
from stage3_finetune.model import (
    CALLS_KEY,
    TARGET_KEY,
    base_of,
    finetuned_origins,
    load_finetuned,
    merge_adapter,
)
from stage3_finetune.prompt_limits import (
    forget_all_but,
    most_prompt_tokens,
    num_turns_to_forget,
    refuse_long_recording,
    refuse_long_results,
    typed_question,
)
from stage3_finetune.reply import Reply, WrittenReply, text_pieces
from stage3_finetune.tools import NO_TOOLS, CallResult, RunningCall, Tools


class Conversation:
    """Turns so far, and the model that continues them.

    Attributes:
        turns: what Gemma is shown before a question; `make_room` forgets the oldest.
        num_remembered: earlier questions that it is shown with their answers, at most; None for as
            many as fit. An adapter may answer worse behind more than it was trained on.
    """

    def __init__(
        self,
        model: AnyGemma,
        tokenizer: PreTrainedTokenizerBase,
        encoder: SpeechEncoder,
        *,
        writes_transcripts: bool,
        origins: Mapping[str, Origin],
        max_new_tokens: int = MAX_NEW_TOKENS,
        has_learned_calls: bool = True,
    ) -> None:
        """
        Args:
            writes_transcripts: whether the model was trained with the chain target, so that answers
                to speech begin with a transcript.
            origins: what the model and its adapter belong to, by flag and value; callers pass it to
                `refuse_mixture`, with what else they use.
            has_learned_calls: whether the model was trained to call functions, as Gemma was; an
                adapter may not have been.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.writes_transcripts = writes_transcripts
        self.max_new_tokens = max_new_tokens
        self.origins = origins
        self.has_learned_calls = has_learned_calls
        self.num_remembered: int | None = None
        self.tools = NO_TOOLS
        self.turns: list[Turn] = []

    def continuing(self, turns: list[Turn]) -> "Conversation":
        """Another conversation with the same model; `turns` is its history, extended in place."""
        other = copy.copy(self)
        other.turns = turns
        return other

    def speed_up(self) -> None:
        """Answer faster from now on, with a model that can only be used: an adapter is merged, and
        on a CPU weights are repacked."""
        self.model = merge_adapter(self.model)
        pack_linear_layers(base_of(self.model).model.language_model)

    def use_tools(self, tools: Tools) -> None:
        """Let the model call functions from now on.

        Raises:
            InputError: it was not trained to.
        """
        if not self.has_learned_calls:
            raise InputError(
                "--tools: this adapter was trained on dialogues without calls of functions; train "
                "it on some that have 'tools' and 'tool_calls'"
            )
        refuse_unable_to_call(self.tokenizer, where="--tools", has_text=self.writes_transcripts)
        self.tools = tools

    def prompt(self, turns: Sequence[Turn]) -> EncodedDialogue:
        """The conversation, and further turns, as the model is shown them; raises InputError as
        `encode_prompt` does."""
        return encode_prompt([*self.turns, *turns], self.tokenizer, self.tools.schemas)

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
        """Forget what is not to be remembered, and then as many of the oldest turns as needed for a
        question to fit into the prompt.

        Returns:
            How many turns were forgotten because the prompt was full.

        Raises:
            InputError: the question alone is too long.
        """
        if self.num_remembered is not None:
            forget_all_but(self.turns, self.num_remembered)
        max_tokens = most_prompt_tokens(self.model, self.max_new_tokens)
        num_forgotten = num_turns_to_forget(
            self.turns, question, self.tokenizer, max_tokens, self.tools.schemas
        )
        del self.turns[:num_forgotten]
        return num_forgotten

    def ask(
        self,
        question: Turn,
        on_text: Callable[[str], None],
        on_call: Callable[[CallResult], None] = lambda result: None,
    ) -> Reply:
        """Answer a question; `on_text` gets the answer (never the transcript) piece by piece, and
        `on_call` what came of each function that was called for it.

        Question and answer are added to the conversation. If Ctrl-C stops the answer, the part
        written so far is added.

        Raises:
            InputError: as `make_room`; a call that cannot be read, or no end of calls.
        """
        self.make_room(question)
        reply = WrittenReply(question.spoken and self.writes_transcripts, on_text)
        called: list[Turn] = []
        prompt = self.prompt([question])
        try:
            while True:
                part = self._write_part(prompt, reply)
                if not part.calls:
                    break
                reply.num_rounds += 1
                refuse_further_round(reply.num_rounds)
                called += part.as_turns([self._call(call, on_call) for call in part.calls])
                prompt = self.prompt([question, *called])
                refuse_long_results(prompt, self.model, self.max_new_tokens)
        except KeyboardInterrupt:
            if reply.written.strip():
                self.remember(question, reply.written, called)
            raise
        self.remember(question, reply.written, called)
        return reply.whole()

    def _write_part(self, prompt: EncodedDialogue, reply: WrittenReply) -> WrittenPart:
        """Let the model write until it stops."""
        ids: list[int] = []

        def tokens_of_text() -> Iterator[int]:
            for token in stream_tokens(
                self.model, self.tokenizer, prompt, max_new_tokens=self.max_new_tokens
            ):
                ids.append(token)
                if not begins_call(ids, self.tokenizer):
                    yield token

        reply.begin_part()
        for piece in text_pieces(tokens_of_text(), self.tokenizer):
            reply.add(piece)
        part = read_part(ids, self.tokenizer, self.model)
        reply.end_part(part.text, is_answer=not part.calls)
        return part

    def begin_call(self, call: FunctionCall) -> RunningCall:
        """Call a function; raises InputError if there are none."""
        if self.tools is NO_TOOLS:
            raise InputError(f"Gemma called {call.name!r}, and no functions were given (--tools)")
        return self.tools.begin(call)

    def _call(self, call: FunctionCall, on_call: Callable[[CallResult], None]) -> CallResult:
        result = self.begin_call(call).finish()
        on_call(result)
        return result

    def remember(self, question: Turn, written: str, called: Sequence[Turn] = ()) -> None:
        """Add a question and what the model wrote to the conversation.

        Args:
            called: turns in which functions were called for it, and their results.
            written: the answer; if none were called, with the transcript, if the model wrote one.
        """
        # If the model spells out a mark of the chat template, it must not corrupt later prompts.
        answer = written.replace("<|", "<").replace("|>", ">").strip()
        self.turns += [question, *called, Turn("assistant", answer)]

    def as_messages(self) -> dict[str, Any]:
        """The conversation as a row of a `messages` file."""
        messages = as_messages([replace(turn, spoken=False) for turn in self.turns])
        tools = {"tools": list(self.tools.schemas)} if self.tools.schemas else {}
        return {"messages": messages, **tools}


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
    if finetune:
        target = read_json(finetune / "config.json")["target"]
        has_learned_calls = read_provenance(finetune).num_calls > 0
    else:
        # Both are set in a merged checkpoint. Gemma itself has learned to call functions.
        target = getattr(model.config, TARGET_KEY, "direct")
        is_merged = hasattr(model.config, TARGET_KEY)
        has_learned_calls = getattr(model.config, CALLS_KEY, 0 if is_merged else 1) > 0
    return Conversation(
        model,
        tokenizer,
        encoder_of(base_of(model), gemma),
        writes_transcripts=target == "chain",
        origins=finetuned_origins(gemma, model, finetune),
        max_new_tokens=max_new_tokens,
        has_learned_calls=has_learned_calls,
    )
