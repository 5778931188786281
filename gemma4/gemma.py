"""The only module that loads Gemma 4: audio tower, full model, tokenizer.

The classes of transformers are used unchanged, so real checkpoints ("google/gemma-4-E4B-it") load
unchanged; an extracted audio encoder ("rnagabh/gemma4-audio-encoder") is enough for stage 1.
"""

# B utterances, T frames (25 per second), D embedding width (1024), M mel frames, F mel bins

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    Gemma4AudioConfig,
    Gemma4AudioFeatureExtractor,
    Gemma4AudioModel,
    PreTrainedTokenizerBase,
)

from commands.device import full_float32
from commands.errors import InputError
from commands.json_files import read_json
from commands.pretrained import (
    one_line_errors,
    refuse_missing_tensors,
    refuse_other_kind,
    refuse_other_size,
)
from commands.tensor_files import refuse_non_finite_weights
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from gemma4.audio_tower import fast_cpu_forward, stock_forward
from gemma4.chat_template import refuse_unusable_template
from gemma4.feature_extractors import MIN_SAMPLES, SAMPLES_PER_FRAME, load_feature_extractor
from gemma4.float32_products import compute_in_float32, needs_float32
from gemma4.kinds import KINDS, TOWER, WITHOUT_TOWER, AnyGemma, AnyGemmaConfig
from gemma4.prepared_audio import FeatureBatch, PreparedAudio
from gemma4.tower_identity import tower_origin
from gemma4.weight_quantization import QuantizeName, weight_quantization

