"""The generation loop of the speech head: tokens go in as they are generated, frames come out.

    stream = HeadStream(head, "answer-1", Sampling(seed=0))
    for tokens in stream_answer(...):
        stream.push(tokens)
        while stream.can_step:
            play(stream.step())
    stream.close()
    while stream.can_step:
        play(stream.step())

A frame needs only the token under its cursor and the two after it. So the same frames come out
however the tokens arrive: one by one from Gemma, or all at once from a finished text.

`step_together` computes the next frame of several utterances in one pass, whenever each began.
"""

# A utterances that take a step, R rows of them (two each with guidance), S answer tokens, K
# codebooks, W width of the head, E width of a voice

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from commands.errors import InputError
from gemma4.sequence_cache import SequenceCache, join
from speech_head.answer import MAX_ANSWER_TOKENS, AnswerTokens
from speech_head.head_batch import HeadExample
from speech_head.model import LOOK_AHEAD, SpeechHead
from stage2_speechless.frame_decoder import guide
from stage2_speechless.sampling import refuse_bad_sampling, sample_codes, utterance_uniforms

# How an utterance ended: by itself; cut off after the whole text was spoken, but without an end of
# speech; cut off before the whole text was spoken.
End = Literal["ended", "runaway", "cut short"]
DEFAULT_GUIDANCE = 1.5
# Two seconds: no token takes as long; a head that stays on one longer is repeating its sounds.
MAX_FRAMES_PER_TOKEN = 25


@dataclass(frozen=True)
class Sampling:
    """How frames are sampled.

    Attributes:
        seed: another seed speaks the same text differently.
        temperature: as in `sample_codes`. Low, because the demo's dev answers are then understood
            best (WER at 0.7 / 0.5 / 0.3 / 0.2 / 0: 0.13-0.15 / 0.12 / 0.08-0.09 / 0.10 / 0.10).
        top_k: as in `sample_codes`.
        pace: added to the logits of advancing to the next token; above 0 is faster.
        guidance: classifier-free guidance: above 1, the text has more influence on the codes than
            the head gives it. Values other than 1 need a head trained with text dropout, and twice
            the computation. None is 1.5 for such a head, 1 for any other. On the demo's dev answers
            (WER, two seeds): 0.085 without text dropout; with it 0.117 at 1, 0.070 at 1.5, 0.083 at
            2, 0.127 at 2.5.
    """

    seed: int = 0
    temperature: float = 0.3
    top_k: int = 50
    pace: float = 0.0
    guidance: float | None = None

    def __post_init__(self) -> None:
        refuse_bad_sampling(self.temperature, self.top_k)


def frame_budget(num_tokens: int) -> int:
    """Most frames that an answer may take: a third of a second per token, plus two seconds.

    Source: `max_frames` of Kyutai's Pocket TTS, transformers/models/pocket_tts.
    """
    return math.ceil((num_tokens / 3 + 2) * 12.5)


@dataclass(frozen=True)
class SpokenFrames:
    """An utterance, completely spoken.

    Attributes:
        codes_FK: int64, Mimi codes.
        end: how it ended.
        num_pushed: tokens from which the cursor had to be moved on (see `HeadStream.num_pushed`).
    """

    codes_FK: Tensor
    end: End
    num_pushed: int


