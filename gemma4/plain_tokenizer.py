"""A tokenizer with Gemma 4's special tokens at their published ids, of any vocabulary size.

    tokenizer = plain_tokenizer(VOCABULARY_SIZE, SPECIAL_IDS)

Built by rule, not learned: an open syllable or a letter is a token, as are 256 bytes for anything
else. Text written in Twi takes about two characters a token. The rest of the vocabulary is words
of such syllables, which are read but never written, so that any id decodes to text.
"""

import itertools
from collections.abc import Iterator, Mapping
from importlib.resources import files

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

# Gemma 4's special tokens (google/gemma-4-E4B-it tokenizer), by the names of
# `true_shapes.SPECIAL_IDS`; in the demo's tokenizer their ids are 0, 1, 2, ...
SPECIAL_TOKENS = {
    "pad": "<pad>", "eos": "<eos>", "bos": "<bos>", "unk": "<unk>", "boa": "<|audio>",
    "audio": "<|audio|>", "eoa": "<audio|>", "boi": "<|image>", "image": "<|image|>",
    "eoi": "<image|>", "video": "<|video|>", "turn": "<|turn>", "turn_end": "<turn|>",
    "channel": "<|channel>", "channel_end": "<channel|>", "think": "<|think|>",
}  # fmt: skip
# Those with which functions are declared and called; given ids only where they are wanted.
CALL_MARKS = {
    "tool": "<|tool>", "tool_end": "<tool|>", "call": "<|tool_call>", "call_end": "<tool_call|>",
    "response": "<|tool_response>", "response_end": "<tool_response|>", "quote": '<|"|>',
}  # fmt: skip
# The revision of the published chat template that trl 1.16 calls current.
CHAT_TEMPLATE = "gemma4_v5.jinja"
ASK = "{{- '<|turn>model\\n' -}}"  # in a template's source, what asks for an answer
VOWELS = "aeiouɛɔAEIOUƐƆ"
CONSONANTS = "bcdfghjklmnpqrstvwxyzBCDFGHJKLMNPQRSTVWXYZ"
OTHER_CHARACTERS = "0123456789.,?!:;'-▁\n"
SYLLABLE = rf"▁?(?:(?![{VOWELS}])\p{{L}})?[{VOWELS}]|."


def plain_tokenizer(vocabulary_size: int, special_ids: dict[str, int]) -> PreTrainedTokenizerFast:
    """Build the tokenizer, with Gemma 4's published chat template.

    Args:
        vocabulary_size: number of tokens, special ones included; at least 1,024.
        special_ids: ids of the special tokens, by the names in `SPECIAL_TOKENS` and, for a model
            that calls functions, `CALL_MARKS`.
    """
    tokens = {name: (SPECIAL_TOKENS | CALL_MARKS)[name] for name in special_ids}
    vocabulary = {tokens[name]: number for name, number in special_ids.items()}
    taken = set(vocabulary.values())
    free = (number for number in range(vocabulary_size) if number not in taken)
    vocabulary |= dict(zip(_tokens(), free, strict=False))  # the tokens never end
    assert len(vocabulary) == vocabulary_size >= 1024
    tokenizer = Tokenizer(
        models.BPE(vocabulary, _merges(), byte_fallback=True, unk_token=SPECIAL_TOKENS["unk"])
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(SYLLABLE), behavior="isolated")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return as_gemma_tokenizer(tokenizer, tokens, published_chat_template(CHAT_TEMPLATE))


def as_gemma_tokenizer(
    tokenizer: Tokenizer, special_tokens: Mapping[str, str], chat_template: str
) -> PreTrainedTokenizerFast:
    """Give a tokenizer Gemma's special tokens and a chat template, as transformers expects them.

    Args:
        tokenizer: its vocabulary holds the special tokens.
        special_tokens: name -> token; "bos", "eos", "pad" and "unk" among the names.
        chat_template: Jinja source.
    """
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in special_tokens.values()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=special_tokens["bos"],
        eos_token=special_tokens["eos"],
        pad_token=special_tokens["pad"],
        unk_token=special_tokens["unk"],
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
    )


def published_chat_template(name: str) -> str:
    """A revision of Gemma 4's chat template, as trl ships it."""
    return (files("trl") / "chat_templates" / name).read_text(encoding="utf-8")


def with_empty_thought(chat_template: str) -> str:
    """A template of E2B and E4B -> one that asks for answers as that of 12B does: with an empty
    thought (`chat_template.EMPTY_THOUGHT`)."""
    assert chat_template.count(ASK) == 1
    return chat_template.replace(ASK, ASK + "{{- '<|channel>thought\\n<channel|>' -}}")


def _tokens() -> Iterator[str]:
    """Everything but special tokens, without end: what text needs first."""
    yield from (f"<0x{byte:02X}>" for byte in range(256))
    yield from VOWELS + CONSONANTS + OTHER_CHARACTERS
    yield from ("".join(pair) for pair in _merges())
    syllables = ["".join(pair) for pair in itertools.product(CONSONANTS[:20], VOWELS[:7])]
    for length in itertools.count(2):
        yield from ("▁" + "".join(word) for word in itertools.product(syllables, repeat=length))


def _merges() -> list[tuple[str, str]]:
    """Consonant and vowel; a space before a vowel; a space before either in small letters."""
    pairs = list(itertools.product(CONSONANTS[:20], VOWELS[:7]))
    pairs += list(itertools.product(CONSONANTS[20:], VOWELS[:7]))
    small = ["".join(pair) for pair in pairs[: 20 * 7]]
    return pairs + [("▁", piece) for piece in [*VOWELS, *small]]
