"""Tokenizer of the demo's Gemma: built like the published one, learned from the demo's sentences.

Spaces are "▁", merges are byte pairs, unknown characters become bytes. Merges stay within a
syllable, so that the vocabulary is not limited to the demo's words: any Twi word can be
transcribed, read and written.
"""

import json
import unicodedata
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from gemma4.chat_template import text_ids
from gemma4.plain_tokenizer import SPECIAL_TOKENS, as_gemma_tokenizer

NUM_BYTES = 256
# Open syllables and single consonants, with "▁" at the start of a word; any other character is
# split off by itself.
SYLLABLE = r"▁?(?:(?![aeiouɛɔAEIOUƐƆ])\p{L})*[aeiouɛɔAEIOUƐƆ]|▁?\p{L}|."
# Renders the same as the template published with google/gemma-4-E2B-it, for what this project uses:
# text and recordings, but no tools and no thinking (a test compares them).
CHAT_TEMPLATE = """
{{- bos_token -}}
{%- for message in messages -%}
    {{- '<|turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' -}}
    {%- if message.content is string -%}
        {{- message.content | trim -}}
    {%- else -%}
        {%- for part in message.content -%}
            {{- '<|audio|>' if part.type == 'audio' else part.text | trim -}}
        {%- endfor -%}
    {%- endif -%}
    {{- '<turn|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|turn>model\\n' -}}
{%- endif -%}
"""
LETTERS = "abcdeɛfghijklmnoɔpqrstuvwxyzABCDEƐFGHIJKLMNOƆPQRSTUVWXYZ0123456789.,?!:;'-▁\n"


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Learn a tokenizer.

    Args:
        texts: sentences as they are typed.
        vocabulary_size: most tokens, including special ones and 256 bytes; there are fewer if the
            texts have fewer syllables.

    Returns:
        A tokenizer with `CHAT_TEMPLATE`.
    """
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token=SPECIAL_TOKENS["unk"]))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(SYLLABLE), behavior="isolated")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = BpeTrainer(
        vocab_size=vocabulary_size - NUM_BYTES,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=sorted(LETTERS),
        limit_alphabet=len(LETTERS),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # The trainer can add bytes only as special tokens, which decoding would leave out.
    learned = json.loads(tokenizer.to_str())["model"]
    vocabulary = learned["vocab"]
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(NUM_BYTES)}
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer.model = models.BPE(
        vocabulary, merges, byte_fallback=True, unk_token=SPECIAL_TOKENS["unk"]
    )
    return as_gemma_tokenizer(tokenizer, SPECIAL_TOKENS, CHAT_TEMPLATE)


def special_token_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Ids of the special tokens, by their names in `SPECIAL_TOKENS`."""
    return {name: tokenizer.convert_tokens_to_ids(t) for name, t in SPECIAL_TOKENS.items()}


def heard_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of the audible part of a sentence: its words, without punctuation.

    Capitals are kept, since both sentences and names begin with one.
    """
    kept = (c for c in text if c.isspace() or unicodedata.category(c)[0] in "LM")
    return text_ids(tokenizer, " ".join("".join(kept).split()))
