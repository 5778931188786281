"""An answer as the head sees it: its tokens, with the Gemma states that predicted them.

Only this module decides which states belong to which token: **token i is paired with the states of
the position before it**, from which Gemma predicted it (as in LLaMA-Omni2, arXiv:2505.02625). So a
token and its states are available at the same moment, and the last row is the token that closes the
turn. `answer_states` (for a complete answer) and `stream_answer` (for one being generated) both
follow this rule, and give the same states up to rounding.

States are those of the last six decoder layers, unless a head reads others; the last is taken after
Gemma's final norm, which transformers returns in place of the layer's own output.
"""

# B utterances, P prompt tokens, S answer tokens (the one that closes the turn included), L layers,
# D width of Gemma

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from commands.errors import InputError
from data_manifests.language import language
from data_manifests.normalization import is_speakable
from gemma4.chat_template import render_answer
from gemma4.kinds import AnyGemma
from gemma4.layer_states import LAYERS, embed_tokens, layers_to_request, stack_layers
from stage1_rvq.data import pad_frames
from stage3_finetune.decoding import BegunPrompt, Decoding
from stage3_finetune.dialogue import EncodedDialogue, Turn, as_messages, encode_prompt, turn_end_id
from stage3_finetune.generate import stop_ids

MAX_ANSWER_TOKENS = 512


@dataclass(frozen=True)
class AnswerTokens:
    """Some tokens of an answer, in order.

    Attributes:
        ids_S: int64, on the CPU.
        states_SLD: states that predicted each token, in Gemma's precision and on its device.
        embeddings_SD: rows of Gemma's embedding table.
    """

    ids_S: Tensor
    states_SLD: Tensor
    embeddings_SD: Tensor

    def first(self, count: int) -> "AnswerTokens":
        """The first `count` of them."""
        return AnswerTokens(*(value[:count] for value in vars(self).values()))


@dataclass(frozen=True, kw_only=True)
class WrittenAnswer:
    """A complete answer, all of whose tokens are known.

    Attributes:
        text: the answer.
        prompt: everything before it, including the embeddings of spoken turns.
        ids_S: int64, its tokens and the one that closes the turn.
    """

    text: str
    prompt: EncodedDialogue
    ids_S: Tensor


@dataclass(frozen=True, kw_only=True)
class TeacherForcedAnswer(WrittenAnswer):
    """A text with normalised white space, as the assistant's turn of the chat template.

    Attributes:
        offsets: first and last + 1 character of each of its S - 1 tokens.
    """

    offsets: list[tuple[int, int]]


def ask_to_speak() -> Turn:
    """The user's turn before an answer that is given as text: in Twi "Kasa.", "Speak."."""
    return Turn("user", language().speak)


def teacher_forced_answer(
    text: str,
    tokenizer: PreTrainedTokenizerBase,
    question: Turn | None = None,
    *,
    has_transcript: bool = False,
) -> TeacherForcedAnswer:
    """Put a text where Gemma would have written it: in the assistant's turn.

    Args:
        question: the user's turn before it; if spoken, with embeddings; `ask_to_speak` if None.
        has_transcript: whether Gemma writes the question's transcript and a line break before it
            answers (the chain target).

    Raises:
        InputError: the text has no letter to pronounce, or holds marks of the chat template.
    """
    question = question or ask_to_speak()
    text = " ".join(text.split())
    if not is_speakable(text):
        raise InputError(f"nothing to say: no letter to pronounce in {text!r}")
    prompt = encode_prompt([question], tokenizer)
    before = f"{question.content}\n" if has_transcript else ""
    answered = [question, Turn("assistant", before + text)]
    rendered = render_answer(as_messages([question]), as_messages(answered), tokenizer)
    template, whole = rendered.prompt, rendered.prompt + rendered.rest
    encoding = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = encoding["input_ids"]
    begin = len(template) + len(before)
    offsets = [(start - begin, stop - begin) for start, stop in encoding["offset_mapping"]]
    template_end = sum(start < -len(before) for start, _ in offsets)
    first = sum(start < 0 for start, _ in offsets)
    closing = sum(start < len(text) for start, _ in offsets)
    tokens = tokenizer.convert_ids_to_tokens(ids[template_end:closing])
    is_marked = any(token.startswith("<|") or token.endswith("|>") for token in tokens)
    if is_marked or not whole.startswith(template + before + text):
        raise InputError(f"holds marks of the chat template: {text!r}")
    return TeacherForcedAnswer(
        text=text,
        prompt=prompt.followed_by(ids[template_end:first]),
        ids_S=torch.tensor(ids[first : closing + 1]),
        offsets=offsets[first:closing],
    )


