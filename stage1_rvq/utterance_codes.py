"""Turn recordings into codes, a batch at a time."""

from torch import Tensor

from commands.origins import combine
from commands.shard import Shard
from commands.sources import Sources, merge
from data_manifests.manifest import Utterance
from gemma4.gemma import AudioEncoder
from stage1_rvq.codes import CodedUtterance, code_format, write_codes
from stage1_rvq.corpus_encoder import count_utterances, encode_shard
from stage1_rvq.model import SpeechRVQ


def tokenize_shard(
    shard: Shard[Utterance],
    encoder: AudioEncoder,
    rvq: SpeechRVQ,
    tower: Sources = (),
    *,
    beam_size: int,
    batch_size: int,
    num_workers: int,
    skip_bad_audio: bool,
) -> None:
    """Write the codes of a shard of a manifest.

    Arguments and errors as in `encode_shard`; `tower` is what the encoder was made from,
    `beam_size` as in `SpeechRVQ.encode`.
    """

    def encode(frames_ND: Tensor) -> Tensor:
        return rvq.encode(frames_ND.to(rvq.frame_scale_D.device), beam_size=beam_size).cpu()

    rows = encode_shard(
        shard,
        encoder,
        convert=encode,
        batch_size=batch_size,
        num_workers=num_workers,
        skip_bad_audio=skip_bad_audio,
    )
    coded = [CodedUtterance(u.id, u.text, u.speaker, u.dialect, codes_TK) for u, codes_TK in rows]
    origin = combine(rvq.origin(), encoder.origin)
    sources = merge(count_utterances(u for u, _ in rows), rvq.made_from(), tower)
    shard.write_sources(sources)
    write_codes(shard.path, coded, code_format(rvq.config), origin, sources)
