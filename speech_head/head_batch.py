"""What the speech head learns from: utterances, batches of them, and the losses of a batch."""

# B utterances, S answer tokens, F Mimi frames (12.5 per second), K codebooks, L Gemma layers,
# D width of Gemma, R frames of a recording that shows a voice

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

NO_VOICE = -1  # of a speaker whose voice is not kept by name


@dataclass(frozen=True)
class HeadExample:
    """One utterance: its text as Gemma's tokens, its speech, and their alignment.

    Attributes:
        states_SLD: states that predicted each token (see `answer.py`).
        embeddings_SD: Gemma's embeddings of the tokens.
        codes_FK: int64, Mimi codes.
        cursor_F: int64 `[F + 1]`, token of each frame (see `alignment.cursor_path`).
    """

    states_SLD: Tensor
    embeddings_SD: Tensor
    codes_FK: Tensor
    cursor_F: Tensor


@dataclass(frozen=True)
class HeadBatch:
    """Utterances, padded at the end.

    Attributes:
        states_BSLD: float32.
        embeddings_BSD: float32.
        token_mask_BS: bool, True at real tokens.
        codes_BFK: int64; 0 at padding.
        cursor_BF: int64 `[B, F + 1]`.
        frame_mask_BF: bool, True at real frames.
        reference_BRK: int64, Mimi codes of a recording that shows each voice; None if none does.
        reference_mask_BR: bool, True at its real frames.
        voice_B: int64, the voice that it shows, of those known by name; `NO_VOICE` for another.
            None if that is not to be learned.
    """

    states_BSLD: Tensor
    embeddings_BSD: Tensor
    token_mask_BS: Tensor
    codes_BFK: Tensor
    cursor_BF: Tensor
    frame_mask_BF: Tensor
    reference_BRK: Tensor | None = None
    reference_mask_BR: Tensor | None = None
    voice_B: Tensor | None = None

    def with_voices(
        self, references: Sequence[Tensor], voice_B: Tensor | None = None
    ) -> "HeadBatch":
        """The same, with a recording that shows the voice of each.

        Args:
            references: Mimi codes `[R, K]` of each.
            voice_B: as above.
        """
        codes_BRK = pad_sequence(list(references), batch_first=True)
        mask_BR = _mask([len(codes_RK) for codes_RK in references])
        return replace(self, reference_BRK=codes_BRK, reference_mask_BR=mask_BR, voice_B=voice_B)

    def to(self, device: torch.device) -> "HeadBatch":
        tensors = {name: value for name, value in vars(self).items() if value is not None}
        return HeadBatch(**{name: value.to(device) for name, value in tensors.items()})


@dataclass(frozen=True)
class HeadLoss:
    """Cross-entropies in nats.

    Attributes:
        total: weighted mean of `codebooks_K`, plus `advance`, plus `end` spread over the frames.
        codebooks_K: loss of each codebook, per frame.
        advance: loss of the cursor's step, per frame.
        end: loss of the end of speech, per utterance.
        voice: loss of the speaker's name, from the voice that was heard, per utterance; None if
            there is none to be learned.
        gate: not a loss: share of Gemma's states in what is read, mean over tokens and channels;
            None if there is no gate.
    """

    total: Tensor
    codebooks_K: Tensor
    advance: Tensor
    end: Tensor
    gate: Tensor | None
    voice: Tensor | None = None

    def as_numbers(self) -> dict[str, float]:
        """The losses as numbers, for the training log."""
        parts = {"loss": self.total, "advance": self.advance, "end": self.end}
        if self.gate is not None:
            parts["gate"] = self.gate
        if self.voice is not None:
            parts["voice"] = self.voice
        codebooks = {f"codebook_{k}": float(loss) for k, loss in enumerate(self.codebooks_K)}
        return {name: value.item() for name, value in parts.items()} | codebooks


def collate(examples: Sequence[HeadExample]) -> HeadBatch:
    """Examples -> one batch, padded at the end."""
    frame_mask_BF = _mask([len(example.codes_FK) for example in examples])
    num_steps = frame_mask_BF.shape[1] + 1
    return HeadBatch(
        states_BSLD=pad_sequence([e.states_SLD for e in examples], batch_first=True),
        embeddings_BSD=pad_sequence([e.embeddings_SD for e in examples], batch_first=True),
        token_mask_BS=_mask([len(example.states_SLD) for example in examples]),
        codes_BFK=pad_sequence([e.codes_FK for e in examples], batch_first=True),
        cursor_BF=torch.stack(
            [torch.cat([e.cursor_F, e.cursor_F[-1:].expand(num_steps - len(e.cursor_F))])
             for e in examples]
        ),
        frame_mask_BF=frame_mask_BF,
    )  # fmt: skip


def _mask(lengths: list[int]) -> Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
