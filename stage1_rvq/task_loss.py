"""The quantiser's task loss: can the CTC recogniser still read what was quantised?

Speechless's own quantiser was trained with a recognition loss, not with reconstruction error
(Ichigo-Whisper, janhq/ichigo): distortion that does not affect the recogniser costs nothing,
distortion that does costs much.
"""

# B utterances, T frames (25 per second), N frames of a batch end to end, D embedding width

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from commands.errors import InputError
from stage1_rvq.bucketed_batches import BucketedBatches
from stage1_rvq.data import EmbeddedUtterance, EmbeddingFolder
from stage1_rvq.recognizer import CTCRecognizer, ctc_loss, find_usable, load_recognizer


class TaskLoss:
    """Batches of transcribed utterances, and the frozen recogniser's loss on their quantised
    frames."""

    def __init__(
        self,
        recognizer_folder: Path,
        embeddings: EmbeddingFolder,
        *,
        batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        """
        Args:
            embeddings: training embeddings, with transcripts.
            batch_size: utterances per step, over all processes.

        Raises:
            InputError: no usable recogniser, another embedding width, or no transcribed utterance.
        """
        self.recognizer = freeze_for_gradients(load_recognizer(recognizer_folder, device=device))
        self.recognizer.refuse_other_width(embeddings.dim, flag="--embeddings")
        assert self.recognizer.units is not None
        self.units = self.recognizer.units
        self.embeddings = embeddings
        self.usable_N = find_usable(embeddings, self.units)
        if not len(self.usable_N):
            raise InputError("--recognizer needs embeddings with transcripts, there are none")
        lengths_N = embeddings.num_frames_N[self.usable_N.numpy()]
        self.batches = BucketedBatches(lengths_N, batch_size, seed)

    def utterances(self, step: int) -> list[EmbeddedUtterance]:
        """The utterances of one step, over all processes."""
        picks = self.usable_N[self.batches.at_step(step)]
        return [self.embeddings.utterances[i] for i in picks.tolist()]

    def frames(self, utterances: Sequence[EmbeddedUtterance]) -> Tensor:
        """Their embeddings end to end, float32 `[N, D]`."""
        return torch.cat([self.embeddings.read(u) for u in utterances])

    def __call__(self, utterances: Sequence[EmbeddedUtterance], decoded_ND: Tensor) -> Tensor:
        """CTC loss of the utterances' transcripts on their decoded frames, in nats per unit."""
        lengths = [u.num_frames for u in utterances]
        decoded_BTD = pad_sequence(list(decoded_ND.split(lengths)), batch_first=True)
        lengths_B = torch.tensor(lengths)
        log_probs_BTV = self.recognizer(decoded_BTD, lengths_B)
        return ctc_loss(log_probs_BTV, lengths_B, [u.text for u in utterances], self.units)


def freeze_for_gradients(recognizer: CTCRecognizer) -> CTCRecognizer:
    """A frozen recogniser through which gradients pass, with the same outputs as in evaluation
    mode.

    cuDNN refuses the backward pass of an LSTM in evaluation mode, so it stays in training mode,
    with its dropout off.
    """
    recognizer.requires_grad_(False).train()
    recognizer.lstm.dropout = 0.0
    for module in recognizer.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return recognizer
