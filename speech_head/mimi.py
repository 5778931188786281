"""Mimi, the speech head's codec: speech to codes, and codes to speech.

Mimi (Kyutai, arXiv:2410.00037; `kyutai/mimi`, CC-BY 4.0) turns 24 kHz mono speech into 12.5 frames
per second, one code per codebook. It is causal: nothing after a frame, including padding, affects
it.

    mimi = load_mimi("kyutai/mimi")
    [codes_FK] = mimi.encode([x_N])
    x_N = mimi.decode(codes_FK)

`mimi_stream.py` decodes while the codes are still being generated.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import MimiConfig, MimiModel
from transformers.models.mimi import modeling_mimi as layers

from commands.errors import InputError
from commands.pretrained import (
    one_line_errors,
    refuse_missing_tensors,
    refuse_other_kind,
    refuse_other_size,
)
from commands.tensor_files import refuse_non_finite_weights

# B utterances, F Mimi frames (12.5 per second), K codebooks (coarsest first), N samples (24,000 per
# second)

Device = torch.device | str
Tensors = TypeVar("Tensors", Tensor, list[Tensor])  # of one utterance, or of each of several


def load_mimi(
    name_or_folder: str | Path, *, num_codebooks: int = 8, device: Device = "cpu"
) -> "Mimi":
    """Load a frozen Mimi; it runs in float32, whatever precision it was saved in.

    Args:
        name_or_folder: `kyutai/mimi`, or a folder written by `save_pretrained` (needs no network).
        num_codebooks: how many codebooks to use, coarsest first; the released Mimi has 32.
        device: where it runs.

    Raises:
        InputError: not found, not a Mimi, weights are missing, or it has too few codebooks.
    """
    name = str(name_or_folder)
    with one_line_errors("--mimi", name):
        refuse_other_kind(name, ("mimi",))
        config = MimiConfig.from_pretrained(name)
        refuse_other_size(name, config, MimiModel)
        model, report = MimiModel.from_pretrained(
            name, trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    refuse_missing_tensors("--mimi", name, report)
    # state_dict, because its codebooks are buffers; they hold no infinity.
    refuse_non_finite_weights(model.state_dict().items(), where=f"--mimi {name}")
    return Mimi(model, num_codebooks=num_codebooks, device=device)


class Mimi:
    """A frozen Mimi. Not an `nn.Module`: a speech head that holds one never trains or saves it."""

    def __init__(self, model: MimiModel, *, num_codebooks: int = 8, device: Device = "cpu") -> None:
        """Take over `model`: cast, move and freeze it. InputError if it has too few codebooks."""
        config = model.config
        if not 1 <= num_codebooks <= config.num_quantizers:
            raise InputError(f"num_codebooks is {num_codebooks}, Mimi has {config.num_quantizers}")
        self.model = model.to(device, torch.float32).eval().requires_grad_(False)
        reset_codebook_caches(self.model)
        self.num_codebooks = num_codebooks  # K
        self.codebook_size: int = config.codebook_size  # codes are in [0, codebook_size)
        self.frame_size: int = config.frame_size  # samples per frame: 1920
        self.frame_rate_hz: float = config.frame_rate  # 12.5
        self.sample_rate_hz: int = config.sampling_rate  # 24,000
        self.device = torch.device(device)  # where it runs, and where results are

    def encode(self, waveforms: Sequence[Tensor | np.ndarray]) -> list[Tensor]:
        """Turn clips into codes; each clip gets the codes it would get alone.

        Args:
            waveforms: each [N], float32 at `sample_rate_hz`, N >= 1; lengths may differ.

        Returns:
            codes_FK of each clip, int64, F = ceil(N / frame_size): silence fills the last frame.

        Raises:
            InputError: a clip is not 1-D float32, is empty, or holds NaN or infinity.
        """
        clips = [torch.as_tensor(waveform) for waveform in waveforms]
        for i, x_N in enumerate(clips):
            if x_N.dtype != torch.float32 or x_N.ndim != 1 or len(x_N) == 0:
                found = f"{x_N.dtype} {list(x_N.shape)}"
                raise InputError(f"waveforms[{i}] is {found}, expected torch.float32 [N], N >= 1")
            if not x_N.isfinite().all():
                raise InputError(f"waveforms[{i}] holds NaN or infinity, expected finite samples")
        # transformers 5.23 ignores Mimi's padding mask. Padding whole frames does no harm, but a
        # frame cut short by the end of the batch gets other codes than one filled with silence.
        clips = [torch.nn.functional.pad(x_N, (0, -len(x_N) % self.frame_size)) for x_N in clips]
        x_BN = pad_sequence(clips, batch_first=True).to(self.device)
        with exact_float32(self.device):
            output = self.model.encode(x_BN[:, None], num_quantizers=self.num_codebooks)
        codes_BFK = output.audio_codes.transpose(1, 2)
        nums_frames = [len(x_N) // self.frame_size for x_N in clips]
        return [codes_FK[:n].clone() for codes_FK, n in zip(codes_BFK, nums_frames, strict=True)]

    def decode(self, codes: Tensors, num_samples: int | Sequence[int] | None = None) -> Tensors:
        """Turn codes into speech: a tensor for a tensor, a list for a list.

        Args:
            codes: codes_FK, int64 in [0, codebook_size), F >= 1; in a list, F may differ.
            num_samples: how many samples to keep, at most F * frame_size; None keeps all.

        Returns:
            x_N, float32 at `sample_rate_hz`.

        Raises:
            InputError: wrong shape, type or range (end-of-speech codes must be removed first).
        """
        if isinstance(codes, Tensor):
            assert num_samples is None or isinstance(num_samples, int)
            return self.decode([codes], None if num_samples is None else [num_samples])[0]
        for i, codes_FK in enumerate(codes):
            refuse_bad_codes(codes_FK, self, f"codes[{i}]", "[F, K]")
        lengths = [len(codes_FK) * self.frame_size for codes_FK in codes]
        kept = lengths if num_samples is None else num_samples
        assert not isinstance(kept, int), "several utterances, and one length"
        for n, length in zip(kept, lengths, strict=True):
            if not 1 <= n <= length:
                raise InputError(f"num_samples is {n}, expected 1 to {length}")
        codes_BFK = pad_sequence(codes, batch_first=True).to(self.device)
        with exact_float32(self.device):
            x_BN = self.model.decode(codes_BFK.transpose(1, 2)).audio_values[:, 0]
        return [x_N[:n].clone() for x_N, n in zip(x_BN, kept, strict=True)]


def refuse_other_codec(mimi: Mimi, *, expected_by: str, **expected: float) -> None:
    """Raise InputError if a Mimi is not the one that a head, or its states, were made for.

    Args:
        expected_by: beginning of the message, e.g. "--head was trained on".
        expected: `num_codebooks`, `codebook_size`, `frame_rate_hz`.
    """
    for name, value in expected.items():
        found = getattr(mimi, name)
        if found != value:
            raise InputError(f"--mimi has {name} = {found}, {expected_by} {value}")


def reset_codebook_caches(model: MimiModel) -> None:
    """Make `model` reread its codebooks after they were changed, cast or moved.

    From its first use on, transformers 5.23 keeps each table in a plain attribute, which neither
    `load_state_dict` nor `to` updates: the old codebook silently stays in use, or types clash.
    """
    for module in model.modules():
        if isinstance(module, layers.MimiEuclideanCodebook):
            module._embed = None


def tiny_mimi(seed: int = 0) -> MimiModel:
    """Build a small `MimiModel` with random weights for tests: real in all but size and sound.

    24 kHz, 12.5 frames per second, 8 codebooks of 64, 147 k parameters, attention over 4 frames.
    With the library's own initialisation tests would detect little: codebooks are zero, and
    transformers nearly so.
    """
    width = {"hidden_size": 32, "upsample_groups": 32, "intermediate_size": 64, "codebook_dim": 16}
    codes = {"num_quantizers": 8, "codebook_size": 64, "vector_quantization_hidden_dimension": 16}
    sizes = {"num_filters": 4, "num_hidden_layers": 2, "sliding_window": 8}
    scale = {"initializer_range": 0.2, "layer_scale_initial_scale": 0.5}
    return random_mimi(MimiConfig(**width, **codes, **sizes, **scale), seed)


@torch.no_grad()
def random_mimi(config: MimiConfig, seed: int = 0) -> MimiModel:
    """Build a `MimiModel` with random weights, and codebooks that are not all zero."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = MimiModel(config).eval()
        for module in model.modules():
            if isinstance(module, layers.MimiEuclideanCodebook):
                module.embed_sum.normal_(std=3.0)  # about the spread of the latents
    return model


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Compute in full float32, without gradients, whatever precision the caller trains in.

    A code is the nearest neighbour of a residual, so rounding matters: bfloat16 changes 9 % of the
    codes, TF32 2 % (full size, random weights), and torch 2.13 uses TF32 in CUDA convolutions by
    default.
    """
    conv: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # torch 2.13
    matmul = torch.backends.cuda.matmul
    before = conv.fp32_precision, matmul.fp32_precision
    conv.fp32_precision = matmul.fp32_precision = "ieee"
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        conv.fp32_precision, matmul.fp32_precision = before


def refuse_bad_codes(codes: Tensor, mimi: Mimi, name: str, dims: str) -> None:
    """Refuse what Mimi cannot decode; on a GPU, a code out of range would kill the process."""
    is_shaped = codes.ndim == dims.count(",") + 1 and codes.shape[-1] == mimi.num_codebooks
    if codes.dtype != torch.int64 or not is_shaped or codes.numel() == 0:
        expected = f"torch.int64 {dims} with K = {mimi.num_codebooks}, F >= 1"
        raise InputError(f"{name} is {codes.dtype} {list(codes.shape)}, expected {expected}")
    low, high, size = codes.min().item(), codes.max().item(), mimi.codebook_size
    if low < 0 or high >= size:
        raise InputError(f"{name} has codes from {low} to {high}, expected 0 to {size - 1}")
