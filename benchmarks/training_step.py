"""One training step of Speechless, or of a flattened transformer, on the same utterances."""

# B utterances, S prefix positions, T frames (25 per second), K codebooks,
# L = S + T K + 1 tokens of a flattened utterance

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from benchmarks.equal_size import DIALECT, RATE_CPS, TEXT, Model, prefix_tokens
from stage2_speechless.config import SpeechlessConfig
from stage2_speechless.data import TrainingUtterance, collate, move_batch
from stage2_speechless.model import NO_TARGET, Speechless
from stage2_speechless.muon import OptimizerName, make_optimizer
from stage2_speechless.vocabulary import Vocabulary


class TrainingStep:
    """A model in training, its optimizer and one batch; a call takes one step."""

    def __init__(
        self,
        model: Model,
        shape: SpeechlessConfig,
        utterances: Sequence[TrainingUtterance],
        optimizer: OptimizerName = "adamw",
    ) -> None:
        self.model = model.train()
        self.optimizer = make_optimizer(model, optimizer, learning_rate=1e-4)
        device = next(model.parameters()).device
        if isinstance(model, Speechless):
            self.batch = vars(move_batch(collate(utterances, model), device))
        else:
            assert isinstance(model, LlamaForCausalLM)
            self.batch = {
                name: tensor.to(device)
                for name, tensor in flatten_utterances(shape, utterances).items()
            }

    def __call__(self, depth_fraction: float = 1.0) -> float:
        """Take a step; returns the loss.

        Args:
            depth_fraction: as in `Speechless.forward`; only for Speechless.
        """
        if isinstance(self.model, Speechless):
            loss = self.model(**self.batch, depth_fraction=depth_fraction).total
        else:
            loss = self.model(**self.batch).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def make_utterances(
    shape: SpeechlessConfig, num_utterances: int, num_frames: int
) -> list[TrainingUtterance]:
    """Utterances with random codes, all of the same length."""
    generator = torch.Generator().manual_seed(0)
    size = (num_utterances, num_frames, shape.num_codebooks)
    codes_BTK = torch.randint(shape.codebook_size, size, generator=generator)
    return [
        TrainingUtterance(str(i), TEXT, DIALECT, RATE_CPS, codes_TK)
        for i, codes_TK in enumerate(codes_BTK)
    ]


def flatten_utterances(
    shape: SpeechlessConfig, utterances: Sequence[TrainingUtterance]
) -> dict[str, Tensor]:
    """The same utterances with one token per code, as a batch for `LlamaForCausalLM`.

    Token ids are those of Speechless's embeddings, followed by the end of speech. The loss is on
    codes and the end of speech. Utterances have equal lengths, so that nothing is padded.
    """
    prefix_S = torch.tensor(prefix_tokens())
    first_code = Vocabulary().size
    offsets_K = first_code + torch.arange(shape.num_codebooks) * shape.codebook_size
    end_1 = torch.tensor([first_code + shape.num_codebooks * shape.codebook_size])
    tokens_BL = torch.stack(
        [torch.cat([prefix_S, (u.codes_TK + offsets_K).flatten(), end_1]) for u in utterances]
    )
    labels_BL = tokens_BL.clone()
    labels_BL[:, : len(prefix_S)] = NO_TARGET
    return {"input_ids": tokens_BL, "labels": labels_BL}
