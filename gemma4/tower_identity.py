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
    """Fingerprints of a tower, from its last norm and its output projection: milliseconds, where
    all of its 305 M weights would take seconds.

    Weights are rounded to bfloat16 first, as Gemma 4 is published, so that a float32 copy of a
    checkpoint is the same tower.
    """
    norm_D, project = tower.layers[-1].norm_out.weight, tower.output_proj
    weights = [norm_D, project.weight, *([] if project.bias is None else [project.bias])]
    rounded = [weight.detach().to(torch.bfloat16) for weight in weights]
    return Origin(tower=fingerprint_tensors(rounded), norm=norm_fingerprint(norm_D))


def norm_fingerprint(weight_D: Tensor) -> str:
    """Fingerprint of the weight of a tower's last norm; "" for ones, which stand where a model was
    told of no tower."""
    if bool((weight_D == 1).all()):
        return ""
    return fingerprint_tensors([weight_D.detach().to(torch.bfloat16)])
