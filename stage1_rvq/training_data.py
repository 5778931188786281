"""What a quantiser was trained on: recorded by `stage1_rvq.train`, shown by the model card."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from commands.fingerprints import fingerprint
from commands.finished_folder import read_provenance
from commands.json_files import read_json_as
from commands.setting_types import LocalPath, ModelName
from commands.table_copies import hash_ids
from data_manifests.hash_set import hash_text
from data_manifests.manifest import read_manifest
from stage1_rvq.data import EmbeddingFolder


@dataclass(frozen=True)
class TrainingData:
    """What a quantiser was trained on, as `stage1_rvq.train` records it.

    Attributes:
        num_utterances: number of utterances.
        num_frames: number of embeddings, one per 40 ms.
        num_speakers: number of distinct speakers named in the manifest.
        corpus_hours: hours by corpus; empty if the manifest is gone or has changed.
        gemma: hub name the embeddings came from; None for a local folder.
    """

    num_utterances: int
    num_frames: int
    num_speakers: int
    corpus_hours: dict[str, float]
    gemma: str | None


@dataclass(frozen=True)
class _MadeOf:
    """The settings of a folder of embeddings that say what it was made from."""

    manifest: LocalPath
    gemma: ModelName


def describe_training_data(embeddings: EmbeddingFolder) -> TrainingData:
    """Count what a folder of embeddings holds; corpora are read from the manifest it was made
    from."""
    made_of = read_json_as(embeddings.folder / "config.json", _MadeOf, ignore_unknown=True)
    manifest, gemma = Path(made_of.manifest), made_of.gemma
    inputs = read_provenance(embeddings.folder).inputs
    sha256 = inputs["manifest"].sha256 if "manifest" in inputs else None
    corpus_hours: dict[str, float] = defaultdict(float)
    if manifest.is_file() and fingerprint(manifest)["sha256"] == sha256:
        hashes_N = np.sort(hash_ids(embeddings.table))
        for utterance in read_manifest(manifest):
            hashed = np.uint64(hash_text(utterance.id))
            place = int(np.searchsorted(hashes_N, hashed))
            if place < len(hashes_N) and hashes_N[place] == hashed:
                corpus_hours[utterance.corpus] += utterance.duration_s / 3600
    is_hub_name = gemma.count("/") == 1 and gemma[0] not in "./~" and not Path(gemma).exists()
    return TrainingData(
        num_utterances=len(embeddings.utterances),
        num_frames=embeddings.num_frames,
        num_speakers=len(set(embeddings.table.texts("speaker"))),
        corpus_hours=dict(sorted(corpus_hours.items())),
        gemma=gemma if is_hub_name else None,
    )
