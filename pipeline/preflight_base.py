"""Checks of a Gemma that others have changed: does it hear as the one that it was made from?

Whoever fine-tunes Gemma 4 may leave its audio tower as it is, or train it too. Only in the first
case do embeddings, codes, quantisers, recognisers and adapters that were made with the base belong
to the new model as well. Shapes do not show it; fingerprints do, and the share of codes that stay.
"""

# T frames (25 per second), D embedding width, K codebooks

import math

import torch
from torch import Tensor

from commands.errors import InputError
from gemma4.gemma import AudioEncoder, load_audio_encoder
from gemma4.tower_identity import rounded_weights
from pipeline.preflight_checks import Check, Sounds, float32_encoder, relative_difference
from pipeline.preflight_tower import TOWER_LIMIT
from stage1_rvq.model import load_rvq

FLAG = "--base-gemma"
REMEDY = (
    "what was made with the base is not for this one: begin at stage1_rvq.embed with this Gemma; "
    "where nearly all codes are equal, --allow-mixture lets them pass"
)


def base_checks(
    base: str,
    encoder: AudioEncoder,
    sounds: Sounds,
    rvq: str | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> list[Check]:
    """Whether a Gemma hears as its base does; loads the base's audio tower.

    Args:
        base: hub name or folder of the base, or of an encoder that was extracted from it.
        encoder: the tower of the Gemma that is checked, in float32.
        sounds: what both hear.
        rvq: quantiser, to say how many codes are equal; None says how far embeddings are apart.
        device: where the models run.
        dtype: in which the weights of `encoder` were loaded; those of the base are rounded alike.

    Raises:
        InputError: the base or the quantiser cannot be loaded.
    """
    of_base = float32_encoder(load_audio_encoder(base, device=device, dtype=dtype, flag=FLAG))
    quantizer = load_rvq(rvq, device=device) if rvq else None

    def same_tower() -> str:
        weights = compare_weights(of_base, encoder)
        pair = [one.encode([sounds.gemma_N])[0] for one in (of_base, encoder)]
        distance = relative_difference(pair[1], pair[0])
        heard = f"embeddings differ by {distance:.1e}"
        if quantizer and quantizer.config.dim == encoder.dim:
            codes = [quantizer.encode(frames_TD.to(device)) for frames_TD in pair]
            heard += f", {describe_equal_codes(*codes)}"
        if not sounds.is_speech:
            heard += " (of a tone: --recording says more)"
        if of_base.origin.tower != encoder.origin.tower:
            raise InputError(f"{weights}; {heard}")
        if distance > TOWER_LIMIT:
            raise InputError(
                f"{weights}, but another front end (preprocessor_config.json): {heard}"
            )
        return f"{weights}: codes carry over; {heard}; fingerprint {encoder.origin.tower}"

    return [Check(f"audio tower is that of {FLAG}", same_tower, REMEDY)]


def compare_weights(base: AudioEncoder, other: AudioEncoder) -> str:
    """How many tensors of two towers differ, and by how much (norm of the difference, relative to
    the base's), after both are rounded as fingerprints round them.

    Raises:
        InputError: they are not of the same shapes.
    """
    weights, others = rounded_weights(base.tower), rounded_weights(other.tower)
    shapes, other_shapes = ({k: v.shape for k, v in w.items()} for w in (weights, others))
    if shapes != other_shapes:
        raise InputError(
            f"a tower of another shape: {len(others)} tensors, {len(weights)} in the base"
        )
    changed = [name for name in weights if not torch.equal(weights[name], others[name])]
    if not changed:
        return f"the same {len(weights)} tensors"
    change = norm = 0.0
    for name in changed:
        first, then = weights[name].double(), others[name].double()
        if first.isfinite().all() and then.isfinite().all():  # bounds of clipping may not be
            change += float((then - first).square().sum())
            norm += float(first.square().sum())
    by = f", by {math.sqrt(change / norm):.1e} of their norm" if norm > 0 else ""
    return f"{len(changed)} of {len(weights)} tensors differ{by}, first {changed[0]}"


def describe_equal_codes(first_TK: Tensor, other_TK: Tensor) -> str:
    """Share of codes that are the same, of all codebooks and of the coarsest."""
    same_TK = (first_TK == other_TK).float()
    return (
        f"{same_TK.mean().item():.1%} of codes are equal, {same_TK[:, 0].mean().item():.1%} of the "
        "coarsest"
    )