@torch.no_grad()
def answer_states(
    gemma: AnyGemma,
    texts: Sequence[WrittenAnswer],
    layers: Sequence[int] = LAYERS,
) -> list[AnswerTokens]:
    """States of complete answers, all tokens at once; they are the same alone or in a batch.

    Args:
        layers: layers whose states are returned, indexed as in `LAYERS`; may be empty.
    """
    sequences = [
        torch.cat([torch.tensor(text.prompt.input_ids), text.ids_S[:-1]]) for text in texts
    ]
    ids_BP = pad_sequence(sequences, batch_first=True)
    lengths_B1 = torch.tensor([len(sequence) for sequence in sequences])[:, None]
    inputs = {
        "input_ids": ids_BP, "attention_mask": (torch.arange(ids_BP.shape[1]) < lengths_B1).long()
    }  # fmt: skip
    frames = [frames_TD for text in texts for frames_TD in text.prompt.frames]
    if frames:
        inputs["input_features"], inputs["input_features_mask"] = pad_frames(frames)
    output = gemma(
        **{name: value.to(gemma.device) for name, value in inputs.items()},
        output_hidden_states=layers_to_request(layers),
        logits_to_keep=1,
    )
    states_BPLD = stack_layers(output.hidden_states, layers)
    answers = []
    for text, states_PLD in zip(texts, states_BPLD, strict=True):
        before = len(text.prompt.input_ids) - 1  # the position that predicted the first token
        states_SLD = states_PLD[before : before + len(text.ids_S)]
        answers.append(AnswerTokens(text.ids_S, states_SLD, embed_tokens(gemma, text.ids_S)))
    return answers


def begin_answer(
    gemma: AnyGemma,
    prompt: EncodedDialogue | BegunPrompt,
    layers: Sequence[int] = LAYERS,
) -> Decoding:
    """The decoding of an answer whose states of some layers are wanted, for `stream_answer`."""
    return Decoding(gemma, prompt, layers=layers_to_request(layers))


@torch.no_grad()
def stream_answer(
    gemma: AnyGemma,
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[Turn],
    *,
    layers: Sequence[int] = LAYERS,
    max_tokens: int = MAX_ANSWER_TOKENS,
    cut_long_answers: bool = False,
    decoding: Decoding | None = None,
) -> Iterator[AnswerTokens]:
    """Let Gemma answer by greedy decoding, and yield every token as soon as it is chosen.

    Args:
        turns: the conversation, ending with a user turn; spoken turns with embeddings.
        layers: as in `answer_states`.
        max_tokens: longest answer, including the token that closes the turn.
        cut_long_answers: close the turn at `max_tokens`, instead of raising an error.
        decoding: of the turns' answer, from `begin_answer` with the same layers, in place of the
            turns; tokens that are known already are not yielded.

    Yields:
        One token at a time; the last is the one that closes the turn.

    Raises:
        InputError: the answer did not end within `max_tokens`, and `cut_long_answers` is False.
    """
    if decoding is None:
        decoding = begin_answer(gemma, encode_prompt(turns, tokenizer), layers)
    stops = stop_ids(tokenizer, gemma)
    for num_written, token in enumerate(decoding, start=len(decoding.ids) + 1):
        id_1 = token.id_1
        if num_written >= max_tokens and int(id_1) not in stops:
            if not cut_long_answers:
                raise InputError(f"Gemma's answer did not end within {max_tokens} tokens")
            id_1 = torch.full_like(id_1, turn_end_id(tokenizer))
        states_1LD = stack_layers(token.hidden_states or (), layers)[0]
        yield AnswerTokens(id_1.cpu(), states_1LD, embed_tokens(gemma, id_1))
        if int(id_1) in stops:
            return
