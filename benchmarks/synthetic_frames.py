"""Synthetic frames with the statistics of speech embeddings, for measurements without a corpus."""

# N frames, T frames of an utterance, D embedding width

import torch
from torch import Tensor

DIM = 1024
FRAMES_PER_UTTERANCE = 100


def make_frames(num_frames: int, *, seed: int) -> Tensor:
    """Frames made of sounds, speakers and noise: float32 `[N, 1024]`, unit RMS.

    Utterances last 4 s. A frame is the sum of one of 500 sounds (with Zipf-like frequencies, held
    for 1 to 7 frames), a speaker, noise that is correlated over a few frames, and a mean shared by
    all frames. The first three each have variance 1 / i in the i-th of 1024 randomly rotated
    directions.
    """
    world = torch.Generator().manual_seed(0)
    scale_D = torch.arange(1, DIM + 1).rsqrt()
    sounds = torch.randn(500, DIM, generator=world)
    rotation_DD = torch.linalg.qr(torch.randn(DIM, DIM, generator=world)).Q
    mean_D = torch.randn(DIM, generator=world)
    frequencies = torch.arange(1, 501).pow(-0.7)
    generator = torch.Generator().manual_seed(seed)
    length, utterances = FRAMES_PER_UTTERANCE, []
    for _ in range(-(-num_frames // length)):
        held = torch.randint(1, 8, (length,), generator=generator)
        said = torch.multinomial(frequencies, length, replacement=True, generator=generator)
        speaker_D = torch.randn(DIM, generator=generator)
        noise_TD = torch.randn(length, DIM, generator=generator)
        for t in range(1, length):
            noise_TD[t] = 0.7 * noise_TD[t - 1] + (1 - 0.7**2) ** 0.5 * noise_TD[t]
        sound_TD = sounds[said.repeat_interleave(held)[:length]]
        utterances.append(0.7 * sound_TD + 0.25 * speaker_D + 0.6 * noise_TD + 0.5 * mean_D)
    frames_ND = (torch.cat(utterances)[:num_frames] * scale_D) @ rotation_DD
    return frames_ND / frames_ND.square().mean(dim=1, keepdim=True).sqrt()
