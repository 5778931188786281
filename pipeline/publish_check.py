"""What the parts of a pipeline make of the same inputs: a copy must make the same.

before = try_parts(parts, device=device, dtype=dtype)
after = try_parts(copies, device=device, dtype=dtype)
refuse_difference(before, after)
"""

# B utterances, T frames (25 per second), D embedding width, S answer tokens

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from commands.errors import InputError
from commands.origins import Origin, combine, refuse_mixture
from commands.trained_pipeline import PartName
from speech_head.answer import answer_states
from speech_head.stream import Sampling, speak_answers
from speech_head.talker import Talker, load_talker, tokenize_within_limit
from stage1_rvq.model import load_rvq
from stage1_rvq.recognizer import load_recognizer
from stage2_speechless.model import load_speechless
from stage2_speechless.speak import Sentence, speak
from stage3_finetune.dialogue import encode_prompt
from stage3_finetune.generate import stream_tokens

CPU = torch.device("cpu")
QUESTION = "Wo ho te sɛn?"  # How are you? Asked, and spoken
MAX_NEW_TOKENS = 24
NUM_FRAMES = 25  # of noise, and at most of what Speechless says: a second


@dataclass(frozen=True)
class Trial:
    """What a pipeline's parts made of a question and of noise.

    Attributes:
        made: by part: token ids, codes, samples or log-probabilities, as lists of numbers.
        origin: the audio tower and the quantiser that they belong to.
    """

    made: Mapping[PartName, Any]
    origin: Origin


def try_parts(
    parts: Mapping[PartName, str],
    *,
    device: torch.device,
    dtype: torch.dtype,
    allow_mixture: bool = False,
) -> Trial:
    """Load every part, and let it work once.

    Args:
        parts: part -> folder, or hub name; Gemma, Mimi and the head are among them.
        device: where Gemma, the head and Mimi run.
        dtype: precision of Gemma.
        allow_mixture: go on although they belong to different audio towers or quantisers.

    Raises:
        InputError: a part cannot be loaded, does not fit the others or belongs to others.
    """
    made: dict[PartName, Any] = {}
    origins: dict[str, Origin] = {}
    if "rvq" in parts:
        rvq = load_rvq(parts["rvq"], device=CPU)
        made["rvq"] = rvq.encode(_noise(rvq.config.dim) * rvq.frame_scale_D).tolist()
        origins[f"--rvq {parts['rvq']}"] = rvq.origin()
    if "recognizer" in parts:
        recognizer = load_recognizer(Path(parts["recognizer"]), device=CPU)
        noise_1TD = _noise(recognizer.config.dim)[None]
        with torch.no_grad():
            made["recognizer"] = recognizer(noise_1TD, torch.tensor([NUM_FRAMES])).tolist()
        origins[f"--recognizer {parts['recognizer']}"] = recognizer.origin()
    if "speechless" in parts:
        speechless = load_speechless(parts["speechless"], device=CPU)
        [said] = speak(speechless, [Sentence("check", QUESTION)], max_frames=NUM_FRAMES)
        made["speechless"] = said.codes_TK.tolist()
        origins[f"--speechless {parts['speechless']}"] = speechless.config.origin
    finetune = parts.get("finetune")
    talker = load_talker(
        parts["gemma"], Path(finetune) if finetune else None, parts["mimi"], parts["head"],
        device=device, dtype=dtype, allow_mixture=allow_mixture,
    )  # fmt: skip
    origins |= {f"--head {parts['head']}": talker.head.config.origin}
    origins |= talker.conversation.origins
    refuse_mixture(origins, allowed=allow_mixture)
    made |= _try_talker(talker)
    return Trial(made, combine(*origins.values()))


def refuse_difference(before: Trial, after: Trial, *, rounded: Collection[PartName] = ()) -> None:
    """Raise InputError if a part does not make what it made before.

    Args:
        rounded: parts that need not, because their weights were rounded: it is said if they differ.
    """
    for part, made in before.made.items():
        if after.made[part] == made:
            continue
        if part not in rounded:
            raise InputError(
                f"--out: the copied {part} does not make what the original makes, and nothing was "
                "kept: is the disk sound?"
            )
        print(f"{part}: not quite as before the adapter was merged (rounding)", file=sys.stderr)


def _try_talker(talker: Talker) -> dict[PartName, Any]:
    conversation = talker.conversation
    prompt = encode_prompt([conversation.typed_turn(QUESTION)], talker.tokenizer)
    ids = stream_tokens(conversation.model, talker.tokenizer, prompt, max_new_tokens=MAX_NEW_TOKENS)
    text = tokenize_within_limit(QUESTION, talker.tokenizer)
    states = answer_states(conversation.model, [text], talker.head.config.layers)
    [spoken] = speak_answers(talker.head, states, ["check"], Sampling(), voices=[talker.voice_E])
    [samples_N] = talker.mimi.decode([spoken.codes_FK])
    return {
        "gemma": list(ids),
        "head": spoken.codes_FK.tolist(),
        "mimi": samples_N.tolist(),
    }


def _noise(dim: int) -> Tensor:
    """`[T, D]`, the same each time."""
    return torch.randn(NUM_FRAMES, dim, generator=torch.Generator().manual_seed(0))
