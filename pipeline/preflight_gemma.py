"""Checks of what the stages rely on in Gemma: how it hears, its handling of speech, its states.

Those of an audio tower alone are in `preflight_tower.py`.
"""

# N samples, T frames (25 per second), D embedding width, S text positions, L Gemma layers

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import sdpa_kernel
from transformers import PreTrainedTokenizerBase

from commands.device import full_float32
from commands.errors import InputError
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from gemma4.attention_kernels import TRAINING_KERNELS
from gemma4.feature_extractors import SAMPLES_PER_FRAME
from gemma4.float32_decoder import decoder_in_float32
from gemma4.gemma import AudioEncoder, count_audio_tokens
from gemma4.kinds import AnyGemma, has_tower
from gemma4.patches import PatchEncoder
from pipeline.preflight_checks import (
    UNTESTED,
    Check,
    Sounds,
    make_sound,
    refuse_difference,
    three_lengths,
)
from pipeline.preflight_tower import TOWER_LIMIT, tower_checks
from speech_head.answer import answer_states, ask_to_speak, stream_answer, teacher_forced_answer
from stage3_finetune.conversation import Conversation
from stage3_finetune.data import collate
from stage3_finetune.dialogue import Dialogue, Turn, encode_dialogue, encode_prompt
from stage3_finetune.generate import prompt_inputs, stop_ids, stream_tokens

LENGTHS = (161, 640, 641, 1000, 16_000, 16_160, 20_000, 50_001, 160_000, 480_000)
NUM_TOKENS = 8  # answer tokens compared
# Relative norm of the difference that is allowed between states in float32; as `TOWER_LIMIT`, drawn
# weights stay below a fifth of it (7.8e-3).
STATES_LIMIT = 4e-2
# Logits, in the model's own precision: the same computation from the same embeddings.
LOGITS_LIMIT = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
PADDING_LIMIT = 1e-3  # share of the gradient's norm
CUDNN = "cuDNN's attention gives NaN in the backward pass on H100 and H200 for masked sliding "
CUDNN += "windows with heads of 256 (NVIDIA-NeMo/Automodel, issue 3232); training here does "
CUDNN += "without it. Update torch, and see whether --dtype float32 passes"


