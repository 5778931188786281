"""A folder of embeddings, made of given frames instead of recordings."""

import torch
from safetensors.torch import save_file

from commands.run_folder import run_folder
from commands.sources import as_facts
from data_manifests.manifest import Utterance, write_manifest
from stage1_rvq import embed
from stage1_rvq.corpus_encoder import count_utterances


def write_embeddings(out, frames_ND, encoder=None):
    """A folder as `stage1_rvq.embed` writes it: utterances of 40 frames, two corpora.

    `encoder` has the tensors of `encoder.safetensors`; some uneven ones where it is not given.
    """
    rows = frames_ND.bfloat16().split(40)
    utterances = [
        Utterance(
            id=f"u{i}", audio=f"{i}.wav", text="me din de ama", duration_s=1.6, speaker=f"s{i % 3}",
            dialect="asante", corpus="first" if i < 15 else "second", split="train",
            license="CC0-1.0",
        )
        for i in range(len(rows))
    ]  # fmt: skip
    write_manifest(out / "train.jsonl", utterances)
    config = embed.EmbedConfig(manifest=out / "train.jsonl", out=out / "embeddings")
    dim = frames_ND.shape[1]
    if encoder is None:
        encoder = {"frame_scale": torch.linspace(0.5, 2.0, dim), "output_proj": torch.eye(dim)}
    with run_folder(config.out, config, "stage1_rvq.embed", inputs=["manifest"]) as output:
        save_file(encoder, config.out / "encoder.safetensors")
        shard = list(zip(utterances, rows, strict=True))
        embed._write_shard(config.out / "shard_00000.jsonl", shard, dim)
        output.record(sources=as_facts(count_utterances(utterances)))
    return config.out
