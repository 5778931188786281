"""Make the demo's Gemma 4 and Mimi: tiny, random, and loaded exactly like real checkpoints.

    python -m demo.tiny_models --out runs/demo/models

Writes `gemma/` (model, tokenizer with the published chat template, feature extractor) and `mimi/`.
Name them as `--gemma runs/demo/models/gemma --mimi runs/demo/models/mimi`.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import Gemma4AudioFeatureExtractor, PreTrainedTokenizerFast

from data_manifests.artifact import create_output
from data_manifests.config import parse_config, run_command
from demo.world import all_questions
from speech_head.mimi import tiny_mimi
from stage1_rvq.gemma import tiny_gemma

# Gemma 4's special tokens (google/gemma-4-E4B-it tokenizer), here at ids 0, 1, 2, ...
SPECIAL_TOKENS = {
    "pad": "<pad>", "eos": "<eos>", "bos": "<bos>", "unk": "<unk>", "boa": "<|audio>",
    "audio": "<|audio|>", "eoa": "<audio|>", "boi": "<|image>", "image": "<|image|>",
    "eoi": "<image|>", "video": "<|video|>", "turn": "<|turn>", "turn_end": "<turn|>",
    "channel": "<|channel>", "channel_end": "<channel|>", "think": "<|think|>",
}  # fmt: skip
# Pieces never cross a syllable, so that the vocabulary is not closed over the demo's words.
SYLLABLE = "▁?[^aeiouɛɔAEIOUƐƆ▁]*[aeiouɛɔAEIOUƐƆ]|▁?[^aeiouɛɔAEIOUƐƆ▁]|▁"
LETTERS = "abcdeɛfghijklmnoɔpqrstuvwxyzABCDEƐFGHIJKLMNOƆPQRSTUVWXYZ0123456789.,?!:;'-▁\n"


@dataclass(frozen=True, kw_only=True)
class TinyModelsConfig:
    """Make a tiny random Gemma 4 and a tiny random Mimi, saved as real checkpoints are."""

    out: Path
    """new folder"""
    vocabulary_size: int = 640
    """tokens of the tiny Gemma, 256 bytes among them"""
    seed: int = 0
    """of the random weights"""
    resume: bool = False
    """accept an unfinished folder and write it again"""


def main(argv: list[str] | None = None) -> None:
    """Write both models; prints the folder."""
    config = parse_config(TinyModelsConfig, argv)
    output = create_output(
        config.out, config, command="demo.tiny_models", inputs={}, resume=config.resume
    )
    if output.is_done:
        print(config.out)
        return
    texts = [text for q in all_questions() for text in (q.text, q.answer)]
    tokenizer = train_tokenizer(texts, config.vocabulary_size)
    special_ids = {
        name: tokenizer.convert_tokens_to_ids(token) for name, token in SPECIAL_TOKENS.items()
    }
    gemma = tiny_gemma(len(tokenizer), special_ids, seed=config.seed)
    gemma.save_pretrained(config.out / "gemma")
    tokenizer.save_pretrained(config.out / "gemma")
    Gemma4AudioFeatureExtractor().save_pretrained(config.out / "gemma")
    tiny_mimi(seed=config.seed).save_pretrained(config.out / "mimi")
    output.finish()
    print(config.out)


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """A tokenizer built like Gemma's: spaces as "▁", byte-pair merges, unknown characters as bytes.

    Merges stay within syllables. The chat template is the one published with google/gemma-4-E2B-it,
    as trl carries it.
    """
    from trl.chat_template_utils import gemma4_v5_chat_template

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token=SPECIAL_TOKENS["unk"]))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(SYLLABLE), behavior="isolated")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = BpeTrainer(
        vocab_size=vocabulary_size - 256,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=sorted(LETTERS),
        limit_alphabet=len(LETTERS),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # The trainer knows bytes only as special tokens, which decoding would leave out.
    learned = json.loads(tokenizer.to_str())["model"]
    vocabulary = learned["vocab"]
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer.model = models.BPE(
        vocabulary, merges, byte_fallback=True, unk_token=SPECIAL_TOKENS["unk"]
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS.values()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL_TOKENS["bos"],
        eos_token=SPECIAL_TOKENS["eos"],
        pad_token=SPECIAL_TOKENS["pad"],
        unk_token=SPECIAL_TOKENS["unk"],
        chat_template=gemma4_v5_chat_template,
        clean_up_tokenization_spaces=False,
    )


if __name__ == "__main__":
    run_command(main)
