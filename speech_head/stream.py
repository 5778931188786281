"""The generation loop of the speech head: tokens go in as they are generated, frames come out.

    stream = HeadStream(head, ["answer-1"], Sampling(seed=0))
    for tokens in stream_answer(...):
        stream.push(0, tokens)
        while stream.can_step:
            play(stream.step())
    stream.close(0)
    while stream.can_step:
        play(stream.step())

A frame needs only the token under its cursor and the two after it. So the same frames come out
however the tokens arrive: one by one from Gemma, or all at once from a finished text.
"""

# B utterances, A of them still speaking, S answer tokens, K codebooks, W width of the head

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from commands.errors import InputError
from speech_head.answer import MAX_ANSWER_TOKENS, AnswerTokens
from speech_head.data import HeadExample
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
        num_pushed: tokens from which the cursor had to be moved on (see `HeadStream.pushes`).
    """

    codes_FK: Tensor
    end: End
    num_pushed: int


class HeadStream:
    """B utterances being spoken; those that end leave the loop.

    Attributes:
        cursors: token under the cursor at each frame so far, one list per utterance.
        ends: how each utterance ended; None while it is being spoken.
        guidance: the guidance that is used.
        pushes: for each utterance, the number of tokens at which the cursor stood for
            `MAX_FRAMES_PER_TOKEN` and was moved on, to prevent repetition.
    """

    def __init__(self, head: SpeechHead, ids: Sequence[str], sampling: Sampling) -> None:
        """
        Args:
            ids: one per utterance; with the seed, an id determines the utterance's random numbers.

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
        self.cursors: list[list[int]] = [[] for _ in ids]
        self.ends: list[End | None] = [None for _ in ids]
        self.pushes = [0 for _ in ids]
        self._tokens = [head.start_of_speech(0) for _ in ids]  # [S, W] each, S growing
        self._is_closed = [False for _ in ids]
        self._next_cursor = [0 for _ in ids]
        num_numbers = head.config.num_codebooks + 1  # the cursor's step is drawn last
        self._uniforms = torch.stack(
            [
                utterance_uniforms(
                    sampling.seed, id_, frame_budget(MAX_ANSWER_TOKENS) + 1, num_numbers
                )
                for id_ in ids
            ]
        ).to(head.device)
        self._cache = DynamicCache(config=head.temporal.config)
        self._before_AW = head.start_of_speech(len(ids))
        self._num_frames = 0

    @torch.no_grad()
    def push(self, utterance: int, tokens: AnswerTokens | HeadExample) -> None:
        """Add the next tokens of an utterance."""
        device = self._before_AW.device
        read_1SW = self.head.read_tokens(
            tokens.states_SLD[None].to(device), tokens.embeddings_SD[None].to(device)
        )
        self._tokens[utterance] = torch.cat([self._tokens[utterance], read_1SW[0]])

    def close(self, utterance: int) -> None:
        """Mark an utterance as complete; its last token is the one that closes the turn."""
        self._is_closed[utterance] = True

    @property
    def can_step(self) -> bool:
        """Whether any utterance is unfinished, and the tokens for the next frame are available."""
        speaking = self._speaking()
        return bool(speaking) and all(
            self._is_closed[i] or self._next_cursor[i] + LOOK_AHEAD < len(self._tokens[i])
            for i in speaking
        )

    @torch.no_grad()
    def step(self) -> dict[int, Tensor]:
        """Sample the next frame of every unfinished utterance.

        Returns:
            utterance -> codes_K, int64, on the CPU; without the utterances that end at this step.
        """
        assert self.can_step, "push tokens before stepping"
        head, sampling = self.head, self.sampling
        speaking = self._speaking()
        cursors = [min(self._next_cursor[i], len(self._tokens[i]) - 1) for i in speaking]
        states_AW, unconditional_AW = self._temporal_step(speaking, cursors)
        uniforms_AK = self._uniforms[speaking, self._num_frames]
        logits_AV = head.code0_head(states_AW)
        if unconditional_AW is not None:
            logits_AV = guide(logits_AV, head.code0_head(unconditional_AW), self.guidance)
        # Speech ends at the token that closes the turn, never before it.
        is_last = [
            self._is_closed[i] and cursor == len(self._tokens[i]) - 1
            for i, cursor in zip(speaking, cursors, strict=True)
        ]
        logits_AV[~torch.tensor(is_last), head.end_of_speech] = -torch.inf
        code0_A = sample_codes(
            logits_AV, uniforms_AK[:, 0], temperature=sampling.temperature, top_k=sampling.top_k
        )
        ends_A = code0_A == head.end_of_speech
        for row in ends_A.nonzero()[:, 0].tolist():
            self.ends[speaking[row]] = "ended"
        kept = (~ends_A).nonzero()[:, 0]
        if len(kept) == 0:
            return {}
        codes_AK = head.frame_decoder.generate(
            states_AW[kept], code0_A[kept], uniforms_AK[kept, 1:-1],
            temperature=sampling.temperature, top_k=sampling.top_k, guidance=self.guidance,
            unconditional_ND=None if unconditional_AW is None else unconditional_AW[kept],
        )  # fmt: skip
        advance_logits = head.advance_head(states_AW[kept])
        advance_logits[:, 1:] += sampling.pace
        advance_A = sample_codes(
            advance_logits, uniforms_AK[kept, -1], temperature=sampling.temperature, top_k=0
        )
        self._num_frames += 1
        for row, advance in zip(kept.tolist(), advance_A.tolist(), strict=True):
            self._move_on(speaking[row], cursors[row], advance, is_last[row])
        frames = {speaking[row]: c for row, c in zip(kept.tolist(), codes_AK.cpu(), strict=True)}
        self._keep(
            [row for row in kept.tolist() if self.ends[speaking[row]] is None], kept, codes_AK
        )
        return frames

    def _temporal_step(
        self, speaking: list[int], cursors: list[int]
    ) -> tuple[Tensor, Tensor | None]:
        """States with the text and, if guidance needs them, states without any text."""
        windows = [
            self._tokens[i][cursor : cursor + LOOK_AHEAD + 1]
            for i, cursor in zip(speaking, cursors, strict=True)
        ]
        windows_AXW = pad_sequence(windows, batch_first=True)
        first_A1 = torch.zeros(len(speaking), 1, dtype=torch.long, device=windows_AXW.device)
        text_A1W = self.head.text_under_cursor(windows_AXW, first_A1)
        before_A1W = self._before_AW[:, None]
        if self.guidance == 1:
            return self.head.temporal_states(before_A1W + text_A1W, self._cache)[:, 0], None
        inputs_X1W = torch.cat([before_A1W + text_A1W, before_A1W])
        states_AW, unconditional_AW = self.head.temporal_states(inputs_X1W, self._cache)[
            :, 0
        ].chunk(2)
        return states_AW, unconditional_AW

    def _move_on(self, utterance: int, cursor: int, advance: int, is_last: bool) -> None:
        self.cursors[utterance].append(cursor)
        stood = self.cursors[utterance][-MAX_FRAMES_PER_TOKEN:]
        is_stuck = len(stood) == MAX_FRAMES_PER_TOKEN and stood[0] == cursor
        if advance == 0 and is_stuck and not is_last:
            advance = 1
            self.pushes[utterance] += 1
        self._next_cursor[utterance] = cursor + advance
        # Based on the cursor, not on the tokens so far, which depend on how fast Gemma writes.
        if self._num_frames >= frame_budget(cursor + 1):
            self.ends[utterance] = "runaway" if is_last else "cut short"

    def _keep(self, rows: list[int], kept: Tensor, codes_AK: Tensor) -> None:
        """Keep the rows that go on: their keys and values, and the frame just sampled."""
        if not rows:
            return
        if (num_before := len(self._before_AW)) > len(rows):
            both = rows if self.guidance == 1 else [*rows, *(num_before + r for r in rows)]
            self._cache.batch_select_indices(torch.tensor(both, device=kept.device))
        is_going_on = torch.isin(kept, torch.tensor(rows, device=kept.device))
        self._before_AW = self.head.embed_frames(codes_AK[is_going_on][:, None])[:, 0]

    def _speaking(self) -> list[int]:
        return [i for i, end in enumerate(self.ends) if end is None]


def speak_answers(
    head: SpeechHead,
    answers: Sequence[AnswerTokens | HeadExample],
    ids: Sequence[str],
    sampling: Sampling,
) -> list[SpokenFrames]:
    """Speak a batch of complete answers.

    An answer gets the same codes as alone, or as in a stream whose tokens come one by one, up to
    the rounding of the logits.
    """
    stream = HeadStream(head, ids, sampling)
    for i, tokens in enumerate(answers):
        stream.push(i, tokens)
        stream.close(i)
    frames: list[list[Tensor]] = [[] for _ in answers]
    while stream.can_step:
        for i, codes_K in stream.step().items():
            frames[i].append(codes_K)
    spoken = []
    for codes, end, num_pushed in zip(frames, stream.ends, stream.pushes, strict=True):
        assert codes and end is not None
        spoken.append(SpokenFrames(torch.stack(codes), end, num_pushed))
    return spoken
