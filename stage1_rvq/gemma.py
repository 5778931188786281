"""The one door through which Gemma 4 enters: tower, full model, tokenizer, and a tiny random one.

Classes of transformers are used as they are, so real checkpoints ("google/gemma-4-E4B-it") load
unchanged; an extracted audio encoder ("rnagabh/gemma4-audio-encoder") is enough for stage 1.
"""

# B utterances, T frames (25 per second), D embedding width (1024)

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import HfHubHTTPError, StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoTokenizer,
    Gemma4AudioConfig,
    Gemma4AudioFeatureExtractor,
    Gemma4AudioModel,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4TextConfig,
    Gemma4VisionConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from data_manifests.config import InputError
from stage1_rvq.audio_tower import fast_cpu_forward, stock_forward
from stage1_rvq.weight_quantization import QuantizeName, weight_quantization

FRAME_RATE_HZ = 25.0  # 10 ms mel hop, subsampled by 4
SAMPLES_PER_FRAME = 640
# Fewer samples do not fill one analysis window of the feature extractor.
MIN_SAMPLES = 161
# The tower sees 181 frames to the left at most (12 layers x 12-frame chunks, measured); pieces of a
# long recording carry this much context, so that they equal one-shot encoding.
LEFT_CONTEXT_FRAMES = 192
PIECE_FRAMES = 750
# transformers 5.23 refuses the plain string "sdpa" for any Gemma 4 with an audio tower.
ATTENTION = {"text_config": "sdpa", "vision_config": "sdpa", "audio_config": "eager"}

# What `from_pretrained` raises; the last three of transformers' own libraries are no OSErrors.
LOADING_ERRORS = (
    OSError, ValueError, KeyError, RuntimeError, ImportError, HfHubHTTPError, SafetensorError,
    StrictDataclassError,
)  # fmt: skip


