"""Run the audio tower over a whole manifest, shard by shard, decoding audio ahead; resumable.

Shared by `embed` (which keeps the embeddings) and `tokenize_corpus` (which keeps their codes).
"""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from commands.atomic_write import write_json_lines
from commands.errors import InputError
from commands.json_files import read_json_lines
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from data_manifests.manifest import Utterance, read_utterance_audio
from gemma4.gemma import AudioEncoder

UTTERANCES_PER_SHARD = 256
WINDOW_BATCHES = 8  # batches that are decoded together and sorted by length


def encode_corpus(
    utterances: list[Utterance],
    encoder: AudioEncoder,
    out: Path,
    *,
    convert: Callable[[Tensor], Tensor],
    write_shard: Callable[[int, list[tuple[Utterance, Tensor]]], None],
    is_written: Callable[[int], bool],
    batch_size: int,
    num_workers: int,
    skip_bad_audio: bool,
) -> int:
    """Encode a manifest in shards of 256 utterances and hand each shard to `write_shard`.

    A shard depends only on its own rows, so that an interrupted and resumed run writes the same
    bytes as an uninterrupted one. Unusable recordings are listed in `out/skipped.jsonl`.

    Args:
        utterances: manifest rows.
        encoder: the audio tower.
        out: output folder, for `skipped.jsonl`.
        convert: turns float32 embeddings into what is kept, frame by frame: `[N, D]` -> `[N, ...]`.
        write_shard: writes shard number and its (row, converted) pairs, in the manifest's order.
        is_written: whether a shard is complete from an earlier run.
        batch_size: utterances per forward pass.
        num_workers: threads that decode audio.
        skip_bad_audio: list unusable recordings and continue, instead of raising at the first one.

    Returns:
        Number of skipped recordings.

    Raises:
        InputError: an unusable recording (the message names manifest file and line), or no usable
            one at all.
    """
    skipped_path = out / "skipped.jsonl"
    skipped = read_json_lines(skipped_path)
    with tqdm(total=len(utterances), desc=f"encode -> {out.name}", unit=" utterances") as progress:
        for number, start in enumerate(range(0, len(utterances), UTTERANCES_PER_SHARD)):
            shard = utterances[start : start + UTTERANCES_PER_SHARD]
            if is_written(number):
                progress.update(len(shard))
                continue
            skipped = [row for row in skipped if row["shard"] != number]
            kept = []
            for utterance, result in encode_utterances(
                shard, encoder, batch_size=batch_size, num_workers=num_workers, convert=convert
            ):
                progress.update()
                if isinstance(result, InputError):
                    if not skip_bad_audio:
                        raise result
                    skipped.append({"shard": number, "id": utterance.id, "reason": str(result)})
                    continue
                kept.append((utterance, result))
            write_json_lines(skipped_path, skipped)
            write_shard(number, kept)
    if len(skipped) == len(utterances):
        raise InputError(f"all {len(skipped)} recordings are unusable, see {skipped_path}")
    if skipped:
        print(f"{len(skipped)} recordings skipped, listed in {skipped_path}", file=sys.stderr)
    return len(skipped)


def encode_utterances(
    utterances: list[Utterance],
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
    utterances: list[Utterance], window: int, num_workers: int
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
