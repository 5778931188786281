"""Gemma with the models that make it speak, and what of its answer is to be spoken.

    talker = load_talker("google/gemma-4-E4B-it", None, "kyutai/mimi", "runs/head", ...)
    for tokens in talker.answer(question):
        ...

`speech.py` speaks them.
"""

# S answer tokens, F Mimi frames (12.5 per second), K codebooks, N samples (24,000 per second),
# E width of a voice

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from commands.errors import InputError
from commands.origins import refuse_mixture
from gemma4.kinds import AnyGemma
from gemma4.packed_linear import pack_linear_layers
from gemma4.weight_quantization import QuantizeName
from speech_head.answer import (
    MAX_ANSWER_TOKENS,
    AnswerTokens,
    TeacherForcedAnswer,
    begin_answer,
    teacher_forced_answer,
)
from speech_head.answer_parts import AnswerInParts
from speech_head.mimi import Mimi, load_mimi, refuse_other_codec
from speech_head.model import SpeechHead, load_head
from speech_head.parallel import ParallelHead
from speech_head.voices import Voice, choose_voice
from stage3_finetune.conversation import Conversation, load_conversation
from stage3_finetune.decoding import BegunPrompt, Decoding
from stage3_finetune.dialogue import EncodedDialogue, Turn
from stage3_finetune.tools import CallResult

WAIT_S = 0.005  # for a function, before others' answers go on


@dataclass(frozen=True)
class Talker:
    """Gemma with its conversation so far, and the models that make it speak; all frozen."""

    conversation: Conversation
    head: SpeechHead
    mimi: Mimi
    cut_long_answers: bool = False
    voice: Voice | None = None  # in which the head speaks; None for a head of one voice

    @property
    def voice_E(self) -> Tensor | None:
        """What the head reads of its voice; None for a head of one voice."""
        return self.voice.vector_E if self.voice else None

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.conversation.tokenizer

    def speed_up(self) -> None:
        """Answer faster from now on, with models that can only be used: see
        `Conversation.speed_up`."""
        self.conversation.speed_up()
        for model in (self.head, self.mimi.model):
            pack_linear_layers(model)

    def begin(self, prompt: EncodedDialogue | BegunPrompt) -> Decoding:
        """The decoding of an answer to a prompt, with the states that the head reads."""
        return begin_answer(self.conversation.model, prompt, self.head.config.layers)

    def answer(
        self,
        question: Turn,
        decoding: Decoding | None = None,
        *,
        on_transcript: Callable[[str], None] = lambda transcript: None,
        on_call: Callable[[CallResult], None] = lambda result: None,
        may_call: Callable[[], bool] = lambda: True,
    ) -> Generator[AnswerTokens]:
        """Let Gemma answer, and yield what is to be spoken, token by token.

        An adapter trained with the chain target first writes a transcript of the question. For
        each of its tokens, a piece without tokens is yielded; if it wrote none, all of the text is
        the answer, which is known only at its end. So it is for the tokens of a call, and while a
        function runs. Question and answer are added to the conversation once the answer is
        complete. If the generator is closed or Ctrl-C interrupts it earlier, the part written so
        far is added. An answer that cannot be pronounced is not added, nor is its question.

        Args:
            question: the user's turn; if spoken, with embeddings.
            decoding: from `begin`, where the caller has made room for the question.
            on_transcript: called with the transcript, if there is one, before its answer.
            on_call: called with what came of each function that was called.
            may_call: whether functions may be called yet; until then, pieces without tokens are
                yielded. The question may not have ended.

        Raises:
            InputError: as `Conversation.ask` and `stream_answer`.
        """
        conversation = self.conversation
        if decoding is None:
            conversation.make_room(question)
            decoding = self.begin(conversation.prompt([question]))
        answer = AnswerInParts(
            conversation, question, decoding, layers=self.head.config.layers,
            cut_long_answers=self.cut_long_answers, on_transcript=on_transcript,
        )  # fmt: skip
        try:
            while calls := (yield from answer.write_part()):
                while not may_call():
                    yield answer.nothing()
                results: list[CallResult] = []
                for call in calls:
                    running = conversation.begin_call(call)
                    while (result := running.wait(WAIT_S)) is None:
                        yield answer.nothing()
                    results.append(result)
                    on_call(result)
                answer.go_on_after(results)
        except (GeneratorExit, KeyboardInterrupt):
            answer.remember()
            raise
        answer.remember()


def tokenize_within_limit(text: str, tokenizer: PreTrainedTokenizerBase) -> TeacherForcedAnswer:
    """`teacher_forced_answer`; also raises InputError if the text is too long for the head."""
    spoken = teacher_forced_answer(text, tokenizer)
    if len(spoken.ids_S) > MAX_ANSWER_TOKENS:
        raise InputError(
            f"the text has {len(spoken.ids_S)} tokens, at most {MAX_ANSWER_TOKENS} can be spoken "
            "at once: split it"
        )
    return spoken


def load_talker(
    gemma: str,
    finetune: Path | None,
    mimi: str,
    head: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quantize: QuantizeName = "none",
    max_new_tokens: int = MAX_ANSWER_TOKENS,
    cut_long_answers: bool = False,
    allow_mixture: bool = False,
    voice: str | None = None,
    voice_recording: Path | None = None,
) -> Talker:
    """Load Gemma, Mimi and a head that fit together.

    Args:
        quantize: precision of Gemma's decoder. A head may have learned from states in another one:
            `pipeline.compare_precision` shows what that costs.
        voice, voice_recording: the voice to speak in, as `voices.choose_voice`.

    Raises:
        InputError: one cannot be loaded, the head was trained for another Gemma or Mimi, they
            belong to different audio towers or quantisers (unless `allow_mixture`), the head does
            not know the voice, or `max_new_tokens` is more than a head can speak.
    """
    if not 1 <= max_new_tokens <= MAX_ANSWER_TOKENS:
        raise InputError(
            f"--max-new-tokens must be between 1 and {MAX_ANSWER_TOKENS}, got {max_new_tokens}"
        )
    speech_head = load_head(head, device=device)
    codec = load_mimi(mimi, num_codebooks=speech_head.config.num_codebooks, device=device)
    spoken_in = choose_voice(speech_head, codec, voice, voice_recording)  # before Gemma is loaded
    conversation = load_conversation(
        gemma, finetune, device=device, dtype=dtype, quantize=quantize,
        max_new_tokens=max_new_tokens,
    )  # fmt: skip
    refuse_misfit(speech_head, conversation.model, codec)
    refuse_mixture(
        {f"--head {head}": speech_head.config.origin, **conversation.origins}, allowed=allow_mixture
    )
    return Talker(conversation, speech_head, codec, cut_long_answers, spoken_in)


def refuse_misfit(
    head: SpeechHead | ParallelHead,
    gemma: AnyGemma,
    mimi: Mimi,
    *,
    flag: str = "--head",
) -> None:
    """Raise InputError if a head was trained for another width of Gemma or another Mimi."""
    width = gemma.config.text_config.hidden_size
    if width != head.config.state_width:
        raise InputError(
            f"--gemma is {width} wide, {flag} was trained on a Gemma {head.config.state_width} wide"
        )
    refuse_other_codec(
        mimi, expected_by=f"{flag} was trained on", num_codebooks=head.config.num_codebooks,
        codebook_size=head.config.codebook_size, frame_rate_hz=head.config.frame_rate_hz,
    )  # fmt: skip