def count_audio_tokens(num_samples: int) -> int:
    """Number of audio embeddings (and `<|audio|>` slots) of a 16 kHz recording of any length.

    Source: `Gemma4Processor._compute_audio_num_tokens` of transformers 5.23, without its 30 s cap.
    """
    num_mel_frames = max(0, (num_samples - MIN_SAMPLES) // 160 + 1)
    return math.ceil(num_mel_frames / 4)


class AudioEncoder:
    """Gemma 4's audio tower up to its last projection: 16 kHz waveforms -> embeddings, 25 a second.

    Attributes:
        dim: embedding width (1024 in E2B and E4B).
        frame_scale_D: the last norm's weight; embeddings divided by it have unit RMS per frame.
    """

    def __init__(
        self,
        tower: Gemma4AudioModel,
        extractor: Gemma4AudioFeatureExtractor,
        *,
        fast_cpu: bool = False,
    ) -> None:
        """
        Args:
            tower: stock module, on its device and in its dtype.
            extractor: its mel front end.
            fast_cpu: compute the tower by `audio_tower.fast_cpu_forward`: about twice as fast, and
                equal up to rounding, but not bit for bit what Gemma itself hears of the same
                recording.

        Raises:
            InputError: `fast_cpu` with a tower that is not on the CPU.
        """
        if fast_cpu and tower.device.type != "cpu":
            raise InputError(f"--fast-cpu is for the CPU, --device is {tower.device}")
        self.fast_cpu = fast_cpu
        self.tower = tower.eval().requires_grad_(False)
        self.extractor = extractor
        self.dim = tower.config.hidden_size
        self.frame_scale_D = tower.layers[-1].norm_out.weight.detach().float().cpu()

    @torch.no_grad()
    def encode(self, waveforms: Sequence[np.ndarray]) -> list[Tensor]:
        """Encode recordings of any length.

        Padding changes nothing, and a recording beyond 30 s is encoded in pieces with 192 frames of
        left context, which equals encoding it at once (the tower is causal).

        Args:
            waveforms: mono float32 in [-1, 1] at 16 kHz, each `[num_samples]`.

        Returns:
            One float32 tensor `[T_i, D]` a recording, on the CPU, before `output_proj`.

        Raises:
            InputError: a recording is shorter than one frame.
        """
        for waveform in waveforms:
            self.refuse_too_short(waveform)
        if max(map(len, waveforms)) <= PIECE_FRAMES * SAMPLES_PER_FRAME:
            return self._encode_batch(list(waveforms))
        return [
            torch.cat([self._encode_batch([piece])[0][skip:keep] for piece, skip, keep in pieces])
            for pieces in map(_cut_into_pieces, waveforms)
        ]

    @staticmethod
    def refuse_too_short(waveform: np.ndarray) -> None:
        """InputError for a recording without a single frame."""
        if len(waveform) < MIN_SAMPLES:
            raise InputError(
                f"too short for one frame: {len(waveform)} samples at 16 kHz, {MIN_SAMPLES} needed"
            )

    def _encode_batch(self, waveforms: list[np.ndarray]) -> list[Tensor]:
        # Always a list: a bare array crashes the extractor. No truncation: its default drops what
        # is beyond 30 s without a word.
        features = self.extractor(
            waveforms, sampling_rate=GEMMA_SAMPLE_RATE_HZ, return_tensors="pt", truncation=False,
            max_length=None,
        )  # fmt: skip
        weight = self.tower.output_proj.weight
        forward = fast_cpu_forward if self.fast_cpu else stock_forward
        frames_BTD, mask_BT = forward(
            self.tower,
            features["input_features"].to(weight.device, weight.dtype),
            features["input_features_mask"].to(weight.device),
        )
        frames_BTD, mask_BT = frames_BTD.float().cpu(), mask_BT.cpu()
        return [frames[mask] for frames, mask in zip(frames_BTD, mask_BT, strict=True)]


def _cut_into_pieces(waveform: np.ndarray) -> Iterator[tuple[np.ndarray, int, int]]:
    """Pieces of a recording as (samples, first frame to keep, end of the frames to keep)."""
    num_frames = count_audio_tokens(len(waveform))
    for first in range(0, num_frames, PIECE_FRAMES):
        end = min(first + PIECE_FRAMES, num_frames)
        start = max(0, first - LEFT_CONTEXT_FRAMES)
        # One sample more than the frames cover: the last mel frame needs it to be what it is in the
        # whole.
        stop = len(waveform) if end == num_frames else end * SAMPLES_PER_FRAME + 1
        yield waveform[start * SAMPLES_PER_FRAME : stop], first - start, end - start


def load_audio_encoder(
    name: str, *, device: torch.device, dtype: torch.dtype, fast_cpu: bool = False
) -> AudioEncoder:
    """Load the audio tower of a checkpoint.

    Args:
        name: hub name or local folder of a full Gemma 4 E2B/E4B checkpoint or an extracted encoder.
        device: where it runs.
        dtype: its precision; float32 unless speed matters more than reproducible codes.
        fast_cpu: as `AudioEncoder`.

    Raises:
        InputError: not found, not a Gemma 4 with an audio tower, or tensors are missing.
    """
    with one_line_errors("--gemma", name):
        tower, report = Gemma4AudioModel.from_pretrained(
            name, dtype=dtype, output_loading_info=True
        )
        extractor = Gemma4AudioFeatureExtractor.from_pretrained(name)
    refuse_missing_tensors(name, report["missing_keys"])
    return AudioEncoder(tower.to(device), extractor, fast_cpu=fast_cpu)


def load_gemma(
    name: str, *, device: torch.device, dtype: torch.dtype, quantize: QuantizeName = "none"
) -> tuple[Gemma4ForConditionalGeneration, PreTrainedTokenizerBase]:
    """Load a full checkpoint, frozen and in evaluation mode, with its tokenizer and chat template.

    Args:
        name: hub name or local folder.
        device: where it runs.
        dtype: its precision; with `quantize`, of what is not quantised.
        quantize: bits of the decoder's linear maps (see `weight_quantization`).

    Raises:
        InputError: not found, not a full Gemma 4, tensors are missing, or no chat template.
    """
    settings: dict[str, Any] = {}
    if quantization := weight_quantization(quantize, dtype):
        # Quantised as they are loaded, so where they will stay.
        settings = {"quantization_config": quantization, "device_map": {"": device}}
    with one_line_errors("--gemma", name):
        model, report = Gemma4ForConditionalGeneration.from_pretrained(
            name, dtype=dtype, attn_implementation=ATTENTION, output_loading_info=True, **settings
        )
    refuse_missing_tensors(name, report["missing_keys"])
    if not quantization:
        model.to(device)
    return model.eval().requires_grad_(False), load_tokenizer(name)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a checkpoint's tokenizer and chat template; InputError where it has none."""
    with one_line_errors("--gemma", name):
        tokenizer = AutoTokenizer.from_pretrained(name)
    if tokenizer.chat_template is None:
        raise InputError(
            f"--gemma {name}: no chat template; name an instruction-tuned checkpoint (-it)"
        )
    return tokenizer


def load_feature_extractor(name: str) -> Gemma4AudioFeatureExtractor:
    """Load the mel front end of a checkpoint."""
    with one_line_errors("--gemma", name):
        return Gemma4AudioFeatureExtractor.from_pretrained(name)


def refuse_missing_tensors(name: str, missing_keys: Sequence[str]) -> None:
    """InputError where transformers filled absent tensors with random numbers."""
    if missing_keys:
        examples = ", ".join(sorted(missing_keys)[:3])
        raise InputError(f"--gemma {name}: {len(missing_keys)} tensor(s) missing, e.g. {examples}")


def tiny_gemma(
    vocabulary_size: int, special_ids: dict[str, int], seed: int = 0
) -> Gemma4ForConditionalGeneration:
    """A real Gemma 4 of about 0.6 M random parameters, shaped like E4B in every way that matters.

    Sliding and full layers, shared keys and values, per-layer embeddings, logit softcap; for tests
    and for the offline demo. Weights are drawn so that no norm, bias or scale is trivially one or
    zero.

    Args:
        vocabulary_size: of its tokenizer.
        special_ids: ids of "boi eoi image video boa eoa audio pad bos eos turn_end" in that
            tokenizer.
        seed: of the random weights.
    """
    text = Gemma4TextConfig(
        vocab_size=vocabulary_size, vocab_size_per_layer_input=vocabulary_size, hidden_size=64,
        intermediate_size=128, num_hidden_layers=8, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, global_head_dim=32, hidden_size_per_layer_input=8, num_kv_shared_layers=3,
        sliding_window=64, max_position_embeddings=4096, final_logit_softcapping=30.0,
        layer_types=["full_attention" if i % 4 == 3 else "sliding_attention" for i in range(8)],
        pad_token_id=special_ids["pad"], bos_token_id=special_ids["bos"],
        eos_token_id=special_ids["eos"],
    )  # fmt: skip
    audio = Gemma4AudioConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, output_proj_dims=48,
        subsampling_conv_channels=[128, 32],  # the first must equal the number of mel bands
    )  # fmt: skip
    config = small_config(text, audio, special_ids)
    model = Gemma4ForConditionalGeneration._from_config(config, attn_implementation=ATTENTION)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() >= 2:
                fan_in = parameter[0].numel()
                std = 0.05 if "embed_tokens" in name else 0.8 / math.sqrt(fan_in)
                parameter.copy_(std * noise)
            else:
                parameter.copy_((1.0 if "norm" in name else 0.0) + 0.1 * noise)
        for name, buffer in model.named_buffers():
            if name.endswith("layer_scalar"):
                buffer.fill_(0.7)
    model.generation_config.eos_token_id = [special_ids["eos"], special_ids["turn_end"]]
    model.generation_config.pad_token_id = special_ids["pad"]
    model.generation_config.bos_token_id = special_ids["bos"]
    return model.eval()


