"""Run the audio tower over a manifest, shard by shard, decoding audio ahead.

Shared by `embed` (which keeps the embeddings) and `tokenize_corpus` (which keeps their codes).
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from commands.errors import InputError
from commands.shard import Shard
from commands.shards import join_rows, split_into_shards
from commands.sources import Sources, count_sources
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from data_manifests.manifest import Utterance, read_utterance_audio
from gemma4.gemma import AudioEncoder

UTTERANCES_PER_SHARD = 256
WINDOW_BATCHES = 8  # batches that are decoded together and sorted by length


def utterance_shards(utterances: Sequence[Utterance]) -> dict[int, Sequence[Utterance]]:
    """The shards of a manifest, 256 utterances each."""
    return split_into_shards(utterances, UTTERANCES_PER_SHARD)


def encode_shard(
    shard: Shard[Utterance],
    encoder: AudioEncoder,
    *,
    convert: Callable[[Tensor], Tensor],
    batch_size: int,
    num_workers: int,
    skip_bad_audio: bool,
) -> list[tuple[Utterance, Tensor]]:
    """Encode the utterances of a shard, and list unusable recordings in its rows "skipped".

    Args:
        shard: rows of a manifest.
        encoder: the audio tower.
        convert: turns float32 embeddings into what is kept, frame by frame: `[N, D]` -> `[N, ...]`.
        batch_size: utterances per forward pass.
        num_workers: threads that decode audio.
        skip_bad_audio: list unusable recordings and continue, instead of raising at the first one.

    Returns:
        (row, converted) of the others, in the manifest's order.

    Raises:
        InputError: an unusable recording; the message names manifest file and line.
    """
    kept, unusable = [], []
    for utterance, result in encode_utterances(
        shard.items, encoder, batch_size=batch_size, num_workers=num_workers, convert=convert
    ):
        shard.progress.update()
        if not isinstance(result, InputError):
            kept.append((utterance, result))
        elif skip_bad_audio:
            unusable.append({"id": utterance.id, "reason": str(result)})
        else:
            raise result
    shard.write_rows("skipped", unusable)
    return kept


def count_utterances(utterances: Iterable[Utterance]) -> Sources:
    """Utterances by corpus and licence."""
    return count_sources((u.corpus, u.license, u.duration_s) for u in utterances)


def count_skipped(folder: Path, num_utterances: int) -> int:
    """Join the shards' rows "skipped", and report on stderr how many there are.

    Raises:
        InputError: all utterances were skipped.
    """
    num_skipped = join_rows(folder, "skipped")
    path = folder / "skipped.jsonl"
    if num_skipped == num_utterances:
        raise InputError(f"all {num_skipped} recordings are unusable, see {path}")
    if num_skipped:
        print(f"{num_skipped} recordings skipped, listed in {path}", file=sys.stderr)
    return num_skipped


def encode_utterances(
    utterances: Sequence[Utterance],
    encoder: AudioEncoder,
    *,
    batch_size: int,
    num_workers: int,
    convert: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[tuple[Utterance, Tensor | InputError]]:
    """Embeddings `[T, D]` of utterances, in order, or the error that made one unusable.

    Utterances are batched by length within a window, which affects only speed; `convert` is given
    the frames of a batch end to end, and its result is yielded in place of the embeddings.
    """
    for window in _decode_ahead(utterances, batch_size * WINDOW_BATCHES, num_workers):
        results: dict[int, Tensor | InputError] = {}
        waveforms: dict[int, np.ndarray] = {}
        for i, (_, decoded) in enumerate(window):
            if isinstance(decoded, InputError):
                results[i] = decoded
            else:
                waveforms[i] = decoded
        by_length = sorted(waveforms, key=lambda i: len(waveforms[i]))
        for start in range(0, len(by_length), batch_size):
            batch = by_length[start : start + batch_size]
            encoded = encoder.encode([waveforms[i] for i in batch])
            if convert is not None:
                lengths = [len(frames_TD) for frames_TD in encoded]
                encoded = list(convert(torch.cat(encoded)).split(lengths))
            results.update(zip(batch, encoded, strict=True))
        for i, (utterance, _) in enumerate(window):
            yield utterance, results[i]


def _decode_ahead(
    utterances: Sequence[Utterance], window: int, num_workers: int
) -> Iterator[list[tuple[Utterance, np.ndarray | InputError]]]:
    """Decoded 16 kHz audio, a window at a time, while threads decode the next window."""
    rows = iter(utterances)
    with ThreadPoolExecutor(max_workers=num_workers) as pool:

        def submit_window() -> list[tuple[Utterance, Future[np.ndarray | InputError]]]:
            return [(u, pool.submit(_decode, u)) for u in islice(rows, window)]

        pending = submit_window()
        while pending:
            upcoming = submit_window()
            yield [(utterance, future.result()) for utterance, future in pending]
            pending = upcoming


def _decode(utterance: Utterance) -> np.ndarray | InputError:
    try:
        samples = read_utterance_audio(utterance, GEMMA_SAMPLE_RATE_HZ)
        AudioEncoder.refuse_too_short(samples)
        return samples
    except InputError as error:
        return (
            error if utterance.origin in str(error) else InputError(f"{utterance.origin}: {error}")
        )
