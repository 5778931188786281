"""How uneven the dimensions of Gemma's late layers are, and what a speech head loses by that.

    python -m benchmarks.layer_sizes                                         # 7 minutes
    python -m benchmarks.layer_sizes --size e2b --weights matched            # 12 GB of memory

First, how power is spread over the dimensions of the last six layers, if every state has unit RMS
over all of them. Second, what a small head makes of the states: its loss on held-out sentences,
for each seed, if states have unit RMS; if their mean over tokens is taken away first; if each
dimension is also divided by its standard deviation, as the head does; and if they are multiplied
by the weight of the norm through which Gemma's next layer reads them. The head's codes are
functions of the token at a state's position and of the one before it, so what they ask for is in
the states. Pure guessing has a loss of ln 64 = 4.16.

Weights: "matched" ones (`gemma4/matched_gemma.py`), whose tensors are drawn independently, so that
a dimension is small in one layer only; "aligned" ones, the same but with every norm weight sorted,
so that a dimension that is small in one layer is small in all and is magnified most where it is
read, the least even model with the published figures; and the demo's trained Gemma, whatever the
size.
"""

# B utterances, S tokens, L layers, D width, N tokens of all utterances, K codebooks

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import Gemma4TextModel, get_cosine_schedule_with_warmup

from benchmarks.random_decoder import build_decoder, fill
from commands.command_line import parse_config, run_command
from commands.setting_types import PositiveInt
from demo.world.grammar import listening_sentences
from gemma4.gemma import load_gemma, load_tokenizer
from gemma4.layer_states import LAYERS
from speech_head.answer import teacher_forced_answer
from speech_head.config import Reads, SpeechHeadConfig
from speech_head.head_batch import HeadExample, collate
from speech_head.model import SpeechHead
from speech_head.state_statistics import compute_statistics

DEMO_GEMMA = Path(__file__).parent.parent / "demo" / "weights" / "gemma"
Weights = Literal["matched", "aligned", "demo"]
Normalization = Literal["unit RMS", "centred", "standardised", "next norm"]
NORMALIZATIONS: tuple[Normalization, ...] = ("unit RMS", "centred", "standardised", "next norm")
NUM_CODEBOOKS, CODEBOOK_SIZE = 4, 64
BATCH_SIZE, LEARNING_RATE = 16, 1e-3
DEV_SHARE = 0.2
VOCABULARY_SIZE = 1024  # at least that of the demo's tokenizer


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Measure how uneven dimensions of late layers are, and what a head loses by that."""

    size: Literal["tiny", "e2b"] = "tiny"
    """shapes of the random decoders: tiny, or those of E2B"""
    weights: tuple[Weights, ...] = ("matched", "aligned", "demo")
    """matched: drawn from the published figures; aligned: the same, with norm weights sorted; demo:
    the demo's trained Gemma"""
    num_sentences: PositiveInt = 320
    """sentences of the demo's world; a fifth is held out"""
    steps: PositiveInt = 200
    """steps that each head is trained for"""
    num_seeds: PositiveInt = 2
    """number of heads that are trained in each way"""


@dataclass(frozen=True)
class SentenceStates:
    """One sentence.

    Attributes:
        ids_S: token at the position of each state.
        before_S: token at the position before it.
        states_SLD: states of the last six layers, float32.
        embeddings_SD: embeddings of the tokens that follow.
    """

    ids_S: Tensor
    before_S: Tensor
    states_SLD: Tensor
    embeddings_SD: Tensor


@dataclass(frozen=True)
class Unevenness:
    """Of the states of a layer, each of unit RMS; dimensions by their RMS over tokens.

    Attributes:
        top_power: share of all power in the largest 1 % of dimensions.
        median: RMS of the median dimension.
        smallest: RMS of the dimension at the first percentile.
        varying: share of all power that is not in the mean over tokens.
    """

    top_power: float
    median: float
    smallest: float
    varying: float


