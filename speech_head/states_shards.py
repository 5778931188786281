"""Shards of the speech head's training data on disk; `data.py` describes and reads them."""

# S answer tokens, F Mimi frames (12.5 per second), K codebooks, D width of Gemma, N tokens

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from commands.atomic_write import remove, write_json_lines
from commands.tensor_files import read_tensors, save_tensors
from data_manifests.manifest import Utterance
from speech_head.answer import AnswerTokens

INDEX_KEYS = ("id", "text", "speaker", "dialect", "duration_s")


@dataclass(frozen=True)
class StatesRow:
    """What the head learns of one utterance: Gemma's tokens and states, Mimi's codes, and which
    token is spoken in each frame."""

    utterance: Utterance
    tokens: AnswerTokens
    codes_FK: Tensor
    cursor_F: Tensor


def write_shard(index_path: Path, number: int, rows: Sequence[StatesRow]) -> None:
    """Write the tensors first, the index last: a shard with an index is complete."""
    index, first_token, first_frame = [], 0, 0
    for row in rows:
        num_tokens, num_frames = len(row.tokens.ids_S), len(row.codes_FK)
        entry = {name: getattr(row.utterance, name) for name in INDEX_KEYS}
        entry |= {"first_token": first_token, "num_tokens": num_tokens}
        entry |= {"first_frame": first_frame, "num_frames": num_frames}
        index.append(entry)
        first_token, first_frame = first_token + num_tokens, first_frame + num_frames
    if rows:
        tensors = {
            "states": torch.cat([row.tokens.states_SLD.bfloat16().cpu() for row in rows]),
            "token_ids": torch.cat([row.tokens.ids_S.int() for row in rows]),
            "codes": torch.cat([row.codes_FK.short().cpu() for row in rows]),
            "cursor": torch.cat([row.cursor_F.int() for row in rows]),
        }
        save_tensors(index_path.with_suffix(".safetensors"), tensors)
        ids_N = torch.cat([row.tokens.ids_S for row in rows]).cpu().tolist()
        rows_ND = torch.cat([row.tokens.embeddings_SD for row in rows]).bfloat16().cpu()
        _write_embeddings(
            index_path.with_name(f"embeddings_{number:05d}.safetensors"),
            dict(zip(ids_N, rows_ND, strict=True)),
        )
    write_json_lines(index_path, index)


def join_embeddings(folder: Path) -> None:
    """Put Gemma's embeddings of every token that occurs into one file, once each, and remove those
    of the shards."""
    joined = folder / "embeddings.safetensors"
    files = sorted(folder.glob("embeddings_*.safetensors"))
    rows: dict[int, Tensor] = {}
    # The joined file exists if an earlier attempt was killed while it removed the others.
    for path in [joined, *files] if joined.exists() else files:
        tensors = read_tensors(path)
        rows |= zip(tensors["token_ids"].tolist(), tensors["rows"].clone(), strict=True)
    _write_embeddings(joined, rows)
    for path in files:
        remove(path)


def _write_embeddings(path: Path, rows: Mapping[int, Tensor]) -> None:
    ids = sorted(rows)
    tensors = {"token_ids": torch.tensor(ids), "rows": torch.stack([rows[id_] for id_ in ids])}
    save_tensors(path, tensors)