FRAME_RATE_HZ = 25.0  # 10 ms mel hop, subsampled by 4
# The tower sees at most 181 frames to the left (12 layers x 12-frame chunks, measured); each piece
# of a long recording gets this much context, so that the result equals encoding it at once.
LEFT_CONTEXT_FRAMES = 192
PIECE_FRAMES = 750
# Tokens of its tokenizer: those around speech and in its place, and the end of a turn.
MARKS = ("<|audio>", "<|audio|>", "<audio|>", "<turn|>")


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
        output_proj_PD: weight of the projection through which embeddings go on to the decoder.
        origin: the tower's fingerprints.
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
            fast_cpu: run the tower with `audio_tower.fast_cpu_forward`: about twice as fast, and
                equal up to rounding, but not bit for bit what Gemma itself computes for the same
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
        self.output_proj_PD = tower.output_proj.weight.detach().float().cpu()
        self.origin = tower_origin(tower)

    def encode(self, waveforms: Sequence[np.ndarray]) -> list[Tensor]:
        """Encode recordings of any length.

        Padding does not change the result. A recording longer than 30 s is encoded in pieces with
        192 frames of left context, which equals encoding it at once (the tower is causal).

        Args:
            waveforms: mono float32 in [-1, 1] at 16 kHz, each `[num_samples]`.

        Returns:
            One float32 tensor `[T_i, D]` per recording, on the CPU, before `output_proj`.

        Raises:
            InputError: a recording is shorter than one frame.
        """
        return self.encode_prepared(self.prepare(waveforms))

    def prepare(self, waveforms: Sequence[np.ndarray]) -> PreparedAudio:
        """The part of `encode` that a CPU does, in any thread; arguments and InputError as there.
        Most of it is NumPy that lets other threads compute meanwhile."""
        for waveform in waveforms:
            self.refuse_too_short(waveform)
        if max(map(len, waveforms)) <= PIECE_FRAMES * SAMPLES_PER_FRAME:
            return PreparedAudio((FeatureBatch(*self.log_mel(waveforms)),))
        cut = [list(_cut_into_pieces(waveform)) for waveform in waveforms]
        return PreparedAudio(
            tuple(FeatureBatch(*self.log_mel([piece])) for pieces in cut for piece, _, _ in pieces),
            tuple(tuple(slice(skip, keep) for _, skip, keep in pieces) for pieces in cut),
        )

    @torch.no_grad()
    def encode_prepared(self, prepared: PreparedAudio) -> list[Tensor]:
        """The part of `encode` that the device does; returns what that returns."""
        if not prepared.kept:
            return self._run(prepared.batches[0])
        pieces = (self._run(batch)[0] for batch in prepared.batches)
        return [torch.cat([next(pieces)[kept] for kept in of_one]) for of_one in prepared.kept]

    @staticmethod
    def refuse_too_short(waveform: np.ndarray) -> None:
        """Raise InputError for a recording that is too short for one frame."""
        if len(waveform) < MIN_SAMPLES:
            raise InputError(
                f"too short for one frame: {len(waveform)} samples at 16 kHz, {MIN_SAMPLES} needed"
            )

    @torch.no_grad()
    def encode_at_once(self, waveforms: Sequence[np.ndarray]) -> list[Tensor]:
        """Like `encode`, but in one forward pass even for long recordings: memory grows with
        length."""
        return self._run(FeatureBatch(*self.log_mel(waveforms)))

    def _run(self, batch: FeatureBatch) -> list[Tensor]:
        weight = self.tower.output_proj.weight
        forward = fast_cpu_forward if self.fast_cpu else stock_forward
        with full_float32():
            frames_BTD, mask_BT = forward(
                self.tower,
                batch.features_BMF.to(weight.device, weight.dtype),
                batch.mask_BM.to(weight.device),
            )
        frames_BTD, mask_BT = frames_BTD.float().cpu(), mask_BT.cpu()
        return [frames[mask] for frames, mask in zip(frames_BTD, mask_BT, strict=True)]

    def log_mel(self, waveforms: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """What the tower is given of recordings, as `encode`: log-mel features `[B, M, F]`, float32
        on the CPU, and a mask `[B, M]`, True at real frames (100 per second)."""
        # Always a list: a bare array crashes the extractor. No truncation: by default it silently
        # drops what is beyond 30 s.
        features = self.extractor(
            list(waveforms), sampling_rate=GEMMA_SAMPLE_RATE_HZ, return_tensors="pt",
            truncation=False, max_length=None,
        )  # fmt: skip
        return features["input_features"], features["input_features_mask"]


def _cut_into_pieces(waveform: np.ndarray) -> Iterator[tuple[np.ndarray, int, int]]:
    """Pieces of a recording as (samples, first frame to keep, end of the frames to keep)."""
    num_frames = count_audio_tokens(len(waveform))
    for first in range(0, num_frames, PIECE_FRAMES):
        end = min(first + PIECE_FRAMES, num_frames)
        start = max(0, first - LEFT_CONTEXT_FRAMES)
        # One sample more than the frames cover: without it the last mel frame would differ from
        # that of the whole recording.
        stop = len(waveform) if end == num_frames else end * SAMPLES_PER_FRAME + 1
        yield waveform[start * SAMPLES_PER_FRAME : stop], first - start, end - start


def load_audio_encoder(
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    fast_cpu: bool = False,
    flag: str = "--gemma",
) -> AudioEncoder:
    """Load the audio tower of a checkpoint.

    Args:
        name: hub name or local folder of a full Gemma 4 E2B/E4B checkpoint or an extracted encoder.
        device: where it runs.
        dtype: its precision; float32 unless speed matters more than reproducible codes.
        fast_cpu: as `AudioEncoder`.
        flag: the flag that named it, for messages.

    Raises:
        InputError: not found, not a Gemma 4 with an audio tower, or tensors are missing.
    """
    with one_line_errors(flag, name):
        refuse_other_kind(name, (TOWER, "gemma4_audio"), WITHOUT_TOWER)
        config = Gemma4AudioConfig.from_pretrained(name)
        refuse_other_size(name, config, Gemma4AudioModel)
        tower, report = Gemma4AudioModel.from_pretrained(
            name, dtype=dtype, attn_implementation="eager", trust_remote_code=False,
            use_safetensors=True, output_loading_info=True,
        )  # fmt: skip
        extractor = load_feature_extractor(name)
    refuse_missing_tensors(flag, name, report)
    tower.to(device)
    refuse_non_finite_weights(tower, where=f"{flag} {name}")
    return AudioEncoder(tower, extractor, fast_cpu=fast_cpu)


def load_gemma(
    name: str, *, device: torch.device, dtype: torch.dtype, quantize: QuantizeName = "none"
) -> tuple[AnyGemma, PreTrainedTokenizerBase]:
    """Load a full checkpoint, frozen and in evaluation mode, with its tokenizer and chat template.

    Args:
        name: hub name or local folder.
        device: where it runs.
        dtype: its precision; with `quantize`, that of the weights that are not quantised.
        quantize: precision of the decoder's linear layers (see `weight_quantization`).

    Returns:
        The model and its tokenizer. The model's `left_over_tensors` names the tensors of the
        checkpoint that have no place in it.

    Raises:
        InputError: not found, not a full Gemma 4 that hears, tensors are missing, or no chat
            template.
    """
    # Loaded first: it is small, and fails at once if the folder is not a Gemma checkpoint.
    tokenizer = load_tokenizer(name)
    generation = Path(name) / "generation_config.json"
    if generation.is_file():  # transformers 5.23 ignores one that it cannot read
        read_json(generation)
    settings: dict[str, Any] = {}
    if quantization := weight_quantization(quantize, dtype):
        settings["quantization_config"] = quantization
    # Tensor by tensor onto a GPU: `from_pretrained` and then `to` would need host memory for the
    # whole model. Weights are quantised while loading, and so on their final device. A model on
    # the CPU is not given a map: there is nothing to gain, and peft and transformers take "cpu" in
    # a map for weights that were offloaded.
    if quantization or device.type != "cpu":
        settings["device_map"] = {"": device}
    with one_line_errors("--gemma", name):
        kind = KINDS[refuse_other_kind(name, tuple(KINDS))]
        config = kind.config.from_pretrained(name)
        refuse_other_size(name, config, kind.model)
        model, report = kind.model.from_pretrained(
            name, dtype=dtype, attn_implementation=kind.attention, trust_remote_code=False,
            use_safetensors=True, output_loading_info=True, **settings,
        )  # fmt: skip
    refuse_missing_tensors("--gemma", name, report)
    model.left_over_tensors = sorted(report["unexpected_keys"])
    refuse_non_finite_weights(model, where=f"--gemma {name}")
    _refuse_other_tokenizer(tokenizer, model.config, name)
    if needs_float32(device, dtype):
        compute_in_float32(model)
    return model.eval().requires_grad_(False), tokenizer


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a checkpoint's tokenizer; InputError if its chat template is missing or unusable."""
    with one_line_errors("--gemma", name):
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        marks = (*MARKS, tokenizer.eos_token, tokenizer.pad_token)
        known = tokenizer.get_vocab()
        if absent := [mark for mark in marks if mark not in known]:
            raise InputError(f"its tokenizer is not Gemma 4's: it has no {absent[0]}")
    refuse_unusable_template(tokenizer, flag="--gemma", name=name)
    return tokenizer


def _refuse_other_tokenizer(
    tokenizer: PreTrainedTokenizerBase, config: AnyGemmaConfig, name: str
) -> None:
    """Raise InputError if a tokenizer and the model number their tokens differently."""
    highest = max(tokenizer.get_vocab().values())
    if highest >= config.text_config.vocab_size:
        raise InputError(
            f"--gemma {name}: its tokenizer counts to {highest}, the model has "
            f"{config.text_config.vocab_size} tokens"
        )
    if tokenizer.convert_tokens_to_ids("<|audio|>") != config.audio_token_id:
        raise InputError(f"--gemma {name}: model and tokenizer differ in what <|audio|> is")