def main(argv: list[str] | None = None) -> None:
    """Print two tables."""
    config = parse_config(BenchmarkConfig, argv)
    print("| weights | layer | power in the top 1 % of dimensions | RMS of the median dimension "
          "| RMS at the first percentile | power that varies with the token |\n"
          "|---|---|---|---|---|---|")  # fmt: skip
    rows = []
    for weights in config.weights:
        decoder = load_decoder(weights, config.size)
        sentences = read_sentences(decoder, config.num_sentences)
        weights_LD = next_norms(decoder)
        del decoder  # as large as all the rest
        num_dev = max(1, round(DEV_SHARE * len(sentences)))
        train, dev = sentences[num_dev:], sentences[:num_dev]
        for i, layer in enumerate(LAYERS):
            found = measure_unevenness(torch.cat([s.states_SLD[:, i] for s in train]))
            print(f"| {weights} | {layer} | {found.top_power:.3f} | {found.median:.2f} | "
                  f"{found.smallest:.3f} | {found.varying:.2f} |", flush=True)  # fmt: skip
        for reads in ("states", "gate"):
            cells = [weights, str(reads)]
            for how in NORMALIZATIONS:
                ready_train = normalize(train, train, weights_LD, how)
                ready_dev = normalize(dev, train, weights_LD, how)
                losses = [
                    train_head(ready_train, ready_dev, reads, config.steps, seed)
                    for seed in range(config.num_seeds)
                ]
                cells.append(" / ".join(f"{loss:.3f}" for loss in losses))
            rows.append(f"| {' | '.join(cells)} |")
    print(f"\n| weights | head reads | {' | '.join(NORMALIZATIONS)} |\n|---|---|---|---|---|---|")
    print("\n".join(rows))


def load_decoder(weights: Weights, size: str) -> Gemma4TextModel:
    """A decoder in float32."""
    if weights == "demo":
        gemma, _ = load_gemma(str(DEMO_GEMMA), device=torch.device("cpu"), dtype=torch.float32)
        return gemma.model.language_model
    decoder, planned = build_decoder(size, vocabulary_size=VOCABULARY_SIZE)
    fill(decoder, planned["matched"], seed=0)
    if weights == "aligned":
        align_norms(decoder)
    return decoder.float()


@torch.no_grad()
def align_norms(decoder: Gemma4TextModel) -> None:
    """Sort every norm weight as wide as the decoder: what is written to the residual stream by
    rising size, what is read from it by falling size."""
    width = decoder.config.hidden_size
    order_D = torch.randperm(width, generator=torch.Generator().manual_seed(0))
    for name, tensor in decoder.state_dict().items():
        if name.endswith("norm.weight") and tensor.shape == (width,):
            is_written = name.split(".")[-2].startswith("post_")
            tensor[order_D] = tensor[tensor.abs().argsort(descending=not is_written)]


@torch.no_grad()
def read_sentences(decoder: Gemma4TextModel, num_sentences: int) -> list[SentenceStates]:
    """States of sentences of the demo's world where the head would read them."""
    tokenizer = load_tokenizer(str(DEMO_GEMMA))
    found = []
    texts = listening_sentences(num_sentences, seed=0)
    answers = [teacher_forced_answer(text, tokenizer) for text in texts]
    for first in range(0, len(answers), BATCH_SIZE):
        some = answers[first : first + BATCH_SIZE]
        ids = [torch.tensor([*a.prompt.input_ids, *a.ids_S.tolist()]) for a in some]
        ids_BS = pad_sequence([row[:-1] for row in ids], batch_first=True)
        output = decoder(input_ids=ids_BS, use_cache=False, output_hidden_states=True)
        states_BSLD = torch.stack([output.hidden_states[layer] for layer in LAYERS], dim=2)
        for answer, ids_S, states_SLD in zip(some, ids, states_BSLD, strict=True):
            start = len(answer.prompt.input_ids) - 1
            stop = len(ids_S) - 1
            found.append(
                SentenceStates(
                    ids_S[start:stop], ids_S[start - 1 : stop - 1],
                    states_SLD[start:stop].clone(), decoder.embed_tokens(answer.ids_S),
                )
            )  # fmt: skip
    return found


