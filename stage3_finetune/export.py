"""Adapter -> a standalone checkpoint: Gemma 4 with the adapter merged into its weights.

    python -m stage3_finetune.export --gemma google/gemma-4-E4B-it --finetune runs/finetune \
        --out runs/gemma-twi

Plain transformers loads it (`AutoModelForImageTextToText`, `Gemma4ForConditionalGeneration`), and
so does every command here that takes `--gemma`, then without `--finetune`. The folder is a complete
repository for the Hugging Face hub, and appears only when it is complete. `--push NAME` uploads it.
"""

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from commands.atomic_write import written_aside
from commands.command_line import parse_config, run_command
from commands.hub import push
from commands.new_paths import refuse_unwritable
from commands.setting_types import ModelName
from stage3_finetune.merged_model import StoredDtype, merge_adapter


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Merge an adapter into Gemma 4, as a checkpoint that others can load."""

    finetune: Path
    """adapter: folder of stage3_finetune.train"""
    out: Path
    """new folder: the repository"""
    gemma: ModelName = "google/gemma-4-E4B-it"
    """hub name or folder of the Gemma 4 it was trained on"""
    dtype: StoredDtype = "bfloat16"
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
    merged = merge_adapter(
        config.gemma, config.finetune, dtype=config.dtype, allow_mixture=config.allow_mixture
    )
    with written_aside(config.out, raised_by_writer=(SafetensorError,)) as aside:
        merged.save(aside)
    print(config.out)
    if config.push:
        print(push(config.out, config.push))


if __name__ == "__main__":
    run_command(main)
