"""Checks of what stages 1 and 2 rely on in Gemma's audio tower."""

# T frames (25 per second), D embedding width

import torch

from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from gemma4.feature_extractors import SAMPLES_PER_FRAME
from gemma4.gemma import PIECE_FRAMES, AudioEncoder
from pipeline.preflight_checks import UNTESTED, Check, Sounds, make_sound, refuse_difference

# Relative norm of the difference that is allowed, in float32: weights drawn from the published
# figures alone, which are chaotic, stay below a fifth of it (1.6e-5;
# `python -m benchmarks.rounding --size e2b`).
TOWER_LIMIT = 1e-3


def tower_checks(encoder: AudioEncoder, sounds: Sounds) -> list[Check]:
    """What holds for a tower and has no meaning for patches.

    Args:
        encoder: in float32, as stage 1 runs it.
    """

    def pieces_are_one_shot() -> str:
        num_samples = (PIECE_FRAMES + 50) * SAMPLES_PER_FRAME
        sound_N = make_sound(num_samples, GEMMA_SAMPLE_RATE_HZ)
        [at_once] = encoder.encode_at_once([sound_N])
        [in_pieces] = encoder.encode([sound_N])
        return refuse_difference(in_pieces, at_once, TOWER_LIMIT)

    def unit_rms() -> str:
        [frames_TD] = encoder.encode([sounds.gemma_N])
        rms_T = (frames_TD / encoder.frame_scale_D).square().mean(dim=1).sqrt()
        return "RMS: " + refuse_difference(rms_T, torch.ones_like(rms_T), TOWER_LIMIT)

    return [
        Check("long speech in pieces = at once", pieces_are_one_shot, UNTESTED),
        Check("embeddings have unit size after the norm", unit_rms, UNTESTED),
    ]
