"""Full-size settings that a test cannot carry, and what takes their place."""

from collections.abc import Sequence
from itertools import pairwise

STEPS = "3"
SMALLER = {
    "--codebook-size": "32", "--steps": STEPS, "--width": "64", "--num-layers": "2",
    "--num-questions": "8", "--num-held-out": "4", "--max-new-tokens": "24",
    "--dev-fraction": "0.2", "--test-fraction": "0.2",
}  # fmt: skip
TRAINED = ("--width", "64", "--num-layers", "2", "--num-heads", "2")
# Sizes that a recipe leaves at their defaults, and what is added in their place.
ADDED = {
    "stage1_rvq.train_recognizer": ("--num-units", "64", "--width", "32"),
    "stage1_rvq.train": ("--task-utterances", "4", "--num-codebooks", "3"),
    "stage2_speechless.train": (*TRAINED, "--depth-width", "32", "--depth-heads", "2"),
    "stage3_finetune.speak_dialogues": ("--max-cer", "100"),  # nobody understands a tiny model
    "speech_head.train": (*TRAINED, "--depth-width", "32", "--depth-heads", "2"),
    "speech_head.speak": ("--max-new-tokens", "16"),
    # An untrained head speaks each text until it is cut off.
    "speech_head.evaluate": ("--num-utterances", "2"),
}  # fmt: skip

# What is done more often, or longer, than shows anything new: texts that an untrained model speaks
# until it is cut off, rows of a step, answers that do not end.
FEWER = {
    "stage2_speechless.train": ("--num-dev-sentences", "2"),
    "stage3_finetune.train": ("--accumulate", "1"),
    "stage3_finetune.evaluate": ("--max-new-tokens", "16"),
    "speech_head.train": ("--num-dev-sentences", "2"),
}  # fmt: skip


def shorter(command: str, words: Sequence[str]) -> list[str]:
    """The words of a command line with those settings made small, and fewer of what is repeated."""
    words = _with_more(words, FEWER.get(command, ()))
    return [SMALLER.get(before, word) for before, word in pairwise(["", *words])]


def shorter_with_defaults(command: str, words: Sequence[str]) -> list[str]:
    """The same; defaults of full size, which the line does not name, are made small too."""
    return shorter(command, _with_more(words, ADDED.get(command, ())))


def _with_more(words: Sequence[str], added: Sequence[str]) -> list[str]:
    """The words, and of the flags with their values those that are not among them."""
    pairs = zip(added[::2], added[1::2], strict=True)
    return [*words, *(word for pair in pairs if pair[0] not in words for word in pair)]
