"""Adapter -> a standalone checkpoint: Gemma 4 with the adapter merged into its weights.

    python -m stage3_finetune.export --gemma google/gemma-4-E4B-it --finetune runs/finetune \
        --out runs/gemma-twi

Plain transformers loads it (`AutoModelForImageTextToText`, `Gemma4ForConditionalGeneration`), and
so does every command here that takes `--gemma`, then without `--finetune`. The folder is a complete
repository for the Hugging Face hub, and appears only when it is complete. `--push NAME` uploads it.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase
from transformers.utils import cached_file

from commands.atomic_write import write_text, written_aside
from commands.command_line import parse_config, run_command
from commands.errors import WriteError
from commands.hub import push
from commands.json_files import read_json
from commands.new_paths import refuse_unwritable
from commands.origins import refuse_mixture
from commands.setting_types import ModelName
from commands.sources import as_facts
from gemma4.base_model import SOURCES_KEY
from gemma4.gemma import load_feature_extractor
from stage3_finetune.model import (
    TARGET_KEY,
    finetuned_origins,
    finetuned_sources,
    load_finetuned,
)
from stage3_finetune.model_card import merged_card

# Files of a checkpoint that transformers reads, but that saving the model, the tokenizer and the
# feature extractor does not write.
OTHER_FILES = ("processor_config.json",)


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Merge an adapter into Gemma 4, as a checkpoint that others can load."""

    finetune: Path
    """adapter: folder of stage3_finetune.train"""
    out: Path
    """new folder: the repository"""
    gemma: ModelName = "google/gemma-4-E4B-it"
    """hub name or folder of the Gemma 4 it was trained on"""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """precision in which weights are merged and stored: bfloat16, as Gemma 4 is published, or
    float32 (twice the memory and disk space)"""
    push: str | None = None
    """hub repository to upload to; it is public unless your account says otherwise"""
    allow_mixture: bool = False
    """go on although the inputs belong to different audio towers or quantisers"""


def main(argv: list[str] | None = None) -> None:
    """Write the repository; prints its folder and, if it was pushed, the commit."""
    config = parse_config(ExportConfig, argv)
    refuse_unwritable(config.out, flag="--out")
    adapted, tokenizer = load_finetuned(
        config.gemma, config.finetune, device=torch.device("cpu"),
        dtype=getattr(torch, config.dtype),
    )  # fmt: skip
    refuse_mixture(
        finetuned_origins(config.gemma, adapted, config.finetune), allowed=config.allow_mixture
    )
    settings = read_json(config.finetune / "config.json")
    merged = adapted.merge_and_unload()
    sources = finetuned_sources(config.gemma, config.finetune)
    setattr(merged.config, TARGET_KEY, settings["target"])
    setattr(merged.config, SOURCES_KEY, as_facts(sources))
    extractor = load_feature_extractor(config.gemma)
    others = {
        name: path
        for name in OTHER_FILES
        if (path := cached_file(config.gemma, name, _raise_exceptions_for_missing_entries=False))
    }
    provenance = read_json(config.finetune / "provenance.json")
    card = merged_card(config.gemma, settings, provenance, sources, dtype=config.dtype)
    with written_aside(config.out, raised_by_writer=(SafetensorError,)) as aside:
        aside.mkdir()
        merged.save_pretrained(aside)
        _save_tokenizer(tokenizer, aside)
        extractor.save_pretrained(aside)
        for name, path in others.items():
            shutil.copyfile(path, aside / name)
        write_text(aside / "README.md", card)
    print(config.out)
    if config.push:
        print(push(config.out, config.push))


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    try:
        tokenizer.save_pretrained(folder)
    except OSError:
        raise
    except Exception as error:  # tokenizers raises nothing narrower where a file cannot be written
        raise WriteError(f"cannot write the tokenizer to {folder}: {error}") from error


if __name__ == "__main__":
    run_command(main)
