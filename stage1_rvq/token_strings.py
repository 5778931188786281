"""Codes as strings of tokens, as the published card ships them: `twi_semantic_tokens*.jsonl`.

One utterance a row: id, text, and `semantic_tokens` (see `as_token_string`).
"""

# T frames (25 per second), K codebooks (coarsest first)

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from commands.atomic_write import write_json_lines
from commands.errors import InputError
from stage1_rvq.codes import read_codes

TOKENS_FILE = "twi_semantic_tokens.jsonl"
TRAIN_TOKENS_FILE = "twi_semantic_tokens_train.jsonl"


def as_token_string(codes_TK: Tensor) -> str:
    """Codes as tokens of a text model, frame by frame, coarsest codebook first.

    `<|sound_start|><|sound_0_0194|><|sound_1_1020|>...<|sound_end|>`: Ichigo's notation with the
    codebook added, since the eight codebooks do not share a vocabulary.
    """
    tokens = [
        f"<|sound_{k}_{code:04d}|>" for frame in codes_TK.tolist() for k, code in enumerate(frame)
    ]
    return "".join(["<|sound_start|>", *tokens, "<|sound_end|>"])


def write_token_strings(path: Path, folders: Sequence[Path], *, flag: str = "--codes") -> None:
    """Write the utterances of one or more folders of codes to one file.

    Raises:
        InputError: as `read_codes`; or two folders have an id in common.
    """
    rows, ids = [], set[str]()
    for folder in folders:
        for utterance in read_codes(folder, flag=flag):
            if utterance.id in ids:
                raise InputError(f"{flag} {folder}: {utterance.id!r} is in another folder too")
            ids.add(utterance.id)
            tokens = as_token_string(utterance.codes_TK)
            rows.append({"id": utterance.id, "text": utterance.text, "semantic_tokens": tokens})
    write_json_lines(path, rows)
