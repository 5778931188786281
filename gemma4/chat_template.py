"""Render a checkpoint's chat template, after testing that it works.

A template is a program written by whoever made the checkpoint. transformers runs it in jinja's
sandbox, where it cannot reach files or Python's internals, but can still loop for ever, use all
memory, or raise. So it is tested once, as soon as it is loaded, in a child process that can be
killed. A template that passes this test but misbehaves later is not detected.
"""

import json
import os
import resource
import select
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from commands.errors import InputError
from commands.pretrained import first_line

TRIAL_S = 10.0
TRIAL_BYTES = 2**30  # beyond what the process already uses
MAX_TRIAL_CHARACTERS = 100_000  # for an example of a few words
AUDIO_SLOT, TURN_END = "<|audio|>", "<turn|>"
# What the template of Gemma 4 12B puts before an answer that is asked for, so that no thoughts are
# written, and leaves out of turns that were answered (google/gemma-4-12B-it, chat_template.jinja).
EMPTY_THOUGHT = "<|channel>thought\n<channel|>"
RENDERS_OTHERWISE = (
    "the chat template renders earlier turns differently when later turns follow, so that the "
    "answers cannot be located"
)

Messages = Sequence[Mapping[str, Any]]
SPOKEN = [{"type": "audio"}, {"type": "text", "text": "Wo din de sɛn?"}]
# A dialogue with every kind of turn; each prefix that ends with an answer is rendered.
EXAMPLE: list[dict[str, Any]] = [
    {"role": "system", "content": "Wo din de Ama."},
    {"role": "user", "content": SPOKEN},
    {"role": "assistant", "content": "Me din de Ama."},
    {"role": "user", "content": "Wo ho te sɛn?"},
    {"role": "assistant", "content": "Me ho yɛ."},
]


