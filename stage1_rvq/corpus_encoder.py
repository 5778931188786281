"""Run the audio tower over a manifest, shard by shard; threads prepare its input ahead.

Shared by `embed` (which keeps the embeddings) and `tokenize_corpus` (which keeps their codes).
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
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
from gemma4.prepared_audio import PreparedAudio
from gemma4.speech_encoder import SpeechEncoder

UTTERANCES_PER_SHARD = 256
WINDOW_BATCHES = 8  # batches that are decoded together and sorted by length


def utterance_shards(utterances: Sequence[Utterance]) -> dict[int, Sequence[Utterance]]:
    """The shards of a manifest, 256 utterances each."""
    return split_into_shards(utterances, UTTERANCES_PER_SHARD)


def encode_shard(
    shard: Shard[Utterance],
    encoder: SpeechEncoder,
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
        num_workers: threads that decode audio and compute its log-mel features.
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
    encoder: SpeechEncoder,
    *,
    batch_size: int,
    num_workers: int,
    convert: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[tuple[Utterance, Tensor | InputError]]:
    """Embeddings `[T, D]` of utterances, in order, or the error that made one unusable.

    Utterances are batched by length within a window, which affects only speed; `convert` is given
    the frames of a batch end to end, and its result is yielded in place of the embeddings.
    """
    for window in _prepare_ahead(utterances, encoder, batch_size, num_workers):
        results: dict[int, Tensor | InputError] = {**window.unusable}
        for positions, prepared in window.batches:
            encoded = encoder.encode_prepared(prepared.result())
            if convert is not None:
                lengths = [len(frames_TD) for frames_TD in encoded]
                encoded = list(convert(torch.cat(encoded)).split(lengths))
            results.update(zip(positions, encoded, strict=True))
        for i, utterance in enumerate(window.utterances):
            yield utterance, results[i]


@dataclass(frozen=True)
class _Window:
    """Some utterances whose recordings are decoded.

    Attributes:
        utterances: in order.
        unusable: why some have no recording, by position.
        batches: the positions of the others, those of similar length together, and what the tower
            is to be given of them, which threads are computing.
    """

    utterances: list[Utterance]
    unusable: dict[int, InputError]
    batches: list[tuple[list[int], Future[PreparedAudio]]]


def _prepare_ahead(
    utterances: Sequence[Utterance], encoder: SpeechEncoder, batch_size: int, num_workers: int
) -> Iterator[_Window]:
    """Windows of a corpus, in order. While the tower computes one, threads compute the features of
    the next and decode the one after it."""
    rows = iter(utterances)
    with ThreadPoolExecutor(max(1, num_workers)) as pool:

        def decode_next() -> list[tuple[Utterance, Future[np.ndarray | InputError]]]:
            window = islice(rows, batch_size * WINDOW_BATCHES)
            return [(utterance, pool.submit(_decode, utterance, encoder)) for utterance in window]

        def prepare(
            decoding: list[tuple[Utterance, Future[np.ndarray | InputError]]],
        ) -> _Window:
            decoded = [future.result() for _, future in decoding]
            unusable = {i: d for i, d in enumerate(decoded) if isinstance(d, InputError)}
            waveforms = {i: d for i, d in enumerate(decoded) if not isinstance(d, InputError)}
            by_length = sorted(waveforms, key=lambda i: len(waveforms[i]))
            batches = [
                by_length[start : start + batch_size]
                for start in range(0, len(by_length), batch_size)
            ]
            return _Window(
                [utterance for utterance, _ in decoding], unusable,
                [(batch, pool.submit(encoder.prepare, [waveforms[i] for i in batch]))
                 for batch in batches],
            )  # fmt: skip

        window, decoding = prepare(decode_next()), decode_next()
        while window.utterances:
            upcoming, decoding = prepare(decoding), decode_next()
            yield window
            window = upcoming


def _decode(utterance: Utterance, encoder: SpeechEncoder) -> np.ndarray | InputError:
    try:
        samples = read_utterance_audio(utterance, GEMMA_SAMPLE_RATE_HZ)
        encoder.refuse_too_short(samples)
        return samples
    except InputError as error:
        return (
            error if utterance.origin in str(error) else InputError(f"{utterance.origin}: {error}")
        )
