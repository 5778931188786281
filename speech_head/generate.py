"""Speech from text: Gemma's tokens -> frames -> samples, while the tokens are being generated.

talker = load_talker("google/gemma-4-E4B-it", None, "kyutai/mimi", "runs/head", ...)
speech = Speech(talker, Sampling())
for samples in speech.say(stream_answer(talker.gemma, talker.tokenizer, turns)):
    play(samples)
print(speech.text, speech.words, speech.end)
"""

# S answer tokens, F Mimi frames (12.5 per second), K codebooks, N samples (24,000 per second)

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import Gemma4ForConditionalGeneration, PreTrainedTokenizerBase

from commands.errors import InputError
from commands.origins import refuse_mixture
from data_manifests.twi_text import is_speakable
from gemma4.weight_quantization import QuantizeName
from speech_head.answer import (
    MAX_ANSWER_TOKENS,
    AnswerTokens,
    TeacherForcedAnswer,
    stream_answer,
    teacher_forced_answer,
)
from speech_head.mimi import Mimi, MimiStreamDecoder, load_mimi, refuse_other_codec
from speech_head.model import SpeechHead, load_head
from speech_head.parallel import ParallelHead
from speech_head.stream import End, HeadStream, Sampling
from speech_head.word_times import WordTime, word_times
from stage3_finetune.conversation import Conversation, load_conversation
from stage3_finetune.dialogue import Turn, split_chain
from stage3_finetune.generate import BegunPrompt


@dataclass(frozen=True)
class Talker:
    """Gemma with its conversation so far, and the models that make it speak; all frozen."""

    conversation: Conversation
    head: SpeechHead
    mimi: Mimi
    cut_long_answers: bool = False

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.conversation.tokenizer

    def answer(
        self,
        question: Turn,
        begun: BegunPrompt | None = None,
        *,
        on_transcript: Callable[[str], None] = lambda transcript: None,
    ) -> Generator[AnswerTokens]:
        """Let Gemma answer, and yield what is to be spoken, token by token.

        An adapter trained with the chain target first writes a transcript of the question. For
        each of its tokens, a piece without tokens is yielded; if it wrote none, all of the text is
        the answer, which is known only at its end. Question and answer are added to the
        conversation once the answer is complete. If the generator is closed or Ctrl-C interrupts it
        earlier, the part written so far is added. An answer that cannot be pronounced is not added,
        nor is its question.

        Args:
            question: the user's turn; if spoken, with embeddings.
            begun: the prompt, if a part of it is in Gemma's cache already; no room is made then.
            on_transcript: called with the transcript, if there is one, before its answer.

        Raises:
            InputError: as `Conversation.make_room` and `stream_answer`.
        """
        conversation = self.conversation
        if begun is None:
            conversation.make_room(question)
        may_be_transcript = question.spoken and conversation.writes_transcripts
        written: list[int] = []
        held_back: list[AnswerTokens] = []

        def remember() -> None:
            text = self.tokenizer.decode(written, skip_special_tokens=True).strip()
            has_transcript = question.spoken and conversation.writes_transcripts
            answer = split_chain(text)[1] if has_transcript else text
            if is_speakable(answer):
                conversation.remember(question, text)

        try:
            for tokens in stream_answer(
                conversation.model,
                conversation.tokenizer,
                [*conversation.turns, question],
                layers=self.head.config.layers,
                max_tokens=conversation.max_new_tokens,
                cut_long_answers=self.cut_long_answers,
                begun=begun,
            ):
                written += tokens.ids_S.tolist()
                if not may_be_transcript:
                    yield tokens
                    continue
                if transcript_length(tokens.ids_S.tolist(), self.tokenizer):
                    may_be_transcript, held_back = False, []
                    text = self.tokenizer.decode(written, skip_special_tokens=True)
                    on_transcript(text.partition("\n")[0].strip())
                else:
                    held_back.append(tokens)
                yield tokens.first(0)
            yield from held_back
        except (GeneratorExit, KeyboardInterrupt):
            remember()
            raise
        remember()