@dataclass(frozen=True)
class GemmaChecks:
    """What the stages rely on in Gemma; each check returns what it measured, or raises InputError.

    Attributes:
        model: with or without an adapter.
        encoder: what it hears with.
        float32_encoder: the same in float32, as stage 1 runs it.
        waveform_N: its input.
    """

    model: AnyGemma
    tokenizer: PreTrainedTokenizerBase
    encoder: AudioEncoder | PatchEncoder
    float32_encoder: AudioEncoder | PatchEncoder
    waveform_N: np.ndarray

    def every_tensor(self) -> str:
        left_over: list[str] = self.model.left_over_tensors
        if left_over:
            raise InputError(f"{len(left_over)} tensors have no place, e.g. {left_over[0]}")
        num_parameters = sum(p.numel() for p in self.model.parameters())
        return f"{num_parameters / 1e6:,.1f} M parameters, none missing, none left over"

    def configuration(self) -> str:
        config, extractor = self.model.config, self.encoder.extractor
        audio, text = config.audio_config, config.text_config
        found = {
            "sampling_rate": extractor.sampling_rate,
            "padding_side": extractor.padding_side,
            "audio_token_id": config.audio_token_id,
            "turns end generation": self.tokenizer.convert_tokens_to_ids("<turn|>")
            in np.atleast_1d(self.model.generation_config.eos_token_id),
        }
        expected = {
            "sampling_rate": GEMMA_SAMPLE_RATE_HZ,
            "padding_side": "right",
            "audio_token_id": self.tokenizer.convert_tokens_to_ids("<|audio|>"),
            "turns end generation": True,
        }
        if has_tower(config):
            found["hop_length"] = extractor.hop_length
            found["attention_context_right"] = audio.attention_context_right
            expected |= {"hop_length": 160, "attention_context_right": 0}
            hears = f"tower {audio.num_hidden_layers} x {audio.hidden_size}"
        else:
            found["samples of a patch"] = (self.encoder.dim, audio.audio_embed_dim)
            expected["samples of a patch"] = (SAMPLES_PER_FRAME, SAMPLES_PER_FRAME)
            hears = f"patches of {SAMPLES_PER_FRAME} samples"
        for name, value in expected.items():
            if found[name] != value:
                raise InputError(f"{name} is {found[name]}, expected {value}")
        return (
            f"{hears}, decoder {text.num_hidden_layers} x {text.hidden_size}, "
            f"{text.vocab_size:,} tokens"
        )

    def audio_tokens(self) -> str:
        for num_samples in LENGTHS:
            sound_N = make_sound(num_samples, GEMMA_SAMPLE_RATE_HZ)
            [frames_TD] = self.float32_encoder.encode([sound_N])
            found, expected = len(frames_TD), self._num_slots(num_samples)
            if found != expected:
                raise InputError(f"{num_samples} samples give {found} embeddings, not {expected}")
        return f"{len(LENGTHS)} lengths agree"

    def _num_slots(self, num_samples: int) -> int:
        if has_tower(self.model.config):
            return count_audio_tokens(num_samples)
        return math.ceil(num_samples / SAMPLES_PER_FRAME)

    def batch_is_single(self) -> str:
        sounds, encode = three_lengths(self.waveform_N), self.float32_encoder.encode
        batched = torch.cat(encode(sounds))
        single = torch.cat([encode([sound_N])[0] for sound_N in sounds])
        return refuse_difference(batched, single, TOWER_LIMIT)

    def injected_is_real(self) -> str:
        [frames_TD] = self.encoder.encode([self.waveform_N])
        prompt = encode_prompt([_heard(frames_TD)], self.tokenizer)
        features = self.encoder.extractor(
            [self.waveform_N], sampling_rate=GEMMA_SAMPLE_RATE_HZ, return_tensors="pt"
        )
        heard = replace(prompt, frames=(features["input_features"][0],))
        with torch.no_grad(), full_float32():
            injected, real = (
                self.model(**prompt_inputs([p], self.tokenizer, self.model)).logits.float()
                for p in (prompt, heard)
            )
        measured = refuse_difference(injected, real, LOGITS_LIMIT[self.model.dtype])
        written = [
            list(stream_tokens(self.model, self.tokenizer, p, max_new_tokens=NUM_TOKENS))
            for p in (prompt, heard)
        ]
        if written[0] != written[1]:
            raise InputError(f"greedy tokens {written[0]}, not {written[1]}")
        return f"logits {measured}, {NUM_TOKENS} greedy tokens at most are the same"

    def template(self) -> str:
        text = teacher_forced_answer("Maakye, wo ho te sɛn?", self.tokenizer)
        closing = self.tokenizer.convert_ids_to_tokens(int(text.ids_S[-1]))
        if int(text.ids_S[-1]) not in stop_ids(self.tokenizer, self.model):
            raise InputError(f"a turn is closed by {closing!r}, which does not stop Gemma")
        return f"turns are closed by {closing}"

    def streamed_states(self) -> str:
        text = teacher_forced_answer("Maakye.", self.tokenizer)
        with decoder_in_float32(self.model):
            tokens = stream_answer(self.model, self.tokenizer, [ask_to_speak()])
            streamed = list(itertools.islice(tokens, NUM_TOKENS))
            written_S = torch.cat([token.ids_S for token in streamed])
            [known] = answer_states(self.model, [replace(text, ids_S=written_S)])
        states = torch.cat([token.states_SLD for token in streamed])
        return refuse_difference(states, known.states_SLD, STATES_LIMIT) + " (in float32)"

    def padded_gradients(self) -> str:
        """Train on two questions of different length in one batch, up to the gradients of what
        goes in."""
        [frames_TD] = self.float32_encoder.encode([self.waveform_N])
        rows = [
            encode_dialogue(Dialogue(name, (_heard(heard_TD), Turn("assistant", answer))),
                            self.tokenizer)
            for name, heard_TD, answer in (
                ("long", frames_TD, "Maakye."),
                ("short", frames_TD[: len(frames_TD) // 2], "Me ho yɛ, na wo nso wo ho te sɛn?"),
            )
        ]  # fmt: skip
        batch = collate(rows, self.tokenizer.pad_token_id)
        batch = {name: value.to(self.model.device) for name, value in batch.items()}
        batch["input_features"].requires_grad_()
        embedded: list[Tensor] = []

        def keep(module: nn.Module, ids: tuple[Tensor], output_BSD: Tensor) -> Tensor:
            embedded.append(output_BSD.detach().requires_grad_())
            return embedded[-1]

        hook = self.model.get_input_embeddings().register_forward_hook(keep)
        try:
            with torch.enable_grad(), sdpa_kernel(TRAINING_KERNELS):
                loss = self.model(**batch).loss
                loss.backward()
        finally:
            hook.remove()
        return _measure_gradients(
            loss.item(),
            {
                "tokens": (embedded[0].grad, batch["attention_mask"].bool()),
                "frames": (batch["input_features"].grad, batch["input_features_mask"]),
            },
        )

    def layer_sizes(self) -> str:
        text = teacher_forced_answer("Maakye, wo ho te sɛn?", self.tokenizer)
        [known] = answer_states(self.model, [text])
        rms_L = known.states_SLD.float().square().mean(dim=(0, 2)).sqrt()
        shown = ", ".join(f"{rms:.3g}" for rms in rms_L.tolist())
        if not (rms_L.isfinite().all() and rms_L.min() > 0):
            raise InputError(f"RMS by layer {shown}")
        return f"RMS by layer {shown}"


def _heard(frames_TD: Tensor) -> Turn:
    return Turn("user", "", spoken=True, frames_TD=frames_TD)


def _measure_gradients(loss: float, gradients: dict[str, tuple[Tensor | None, Tensor]]) -> str:
    """A loss and the norms of gradients by name; each with a mask that is False at padding."""
    if not math.isfinite(loss):
        raise InputError(f"the loss is {loss}")
    measured = []
    for name, (gradient, mask) in gradients.items():
        if gradient is None or not gradient.isfinite().all():
            raise InputError(f"loss {loss:.3g}, but the gradient of {name} is not finite")
        norm = gradient.float().norm().item()
        leak = gradient[~mask].float().norm().item()
        if not norm > 0 or leak > PADDING_LIMIT * norm:
            raise InputError(f"gradient of {name}: norm {norm:.1e}, {leak:.1e} of it at padding")
        measured.append(f"{name} {norm:.2g}")
    return f"loss {loss:.3g}, gradients: {', '.join(measured)}"


def gemma_checks(
    conversation: Conversation, float32_encoder: AudioEncoder | PatchEncoder, sounds: Sounds
) -> list[Check]:
    """What the stages rely on in Gemma: how it hears, its handling of speech, its states.

    Args:
        float32_encoder: the conversation's own, or the same in float32.
    """
    encoder = conversation.encoder
    assert isinstance(encoder, AudioEncoder | PatchEncoder)
    gemma = GemmaChecks(
        conversation.model, conversation.tokenizer, encoder, float32_encoder, sounds.gemma_N
    )
    retry = "download the checkpoint again; a checkpoint changed by another tool may not fit"
    tower = float32_encoder if isinstance(float32_encoder, AudioEncoder) else None
    return [
        Check("every tensor of Gemma has its place", gemma.every_tensor, retry),
        Check("configuration is the one relied on", gemma.configuration, retry),
        Check("audio embeddings are as many as slots", gemma.audio_tokens, UNTESTED),
        Check("a batch gives what single clips give", gemma.batch_is_single, UNTESTED),
        *(tower_checks(tower, sounds) if tower else []),
        Check("injected speech = real speech", gemma.injected_is_real, UNTESTED),
        Check(
            "chat template closes its turns",
            gemma.template,
            "name an instruction-tuned Gemma (-it)",
        ),
        Check("states while writing = afterwards", gemma.streamed_states, UNTESTED),
        Check("layers that the head reads", gemma.layer_sizes, "try --dtype float32"),
        Check("a padded batch has finite gradients", gemma.padded_gradients, CUDNN),
    ]