def render_chat(
    messages: Messages,
    tokenizer: PreTrainedTokenizerBase,
    *,
    asks: bool,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Render turns with the tokenizer's chat template.

    Args:
        messages: turns, in the format that chat templates take.
        tokenizer: tokenizer that holds the template.
        asks: end at the point where the assistant begins to write.
        tools: JSON schemas of the functions that it may call.

    Raises:
        InputError: the template refuses these turns, or fails on them.
    """
    try:
        text = tokenizer.apply_chat_template(
            messages,
            tools=list(tools) or None,
            tokenize=False,
            add_generation_prompt=asks,
        )
    except Exception as error:  # whatever a template raises: jinja's errors, Python's
        raise InputError(f"the chat template fails at this dialogue: {first_line(error)}") from None
    if not isinstance(text, str):
        raise InputError("the chat template gives no text")
    return text


@dataclass(frozen=True)
class RenderedAnswer:
    """A dialogue that ends with an answer.

    Attributes:
        prompt: all before the answer, as it is rendered to ask for it.
        rest: the answer, and what the template writes after it.
        is_asked_otherwise: whether later turns are shown the answered turn in another way than that
            in which it was asked for: without the empty thought.
    """

    prompt: str
    rest: str
    is_asked_otherwise: bool


def render_answer(
    asked: Messages,
    answered: Messages,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tools: Sequence[Mapping[str, Any]] = (),
) -> RenderedAnswer:
    """Render turns that end with an answer, so that the answer follows its own prompt.

    Args:
        asked: the turns before the answer.
        answered: the same turns, and the answer: an answer's text, or calls of functions.
        tokenizer: tokenizer that holds the template.
        tools: JSON schemas of the functions that the assistant may call.

    Raises:
        InputError: as `render_chat`; or the answer cannot be found in what the template writes.
    """
    prompt = render_chat(asked, tokenizer, asks=True, tools=tools)
    whole = render_chat(answered, tokenizer, asks=False, tools=tools)
    before = _shown_later(prompt, whole)
    if not whole.startswith(before):
        raise InputError(RENDERS_OTHERWISE)
    return RenderedAnswer(prompt, whole[len(before) :], before != prompt)


def _shown_later(prompt: str, whole: str) -> str:
    """A prompt as it stands in a dialogue that goes on after its answer."""
    return prompt if whole.startswith(prompt) else prompt.removesuffix(EMPTY_THOUGHT)


def asks_otherwise(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether answers are asked for in another way than later turns are shown them."""
    return render_answer(EXAMPLE[:2], EXAMPLE[:3], tokenizer).is_asked_otherwise


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text by itself."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def refuse_unusable_template(tokenizer: PreTrainedTokenizerBase, *, flag: str, name: str) -> None:
    """Raise InputError if there is no template, or it does not render an example correctly."""
    if tokenizer.chat_template is None:
        raise InputError(
            f"{flag} {name}: no chat template; name an instruction-tuned checkpoint (-it)"
        )
    # Templates see the special tokens too.
    tried = (str(tokenizer.chat_template), str(tokenizer.special_tokens_map))
    if tried in _usable:
        return
    rendered = _render_in_child(tokenizer)
    problem = rendered if isinstance(rendered, str) else _find_problem(rendered)
    if problem:
        raise InputError(f"{flag} {name}: its chat template cannot be used: {problem}")
    _usable.add(tried)


# What this process has tested already: a command may load several models with one template.
_usable: set[tuple[str, str]] = set()


def _find_problem(rendered: Sequence[str]) -> str:
    """What is wrong with the rendered example (prompt and full text for each answer); "" if nothing
    is."""
    before = ""
    for prompt, whole in zip(rendered[::2], rendered[1::2], strict=True):
        shown = _shown_later(prompt, whole)
        if not (prompt.startswith(before) and whole.startswith(shown)):
            return "it renders a turn differently once others follow"
        if TURN_END not in whole[len(shown) :]:
            return f"it does not end a turn with {TURN_END}: not a Gemma 4 template"
        if whole.count(AUDIO_SLOT) != 1:
            return f"it writes {whole.count(AUDIO_SLOT)} {AUDIO_SLOT} for one recording"
        before = whole
    return ""


def _render_in_child(tokenizer: PreTrainedTokenizerBase) -> list[str] | str:
    """The rendered example, or what went wrong."""
    recognizer, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(recognizer)
        _answer_and_end(writer, tokenizer)
    os.close(writer)
    try:
        answer = _read_until(recognizer, time.monotonic() + TRIAL_S)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(recognizer)
    if answer is None:
        return f"it takes over {TRIAL_S:g} s to render an example"
    if not answer:
        return "it asks for too much memory"
    rendered: list[str] | str = json.loads(answer)
    return rendered


def _answer_and_end(writer: int, tokenizer: PreTrainedTokenizerBase) -> None:
    """Runs in the child process; never returns."""
    try:
        _limit_memory()
        try:
            answer = _render_example(tokenizer)
        except MemoryError:
            answer = "it asks for too much memory"
        except Exception as error:
            answer = first_line(error)
        with os.fdopen(writer, "w", encoding="utf-8") as file:
            json.dump(answer, file)
    finally:
        os._exit(0)


def _render_example(tokenizer: PreTrainedTokenizerBase) -> list[str] | str:
    rendered = []
    for end, message in enumerate(EXAMPLE):
        if message["role"] == "assistant":
            for messages, asks in ((EXAMPLE[:end], True), (EXAMPLE[: end + 1], False)):
                text = tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=asks
                )
                if not isinstance(text, str) or len(text) > MAX_TRIAL_CHARACTERS:
                    return f"it writes over {MAX_TRIAL_CHARACTERS} characters for a short dialogue"
                rendered.append(text)
    return rendered


def _limit_memory() -> None:
    """Limit this process to little more memory than it uses, which only Linux reports."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        taken = int(statm.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (taken + TRIAL_BYTES, hard))


def _read_until(recognizer: int, deadline: float) -> bytes | None:
    """Read a pipe to its end; None if it has not ended in time."""
    received = b""
    while (left := deadline - time.monotonic()) > 0:
        if select.select([recognizer], [], [], left)[0]:
            piece = os.read(recognizer, 65536)
            if not piece:
                return received
            received += piece
    return None
