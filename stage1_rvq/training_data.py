"""What a quantiser was trained on: recorded by `stage1_rvq.train`, shown by the model card."""

from dataclasses import dataclass
from pathlib import Path

from commands.json_files import read_json_as
from commands.setting_types import ModelName
from commands.sources import HELD
from stage1_rvq.data import EmbeddingFolder


@dataclass(frozen=True)
class TrainingData:
    """What a quantiser was trained on, as `stage1_rvq.train` records it.

    Attributes:
        num_utterances: number of utterances.
        num_frames: number of embeddings, one per 40 ms.
        num_speakers: number of distinct speakers named in the manifest.
        corpus_hours: hours by corpus; of older embeddings, which do not say it, none.
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

    gemma: ModelName


def describe_training_data(embeddings: EmbeddingFolder) -> TrainingData:
    """Count what a folder of embeddings holds."""
    made_of = read_json_as(embeddings.folder / "config.json", _MadeOf, ignore_unknown=True)
    gemma = made_of.gemma
    corpus_hours: dict[str, float] = {}
    for source in embeddings.sources:
        if source.used_for == HELD and source.rows:
            hours = corpus_hours.get(source.corpus, 0.0) + source.duration_s / 3600
            corpus_hours[source.corpus] = hours
    is_hub_name = gemma.count("/") == 1 and gemma[0] not in "./~" and not Path(gemma).exists()
    return TrainingData(
        num_utterances=len(embeddings.utterances),
        num_frames=embeddings.num_frames,
        num_speakers=len(set(embeddings.table.texts("speaker"))),
        corpus_hours=dict(sorted(corpus_hours.items())),
        gemma=gemma if is_hub_name else None,
    )
