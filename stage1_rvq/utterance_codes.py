"""Turn recordings into codes, a batch at a time."""

from pathlib import Path

from torch import Tensor

from commands.origins import combine
from data_manifests.manifest import Utterance
from gemma4.gemma import AudioEncoder
from stage1_rvq.codes import CODES_NAME, CodedUtterance, code_format, write_codes
from stage1_rvq.corpus_encoder import encode_corpus
from stage1_rvq.model import SpeechRVQ


def tokenize_utterances(
    utterances: list[Utterance],
    encoder: AudioEncoder,
    rvq: SpeechRVQ,
    out: Path,
    *,
    beam_size: int,
    batch_size: int,
    num_workers: int,
    skip_bad_audio: bool,
) -> int:
    """Write the codes of a manifest, shard by shard; existing shards are kept.

    Arguments and errors as in `encode_corpus`; `beam_size` as in `SpeechRVQ.encode`.

    Returns:
        Number of skipped recordings.
    """

    origin = combine(rvq.origin(), encoder.origin)

    def encode(frames_ND: Tensor) -> Tensor:
        return rvq.encode(frames_ND.to(rvq.frame_scale_D.device), beam_size=beam_size).cpu()

    def write_shard(path: Path, rows: list[tuple[Utterance, Tensor]]) -> None:
        coded = [CodedUtterance(u.id, u.text, u.speaker, u.dialect, codes) for u, codes in rows]
        write_codes(path, coded, code_format(rvq.config), origin)

    return encode_corpus(
        utterances,
        encoder,
        out,
        CODES_NAME,
        convert=encode,
        write_shard=write_shard,
        batch_size=batch_size,
        num_workers=num_workers,
        skip_bad_audio=skip_bad_audio,
    )