class HeadStream:
    """One utterance being spoken.

    Attributes:
        cursor: the token under the cursor at each frame so far.
        end: how the utterance ended; None while it is being spoken.
        guidance: the guidance that is used.
        num_pushed: number of tokens at which the cursor stood for `MAX_FRAMES_PER_TOKEN` and was
            moved on, to prevent repetition.
    """

    def __init__(
        self, head: SpeechHead, id_: str, sampling: Sampling, voice_E: Tensor | None = None
    ) -> None:
        """
        Args:
            id_: with the seed, it determines the utterance's random numbers.
            voice_E: the voice to speak in, of a head that knows several; None for none.

        Raises:
            InputError: guidance is set, but the head was trained without text dropout.
        """
        assert not head.training, "call .eval() before generating"
        can_be_guided = head.config.text_dropout > 0
        if sampling.guidance not in (None, 1) and not can_be_guided:
            raise InputError("--guidance needs a head trained with --text-dropout")
        self.head = head
        default = DEFAULT_GUIDANCE if can_be_guided else 1.0
        self.guidance = default if sampling.guidance is None else sampling.guidance
        self.sampling = sampling
        self.cursor: list[int] = []
        self.end: End | None = None
        self.num_pushed = 0
        self._tokens_SW = head.start_of_speech(0)  # S grows
        self._is_closed = False
        self._next_cursor = 0
        num_numbers = head.config.num_codebooks + 1  # the cursor's step is drawn last
        self._uniforms = utterance_uniforms(
            sampling.seed, id_, frame_budget(MAX_ANSWER_TOKENS) + 1, num_numbers
        ).to(head.device)
        num_rows = 1 if self.guidance == 1 else 2  # with the text, and without
        self._cache = SequenceCache(head.temporal.config, num_rows=num_rows)
        self._before_W = head.start_of_speech(1)[0]
        self._voice_W: Tensor | None = None
        if voice_E is not None:
            with torch.no_grad():
                self._voice_W = head.read_voice(voice_E.to(head.device))
        self._num_frames = 0

    @torch.no_grad()
    def push(self, tokens: AnswerTokens | HeadExample) -> None:
        """Add the utterance's next tokens."""
        device = self.head.device
        read_1SW = self.head.read_tokens(
            tokens.states_SLD[None].to(device), tokens.embeddings_SD[None].to(device)
        )
        self._tokens_SW = torch.cat([self._tokens_SW, read_1SW[0]])

    def close(self) -> None:
        """Mark the utterance as complete; its last token is the one that closes the turn."""
        self._is_closed = True

    @property
    def can_step(self) -> bool:
        """Whether there is another step, and the tokens for it are available."""
        if self.end is not None:
            return False
        return self._is_closed or self._next_cursor + LOOK_AHEAD < len(self._tokens_SW)

    def step(self) -> Tensor | None:
        """Sample the next frame.

        Returns:
            codes_K, int64, on the CPU; None if the utterance ends at this step.
        """
        [codes_K] = step_together([self])
        return codes_K

    @property
    def _step_cursor(self) -> int:
        """The token under the cursor in the next step."""
        return min(self._next_cursor, len(self._tokens_SW) - 1)

    @property
    def _is_at_last(self) -> bool:
        """Whether that is the token that closes the turn: speech ends there, never before."""
        return self._is_closed and self._step_cursor == len(self._tokens_SW) - 1

    def _take_frame(self, embedded_W: Tensor, advance: int) -> None:
        cursor, is_last = self._step_cursor, self._is_at_last
        self._before_W = embedded_W
        self._num_frames += 1
        self.cursor.append(cursor)
        stood = self.cursor[-MAX_FRAMES_PER_TOKEN:]
        is_stuck = len(stood) == MAX_FRAMES_PER_TOKEN and stood[0] == cursor
        if advance == 0 and is_stuck and not is_last:
            advance = 1
            self.num_pushed += 1
        self._next_cursor = cursor + advance
        # Based on the cursor, not on the tokens so far, which depend on how fast Gemma writes.
        if self._num_frames >= frame_budget(cursor + 1):
            self.end = "runaway" if is_last else "cut short"