class Speech:
    """One answer being spoken.

    Attributes:
        ids: tokens so far, including the one that closes the turn.
        frames: Mimi codes so far, each `[K]`.
        end: how the speech ended; None until then.
    """

    def __init__(self, talker: Talker, sampling: Sampling, *, id_: str = "answer") -> None:
        self.talker = talker
        self.ids: list[int] = []
        self.frames: list[Tensor] = []
        self._stream = HeadStream(talker.head, [id_], sampling)
        self._decoder = MimiStreamDecoder(talker.mimi)

    def say(self, answer: Iterable[AnswerTokens]) -> Generator[np.ndarray]:
        """Speak tokens as they arrive.

        Args:
            answer: tokens of the whole answer, in pieces of any size.

        Yields:
            float32 `[1920]`, 80 ms at a time, as soon as the required tokens are available.

        Raises:
            InputError: the answer has no letter to pronounce; also whatever `answer` raises.
        """
        for tokens in answer:
            yield from self.add(tokens)
        yield from self.close()

    def add(self, tokens: AnswerTokens) -> Generator[np.ndarray]:
        """Speak the next tokens, as far as can be said before the ones after them; as `say`."""
        if len(tokens.ids_S):
            self.ids += tokens.ids_S.tolist()
            self._stream.push(0, tokens)
            yield from self._speak()

    def close(self) -> Generator[np.ndarray]:
        """Speak the rest, now that all tokens have been added; as `say`."""
        if not is_speakable(self.text):
            raise InputError(f"no answer: nothing to pronounce in {self.text!r}")
        self._stream.close(0)
        yield from self._speak()

    @property
    def text(self) -> str:
        """The answer so far; a letter split over several tokens is added with the last of them."""
        text: str = self.talker.tokenizer.decode(self.ids, skip_special_tokens=True)
        return text.rstrip("\N{REPLACEMENT CHARACTER}").strip()

    @property
    def end(self) -> End | None:
        return self._stream.ends[0]

    @property
    def num_pushed(self) -> int:
        """Number of tokens from which the cursor had to be moved on (`HeadStream.pushes`)."""
        return self._stream.pushes[0]

    @property
    def words(self) -> list[WordTime]:
        """Words spoken at least in part, with their times."""
        return word_times(
            self.ids, self._stream.cursors[0], self.talker.tokenizer, self.talker.mimi.frame_rate_hz
        )

    def _speak(self) -> Iterator[np.ndarray]:
        while self._stream.can_step:
            for codes_K in self._stream.step().values():
                self.frames.append(codes_K)
                yield self._decoder.decode(codes_K[None, None])[0].cpu().numpy()


def tokenize_within_limit(text: str, tokenizer: PreTrainedTokenizerBase) -> TeacherForcedAnswer:
    """`teacher_forced_answer`; also raises InputError if the text is too long for the head."""
    spoken = teacher_forced_answer(text, tokenizer)
    if len(spoken.ids_S) > MAX_ANSWER_TOKENS:
        raise InputError(
            f"the text has {len(spoken.ids_S)} tokens, at most {MAX_ANSWER_TOKENS} can be spoken "
            "at once: split it"
        )
    return spoken


def transcript_length(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> int:
    """How many of the tokens written in reply to a spoken question are its transcript and the line
    break after it (the chain target); 0 without a line break: then all of it is the answer."""
    for i, id_ in enumerate(ids):
        if "\n" in tokenizer.decode([id_]):
            return i + 1
    return 0


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
) -> Talker:
    """Load Gemma, Mimi and a head that fit together.

    Args:
        quantize: precision of Gemma's decoder. A head may have learned from states in another one:
            `pipeline.compare_precision` shows what that costs.

    Raises:
        InputError: one cannot be loaded, the head was trained for another Gemma or Mimi, they
            belong to different audio towers or quantisers (unless `allow_mixture`), or
            `max_new_tokens` is more than a head can speak.
    """
    if not 1 <= max_new_tokens <= MAX_ANSWER_TOKENS:
        raise InputError(
            f"--max-new-tokens must be between 1 and {MAX_ANSWER_TOKENS}, got {max_new_tokens}"
        )
    speech_head = load_head(head, device=device)
    codec = load_mimi(mimi, num_codebooks=speech_head.config.num_codebooks, device=device)
    conversation = load_conversation(
        gemma, finetune, device=device, dtype=dtype, quantize=quantize,
        max_new_tokens=max_new_tokens,
    )  # fmt: skip
    refuse_misfit(speech_head, conversation.model, codec)
    refuse_mixture(
        {f"--head {head}": speech_head.config.origin, **conversation.origins}, allowed=allow_mixture
    )
    return Talker(conversation, speech_head, codec, cut_long_answers)


def refuse_misfit(
    head: SpeechHead | ParallelHead,
    gemma: Gemma4ForConditionalGeneration,
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
