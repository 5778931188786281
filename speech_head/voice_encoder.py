"""A few seconds of Mimi codes -> the voice that speaks in them, as one vector.

The vector is added to every input of the head's temporal transformer. It is learned with the head:
in training, the voice of an utterance is read from another recording of the same speaker, so that
it can hold how somebody sounds, and not what is said (`references.py`), and the encoder is asked
whose voice it is (`SpeechHead.name_voice`).
"""

# B recordings, R frames of a recording (12.5 per second), K codebooks, E width of a voice

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

VOICE_WIDTH = 64
MIN_VOICE_S, MAX_VOICE_S = 1.0, 10.0  # of a recording that shows a voice


class VoiceEncoder(nn.Module):
    """Reads each frame by itself, and takes a weighted mean of what it read.

    The order of the frames does not matter, and padding changes nothing.
    """

    def __init__(self, num_codebooks: int, codebook_size: int, voice_width: int) -> None:
        super().__init__()
        self.num_codebooks, self.codebook_size = num_codebooks, codebook_size
        self.embed_codes = nn.EmbeddingBag(num_codebooks * codebook_size, voice_width, mode="sum")
        # A frame is the sum of K embeddings, and should have the size of one.
        nn.init.normal_(self.embed_codes.weight, std=num_codebooks**-0.5)
        # What a frame says of the voice, and last, how much it counts.
        self.read = nn.Sequential(
            nn.Linear(voice_width, 2 * voice_width),
            nn.GELU(),
            nn.Linear(2 * voice_width, voice_width + 1),
        )

    def forward(self, codes_BRK: Tensor, mask_BR: Tensor) -> Tensor:
        """Encode recordings.

        Args:
            codes_BRK: int64, Mimi codes.
            mask_BR: bool, True at real frames, of which each recording has at least one.

        Returns:
            voices_BE, float, of unit RMS.
        """
        offsets_K = torch.arange(self.num_codebooks, device=codes_BRK.device) * self.codebook_size
        flat_NE = self.embed_codes((codes_BRK + offsets_K).reshape(-1, self.num_codebooks))
        read_BRE = self.read(flat_NE.view(*codes_BRK.shape[:2], -1))
        scores_BR = read_BRE[..., -1].masked_fill(~mask_BR, -torch.inf)
        weights_BR = scores_BR.softmax(dim=1)
        return unit_voice(torch.einsum("br,bre->be", weights_BR, read_BRE[..., :-1]))

    @torch.no_grad()
    def mean(self, recordings: Sequence[Tensor]) -> Tensor:
        """One voice from several recordings of it.

        Args:
            recordings: int64, Mimi codes `[R, K]` of each.

        Returns:
            voice_E, float, of unit RMS.
        """
        real = [torch.ones(len(codes_RK), dtype=torch.bool) for codes_RK in recordings]
        codes_BRK = pad_sequence(list(recordings), batch_first=True)
        device = self.embed_codes.weight.device
        voices_BE = self(codes_BRK.to(device), pad_sequence(real, batch_first=True).to(device))
        return unit_voice(voices_BE.mean(dim=0))


def unit_voice(voices_BE: Tensor) -> Tensor:
    """Voices, scaled to unit RMS."""
    return F.rms_norm(voices_BE, voices_BE.shape[-1:])