@torch.no_grad()
def step_together(streams: Sequence[HeadStream]) -> list[Tensor | None]:
    """Sample the next frame of every utterance, in one pass.

    An utterance is the same alone or beside others, up to the rounding of the logits.

    Args:
        streams: at least one; of the same head, and sampled in the same way but for the seed.

    Returns:
        As `HeadStream.step`, for each.
    """
    assert all(stream.can_step for stream in streams), "push tokens before stepping"
    head, sampling, guidance = streams[0].head, streams[0].sampling, streams[0].guidance
    states_AW, unconditional_AW = _temporal_step(streams)
    uniforms_AK = torch.stack([s._uniforms[s._num_frames] for s in streams])
    logits_AV = head.code0_head(states_AW)
    if unconditional_AW is not None:
        logits_AV = guide(logits_AV, head.code0_head(unconditional_AW), guidance)
    is_last_A = torch.tensor([stream._is_at_last for stream in streams])
    logits_AV[~is_last_A, head.end_of_speech] = -torch.inf
    code0_A = sample_codes(
        logits_AV, uniforms_AK[:, 0], temperature=sampling.temperature, top_k=sampling.top_k
    )
    ends_A = code0_A == head.end_of_speech
    for row in ends_A.nonzero()[:, 0].tolist():
        streams[row].end = "ended"
    frames: list[Tensor | None] = [None for _ in streams]
    kept = (~ends_A).nonzero()[:, 0]
    if len(kept) == 0:
        return frames
    codes_AK = head.frame_decoder.generate(
        states_AW[kept], code0_A[kept], uniforms_AK[kept, 1:-1],
        temperature=sampling.temperature, top_k=sampling.top_k, guidance=guidance,
        unconditional_ND=None if unconditional_AW is None else unconditional_AW[kept],
    )  # fmt: skip
    advance_logits = head.advance_head(states_AW[kept])
    advance_logits[:, 1:] += sampling.pace
    advance_A = sample_codes(
        advance_logits, uniforms_AK[kept, -1], temperature=sampling.temperature, top_k=0
    )
    embedded_AW = head.embed_frames(codes_AK[:, None])[:, 0]
    steps = zip(kept.tolist(), codes_AK.cpu(), embedded_AW, advance_A.tolist(), strict=True)
    for row, codes_K, embedded_W, advance in steps:
        streams[row]._take_frame(embedded_W, advance)
        frames[row] = codes_K
    return frames


def _temporal_step(streams: Sequence[HeadStream]) -> tuple[Tensor, Tensor | None]:
    """States with the text and, if guidance needs them, states without any text."""
    head, is_guided = streams[0].head, streams[0].guidance != 1
    windows = [s._tokens_SW[s._step_cursor : s._step_cursor + LOOK_AHEAD + 1] for s in streams]
    windows_AXW = pad_sequence(windows, batch_first=True)
    first_A1 = torch.zeros(len(streams), 1, dtype=torch.long, device=windows_AXW.device)
    text_AW = head.text_under_cursor(windows_AXW, first_A1)[:, 0]
    # The voice is heard in both rows of an utterance: only the text is guided towards.
    inputs_RW = torch.stack(
        [s._before_W if s._voice_W is None else s._before_W + s._voice_W for s in streams]
    )
    if is_guided:
        inputs_RW = inputs_RW.repeat_interleave(2, dim=0)
        inputs_RW[::2] += text_AW
    else:
        inputs_RW = inputs_RW + text_AW
    batch = join([s._cache for s in streams])
    states_RW = head.temporal_states(
        inputs_RW[:, None], batch.cache, **batch.masks(inputs_RW.device)
    )[:, 0]
    return (states_RW[::2], states_RW[1::2]) if is_guided else (states_RW, None)


def speak_answers(
    head: SpeechHead,
    answers: Sequence[AnswerTokens | HeadExample],
    ids: Sequence[str],
    sampling: Sampling,
    *,
    voices: Sequence[Tensor | None] | None = None,
) -> list[SpokenFrames]:
    """Speak a batch of complete answers, each in its own voice `[E]` if voices are given.

    An answer gets the same codes as alone, or as in a stream whose tokens come one by one, up to
    the rounding of the logits.
    """
    spoken_in = zip(ids, voices or [None] * len(ids), strict=True)
    streams = [HeadStream(head, id_, sampling, voice_E) for id_, voice_E in spoken_in]
    for stream, tokens in zip(streams, answers, strict=True):
        stream.push(tokens)
        stream.close()
    frames: list[list[Tensor]] = [[] for _ in answers]
    while speaking := [i for i, stream in enumerate(streams) if stream.can_step]:
        stepped = step_together([streams[i] for i in speaking])
        for i, codes_K in zip(speaking, stepped, strict=True):
            if codes_K is not None:
                frames[i].append(codes_K)
    spoken = []
    for codes, stream in zip(frames, streams, strict=True):
        assert codes and stream.end is not None
        spoken.append(SpokenFrames(torch.stack(codes), stream.end, stream.num_pushed))
    return spoken
