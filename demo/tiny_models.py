"""Make tiny random Gemma 4s and a Mimi for tests, which load exactly like real checkpoints.

    python -m demo.tiny_models --out runs/tiny

Writes `gemma/` (model, tokenizer with the published chat template, feature extractor),
`gemma-unified/` (the same of the kind without encoders, shaped like 12B) and `mimi/`.
They are untrained; the trained ones are in `demo/weights`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from transformers import Gemma4AudioFeatureExtractor, Gemma4UnifiedAudioFeatureExtractor

from commands.checkpoint import model_written_aside
from commands.command_line import parse_config, run_command
from commands.run_folder import run_folder
from commands.setting_types import Seed
from demo.gemma.tokenizer import special_token_ids, train_tokenizer
from demo.world.grammar import all_questions
from gemma4.plain_tokenizer import with_empty_thought
from gemma4.tiny_gemma import tiny_gemma, tiny_unified_gemma
from speech_head.mimi import tiny_mimi


@dataclass(frozen=True, kw_only=True)
class TinyModelsConfig:
    """Make tiny random Gemma 4s and a tiny random Mimi, saved as real checkpoints are."""

    out: Path
    """new folder"""
    seed: Seed = 0
    """seed for the random weights"""
    overwrite: bool = False
    """write again what an earlier run wrote into --out, which is kept until that is done"""
    vocabulary_size: ClassVar[int] = 640  # including 256 bytes


def main(argv: list[str] | None = None) -> None:
    """Write the models; prints the folder."""
    config = parse_config(TinyModelsConfig, argv)
    with run_folder(config.out, config, "demo.tiny_models"):
        texts = [text for q in all_questions()[:400] for text in (q.text, q.answer)]
        tokenizer = train_tokenizer(texts, config.vocabulary_size)
        special_ids = special_token_ids(tokenizer)
        gemma = tiny_gemma(len(tokenizer), special_ids, seed=config.seed)
        with model_written_aside(config.out / "gemma") as aside:
            gemma.save_pretrained(aside)
            tokenizer.save_pretrained(aside)
            Gemma4AudioFeatureExtractor().save_pretrained(aside)
        tokenizer.chat_template = with_empty_thought(tokenizer.chat_template)
        unified = tiny_unified_gemma(len(tokenizer), special_ids, seed=config.seed)
        with model_written_aside(config.out / "gemma-unified") as aside:
            unified.save_pretrained(aside)
            tokenizer.save_pretrained(aside)
            Gemma4UnifiedAudioFeatureExtractor().save_pretrained(aside)
        with model_written_aside(config.out / "mimi") as aside:
            tiny_mimi(seed=config.seed).save_pretrained(aside)


if __name__ == "__main__":
    run_command(main)