def small_config(
    text: Gemma4TextConfig, audio: Gemma4AudioConfig, special_ids: dict[str, int]
) -> Gemma4Config:
    """Decoder and tower -> a full Gemma 4 configuration, with the least vision tower there can be.

    Args:
        text: of the decoder.
        audio: of the tower.
        special_ids: ids of "boi eoi image video boa eoa audio" in the tokenizer.
    """
    # Never used, but without a configuration of its own it would have 300 MB.
    vision = Gemma4VisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, position_embedding_size=64, use_clipped_linears=True,
    )  # fmt: skip
    return Gemma4Config(
        text_config=text, audio_config=audio, vision_config=vision,
        boi_token_id=special_ids["boi"], eoi_token_id=special_ids["eoi"],
        image_token_id=special_ids["image"], video_token_id=special_ids["video"],
        boa_token_id=special_ids["boa"], eoa_token_index=special_ids["eoa"],
        audio_token_id=special_ids["audio"],
    )  # fmt: skip


@contextlib.contextmanager
def one_line_errors(flag: str, name: str) -> Iterator[None]:
    """Turn the many errors of a failed `from_pretrained` into one `InputError`, and quieten it.

    Args:
        flag: that named the model, for the message.
        name: what the user gave: a folder, or a hub name.
    """
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    except LOADING_ERRORS as error:
        where = "" if Path(name).is_dir() else " (no such folder, so looked up as a hub name)"
        reason = str(error).strip().splitlines()[0][:200]
        raise InputError(f"{flag} {name}: cannot be loaded{where}: {reason}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
