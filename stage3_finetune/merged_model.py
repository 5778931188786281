"""Gemma 4 with an adapter merged into its weights, as a checkpoint that others can load."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from transformers import (
    Gemma4AudioFeatureExtractor,
    Gemma4UnifiedAudioFeatureExtractor,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file

from commands.atomic_write import write_text
from commands.errors import WriteError
from commands.finished_folder import read_provenance
from commands.json_files import read_json
from commands.origins import refuse_mixture
from commands.sources import as_facts
from gemma4.base_model import SOURCES_KEY
from gemma4.feature_extractors import load_feature_extractor
from gemma4.kinds import AnyGemma
from gemma4.published_config import write_as_published
from gemma4.shared_layers import read_unused_tensors
from stage3_finetune.model import (
    CALLS_KEY,
    TARGET_KEY,
    finetuned_origins,
    finetuned_sources,
    load_finetuned,
)
from stage3_finetune.model_card import merged_card

# Files of a checkpoint that transformers reads, but that saving the model, the tokenizer and the
# feature extractor does not write.
OTHER_FILES = ("processor_config.json",)

StoredDtype = Literal["bfloat16", "float32"]


@dataclass(frozen=True)
class MergedGemma:
    """Everything that a checkpoint holds.

    Attributes:
        unused: tensors of the base's checkpoint that the model does not have (`shared_layers.py`),
            in the precision of the others.
        others: further files of it, by name.
        card: its model card.
    """

    model: AnyGemma
    tokenizer: PreTrainedTokenizerBase
    extractor: Gemma4AudioFeatureExtractor | Gemma4UnifiedAudioFeatureExtractor
    unused: Mapping[str, Tensor]
    others: Mapping[str, Path]
    card: str

    def save(self, folder: Path) -> None:
        """Write it into a new folder; raises WriteError, OSError or SafetensorError if that
        fails."""
        folder.mkdir()
        self.model.save_pretrained(folder, state_dict={**self.model.state_dict(), **self.unused})
        write_as_published(folder)
        _save_tokenizer(self.tokenizer, folder)
        self.extractor.save_pretrained(folder)
        for name, path in self.others.items():
            shutil.copyfile(path, folder / name)
        write_text(folder / "README.md", self.card)


def merge_adapter(
    gemma: str, finetune: Path, *, dtype: StoredDtype, allow_mixture: bool = False
) -> MergedGemma:
    """Load Gemma on the CPU, and merge an adapter into it.

    Args:
        gemma: hub name or folder of the base model.
        finetune: folder written by `python -m stage3_finetune.train`.
        dtype: precision in which weights are merged and stored.

    Raises:
        InputError: as `load_finetuned`; they belong to different audio towers (unless
            `allow_mixture`).
    """
    adapted, tokenizer = load_finetuned(
        gemma, finetune, device=torch.device("cpu"), dtype=getattr(torch, dtype)
    )
    refuse_mixture(finetuned_origins(gemma, adapted, finetune), allowed=allow_mixture)
    settings = read_json(finetune / "config.json")
    merged = adapted.merge_and_unload()
    sources = finetuned_sources(gemma, finetune)
    setattr(merged.config, TARGET_KEY, settings["target"])
    setattr(merged.config, CALLS_KEY, read_provenance(finetune).num_calls)
    setattr(merged.config, SOURCES_KEY, as_facts(sources))
    provenance = read_json(finetune / "provenance.json")
    return MergedGemma(
        merged,
        tokenizer,
        load_feature_extractor(gemma),
        {
            name: tensor.to(merged.dtype)
            for name, tensor in read_unused_tensors(gemma, merged.config).items()
        },
        {
            name: Path(path)
            for name in OTHER_FILES
            if (path := cached_file(gemma, name, _raise_exceptions_for_missing_entries=False))
        },
        merged_card(gemma, settings, provenance, sources, dtype=dtype),
    )


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    try:
        tokenizer.save_pretrained(folder)
    except OSError:
        raise
    except Exception as error:  # tokenizers raises nothing narrower where a file cannot be written
        raise WriteError(f"cannot write the tokenizer to {folder}: {error}") from error
