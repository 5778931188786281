"""Cached states: what `speech_head.states` wrote, read without loading it whole; and batches of it.

states/shard_00000.safetensors   "states" bfloat16 [N, L, D], "token_ids" int32 [N]: answers end
                                 to end; "codes" int16 [M, K]: recordings end to end;
                                 "cursor" int32 [M + utterances]: F + 1 values of each
       shard_00000.jsonl         one row an utterance: id, text, ..., where its rows are
       embeddings.safetensors    "token_ids" int64 [U], "rows" bfloat16 [U, D]: Gemma's
                                 embeddings of the tokens that occur
       format.json               widths and codebooks
"""

# B utterances, S answer tokens, F Mimi frames (12.5 per second), K codebooks, L Gemma layers,
# D width of Gemma

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from data_manifests.artifact import open_input, read_json
from data_manifests.config import InputError


@dataclass(frozen=True)
class StatesFormat:
    """What a head must be built for.

    Attributes:
        state_width: D.
        layers: the L layers of Gemma whose states there are, as in `answer.LAYERS`.
        num_codebooks: K.
        codebook_size: codes per codebook.
        frame_rate_hz: Mimi frames a second.
    """

    state_width: int
    layers: list[int]
    num_codebooks: int
    codebook_size: int
    frame_rate_hz: float


@dataclass(frozen=True)
class CachedUtterance:
    """Index row of one cached utterance."""

    id: str
    text: str
    speaker: str
    dialect: str
    duration_s: float
    shard: int
    position: int
    first_token: int
    num_tokens: int
    first_frame: int
    num_frames: int


@dataclass(frozen=True)
class HeadExample:
    """One utterance: its text as Gemma wrote it, its speech, and how the two go together.

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
    """Utterances padded behind.

    Attributes:
        states_BSLD: float32.
        embeddings_BSD: float32.
        token_mask_BS: bool, True at real tokens.
        codes_BFK: int64; 0 at padding.
        cursor_BF: int64 `[B, F + 1]`.
        frame_mask_BF: bool, True at real frames.
    """

    states_BSLD: Tensor
    embeddings_BSD: Tensor
    token_mask_BS: Tensor
    codes_BFK: Tensor
    cursor_BF: Tensor
    frame_mask_BF: Tensor

    def to(self, device: torch.device) -> "HeadBatch":
        return HeadBatch(*(tensor.to(device) for tensor in vars(self).values()))


class StatesFolder:
    """Read access to a folder of cached states.

    Attributes:
        format: widths and codebooks.
        utterances: index rows in the manifest's order.
        num_frames: Mimi frames in all.

    Raises:
        InputError: unfinished, not a states folder, or without a single utterance.
    """

    def __init__(self, folder: Path, *, flag: str = "--states") -> None:
        open_input(folder, made_by="speech_head.states", flag=flag)
        self.folder = folder
        self.format = StatesFormat(**read_json(folder / "format.json"))
        self.utterances = [
            CachedUtterance(shard=shard, position=position, **json.loads(line))
            for shard, index in enumerate(sorted(folder.glob("shard_*.jsonl")))
            for position, line in enumerate(index.read_text(encoding="utf-8").splitlines())
        ]
        self.num_frames = sum(u.num_frames for u in self.utterances)

    def read_all(self, utterances: Sequence[CachedUtterance]) -> list[HeadExample]:
        """Utterances in the order they are asked for; states and embeddings as float32."""
        return [self.read(utterance) for utterance in utterances]

    def read(self, utterance: CachedUtterance) -> HeadExample:
        """One utterance, as it is on disk."""
        shard = self._shards[utterance.shard]
        tokens = slice(utterance.first_token, utterance.first_token + utterance.num_tokens)
        frames = slice(utterance.first_frame, utterance.first_frame + utterance.num_frames)
        # The cursor has one value more than an utterance has frames.
        first = utterance.first_frame + utterance.position
        token_ids_U, rows_UD = self._embeddings
        row_S = torch.searchsorted(token_ids_U, shard["token_ids"][tokens].long())
        return HeadExample(
            states_SLD=shard["states"][tokens].float(),
            embeddings_SD=rows_UD[row_S].float(),
            codes_FK=shard["codes"][frames].long(),
            cursor_F=shard["cursor"][first : first + utterance.num_frames + 1].long(),
        )

    @cached_property
    def _shards(self) -> dict[int, dict[str, Tensor]]:
        shards = {}
        for number in sorted({utterance.shard for utterance in self.utterances}):
            with safe_open(self.folder / f"shard_{number:05d}.safetensors", framework="pt") as file:
                names = list(file.keys())
                shards[number] = {name: file.get_tensor(name) for name in names}
        return shards

    @cached_property
    def _embeddings(self) -> tuple[Tensor, Tensor]:
        table = load_file(self.folder / "embeddings.safetensors")
        return table["token_ids"], table["rows"]


def refuse_other_states(found: StatesFormat, expected: StatesFormat, *, flag: str) -> None:
    """InputError where a second folder of states does not fit the first."""
    for name, value in asdict(expected).items():
        if asdict(found)[name] != value:
            raise InputError(f"{flag} has {name} = {asdict(found)[name]}, --states has {value}")


def collate(examples: Sequence[HeadExample]) -> HeadBatch:
    """Examples -> one batch, padded behind."""
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
