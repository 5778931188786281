"""Which audio tower a Gemma 4 has: a fingerprint of it, for `commands.origins`.

E2B's and E4B's towers have the same shapes, and their embeddings mean other sounds.
"""

# D embedding width

import torch
from torch import Tensor
from transformers import Gemma4AudioModel

from commands.origins import Origin
from commands.tensor_files import fingerprint_tensors


def tower_origin(tower: Gemma4AudioModel) -> Origin:
    """Fingerprints of a tower: of its last norm and its output projection, and then of all of its
    weights and of the bounds at which it clips, 305 M numbers, which takes a second.

    The first half alone is what older versions recorded; it cannot tell a tower that was fine-tuned
    below its last norm. Weights are rounded to bfloat16 first, as Gemma 4 is published, so that a
    float32 copy of a checkpoint is the same tower.
    """
    norm_D, project = tower.layers[-1].norm_out.weight, tower.output_proj
    last = [norm_D, project.weight, *([] if project.bias is None else [project.bias])]
    state = tower.state_dict()
    everything = (_rounded(state[name]) for name in sorted(state))
    return Origin(
        tower=fingerprint_tensors(map(_rounded, last)) + fingerprint_tensors(everything),
        norm=norm_fingerprint(norm_D),
    )


def rounded_weights(tower: Gemma4AudioModel) -> dict[str, Tensor]:
    """What the fingerprint of a whole tower is taken of, by name."""
    return {name: _rounded(weight) for name, weight in sorted(tower.state_dict().items())}


def _rounded(weight: Tensor) -> Tensor:
    weight = weight.detach()
    return weight.to(torch.bfloat16) if weight.is_floating_point() else weight


def norm_fingerprint(weight_D: Tensor) -> str:
    """Fingerprint of the weight of a tower's last norm; "" for ones, which stand where a model was
    told of no tower."""
    if bool((weight_D == 1).all()):
        return ""
    return fingerprint_tensors([_rounded(weight_D)])