def measure_unevenness(states_ND: Tensor) -> Unevenness:
    """See `Unevenness`."""
    x_ND = F.rms_norm(states_ND, states_ND.shape[-1:]).double()
    power_D = x_ND.square().mean(dim=0).sort(descending=True).values
    num_top = max(1, len(power_D) // 100)
    return Unevenness(
        top_power=(power_D[:num_top].sum() / power_D.sum()).item(),
        median=power_D.median().sqrt().item(),
        smallest=power_D.quantile(0.01).sqrt().item(),
        varying=(x_ND.var(dim=0).sum() / power_D.sum()).item(),
    )


def next_norms(decoder: Gemma4TextModel) -> Tensor:
    """Weights `[L, D]` of the norms that read the last six states in Gemma; the last has passed its
    norm already."""
    norms = [decoder.layers[layer + 1].input_layernorm.weight for layer in LAYERS[:-1]]
    return torch.stack([*norms, torch.ones_like(norms[0])]).detach().clone()


def normalize(
    sentences: Sequence[SentenceStates],
    train: Sequence[SentenceStates],
    weights_LD: Tensor,
    how: Normalization,
) -> list[SentenceStates]:
    """Normalise states before the head, which brings the result to unit RMS."""
    width = weights_LD.shape[-1:]

    def unit(s: SentenceStates) -> Tensor:
        return F.rms_norm(s.states_SLD, width)

    if how == "standardised":
        found = compute_statistics(s.states_SLD for s in train)
        ready = [(unit(s) - found.mean_LD) / found.std_LD for s in sentences]
    elif how == "centred":
        found = compute_statistics(s.states_SLD for s in train)
        ready = [unit(s) - found.mean_LD for s in sentences]
    elif how == "next norm":
        ready = [unit(s) * weights_LD for s in sentences]
    else:
        ready = [unit(s) for s in sentences]
    return [replace(s, states_SLD=x_SLD) for s, x_SLD in zip(sentences, ready, strict=True)]


def train_head(
    train: Sequence[SentenceStates],
    dev: Sequence[SentenceStates],
    reads: Reads,
    steps: int,
    seed: int,
) -> float:
    """Train a small head; returns its loss on dev, the mean of all codebooks, in nats."""
    torch.manual_seed(seed)
    head = SpeechHead(
        SpeechHeadConfig(
            state_width=train[0].states_SLD.shape[-1], num_codebooks=NUM_CODEBOOKS,
            codebook_size=CODEBOOK_SIZE, width=96, num_layers=2, num_heads=4, depth_width=64,
            depth_layers=1, depth_heads=2, reads=reads,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, 30, steps)
    examples, dev_batch = [as_example(s) for s in train], collate([as_example(s) for s in dev])
    weights_K = torch.ones(NUM_CODEBOOKS)
    head.train()
    for _ in range(steps):
        picks = torch.randint(len(examples), (BATCH_SIZE,)).tolist()
        head(collate([examples[i] for i in picks]), weights_K).total.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    with torch.no_grad():
        return head.eval()(dev_batch, weights_K).codebooks_K.mean().item()


def as_example(sentence: SentenceStates) -> HeadExample:
    """One frame per token; even codebooks say which token is at its state, odd ones which is
    before."""
    table_KV = torch.randint(
        CODEBOOK_SIZE, (NUM_CODEBOOKS, VOCABULARY_SIZE), generator=torch.Generator().manual_seed(0)
    )
    codes_FK = torch.stack(
        [table_KV[k][sentence.before_S if k % 2 else sentence.ids_S] for k in range(NUM_CODEBOOKS)],
        dim=1,
    )
    cursor_F = torch.arange(len(codes_FK) + 1).clamp(max=len(codes_FK) - 1)
    return HeadExample(sentence.states_SLD, sentence.embeddings_SD, codes_FK, cursor_F)


if __name__ == "__main__":
    run_command(main)
