"""Checks of what the stages rely on in Gemma: its tower, its handling of speech, its states."""

# N samples, T frames (25 per second), D embedding width, S text positions, L Gemma layers

import itertools
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import Gemma4ForConditionalGeneration, PreTrainedTokenizerBase

from commands.errors import InputError
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ
from gemma4.gemma import PIECE_FRAMES, SAMPLES_PER_FRAME, AudioEncoder, count_audio_tokens
from pipeline.preflight_checks import UNTESTED, Check, Sounds, make_sound, refuse_difference
from speech_head.answer import SPEAK, answer_states, stream_answer, teacher_forced_answer
from stage3_finetune.conversation import Conversation
from stage3_finetune.dialogue import Turn, encode_prompt
from stage3_finetune.generate import prompt_inputs, stop_ids, stream_tokens

LENGTHS = (161, 640, 641, 1000, 16_000, 16_160, 20_000, 50_001, 160_000, 480_000)
NUM_TOKENS = 8  # answer tokens compared


@dataclass(frozen=True)
class GemmaChecks:
    """What the stages rely on in Gemma; each check returns what it measured, or raises InputError.

    Attributes:
        model: with or without an adapter.
        waveform_N: its input.
        tolerance: largest difference allowed between equal results, relative to the largest value.
    """

    model: Gemma4ForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    encoder: AudioEncoder
    waveform_N: np.ndarray
    tolerance: float

    def every_tensor(self) -> str:
        left_over: list[str] = self.model.left_over_tensors
        if left_over:
            raise InputError(f"{len(left_over)} tensors have no place, e.g. {left_over[0]}")
        num_parameters = sum(p.numel() for p in self.model.parameters())
        return f"{num_parameters / 1e6:,.1f} M parameters, none missing, none left over"

    def configuration(self) -> str:
        config, extractor = self.model.config, self.encoder.extractor
        found = {
            "sampling_rate": extractor.sampling_rate,
            "hop_length": extractor.hop_length,
            "padding_side": extractor.padding_side,
            "attention_context_right": config.audio_config.attention_context_right,
            "audio_token_id": config.audio_token_id,
            "turns end generation": self.tokenizer.convert_tokens_to_ids("<turn|>")
            in np.atleast_1d(self.model.generation_config.eos_token_id),
        }
        expected = {
            "sampling_rate": GEMMA_SAMPLE_RATE_HZ,
            "hop_length": 160,
            "padding_side": "right",
            "attention_context_right": 0,
            "audio_token_id": self.tokenizer.convert_tokens_to_ids("<|audio|>"),
            "turns end generation": True,
        }
        for name, value in expected.items():
            if found[name] != value:
                raise InputError(f"{name} is {found[name]}, expected {value}")
        audio, text = config.audio_config, config.text_config
        return (
            f"tower {audio.num_hidden_layers} x {audio.hidden_size}, decoder "
            f"{text.num_hidden_layers} x {text.hidden_size}, {text.vocab_size:,} tokens"
        )

    def audio_tokens(self) -> str:
        for num_samples in LENGTHS:
            sound_N = make_sound(num_samples, GEMMA_SAMPLE_RATE_HZ)
            [frames_TD] = self.encoder.encode([sound_N])
            found, expected = len(frames_TD), count_audio_tokens(num_samples)
            if found != expected:
                raise InputError(f"{num_samples} samples give {found} embeddings, not {expected}")
        return f"{len(LENGTHS)} lengths agree"

    def batch_is_single(self) -> str:
        sounds = [self.waveform_N, self.waveform_N[:12_345], self.waveform_N[:30_000]]
        batched = torch.cat(self.encoder.encode(sounds))
        single = torch.cat([self.encoder.encode([sound_N])[0] for sound_N in sounds])
        return refuse_difference(batched, single, self.tolerance)

    def pieces_are_one_shot(self) -> str:
        num_samples = (PIECE_FRAMES + 50) * SAMPLES_PER_FRAME
        sound_N = make_sound(num_samples, GEMMA_SAMPLE_RATE_HZ)
        [at_once] = self.encoder.encode_at_once([sound_N])
        [in_pieces] = self.encoder.encode([sound_N])
        return refuse_difference(in_pieces, at_once, self.tolerance)

    def unit_rms(self) -> str:
        [frames_TD] = self.encoder.encode([self.waveform_N])
        rms_T = (frames_TD / self.encoder.frame_scale_D).square().mean(dim=1).sqrt()
        return "RMS: " + refuse_difference(rms_T, torch.ones_like(rms_T), max(self.tolerance, 1e-3))

    def injected_is_real(self) -> str:
        [frames_TD] = self.encoder.encode([self.waveform_N])
        prompt = encode_prompt([Turn("user", "", spoken=True, frames_TD=frames_TD)], self.tokenizer)
        features = self.encoder.extractor(
            [self.waveform_N], sampling_rate=GEMMA_SAMPLE_RATE_HZ, return_tensors="pt"
        )
        heard = replace(prompt, frames=(features["input_features"][0],))
        with torch.no_grad():
            injected, real = (
                self.model(**prompt_inputs([p], self.tokenizer, self.model)).logits.float()
                for p in (prompt, heard)
            )
        measured = refuse_difference(injected, real, self.tolerance)
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
        if int(text.ids_S[-1]) not in stop_ids(self.tokenizer):
            raise InputError(f"a turn is closed by {closing!r}, which does not stop Gemma")
        return f"turns are closed by {closing}"

    def streamed_states(self) -> str:
        text = teacher_forced_answer("Maakye.", self.tokenizer)
        tokens = stream_answer(self.model, self.tokenizer, [SPEAK])
        streamed = list(itertools.islice(tokens, NUM_TOKENS))
        written_S = torch.cat([token.ids_S for token in streamed])
        [known] = answer_states(self.model, [replace(text, ids_S=written_S)])
        states = torch.cat([token.states_SLD for token in streamed])
        return refuse_difference(states.float(), known.states_SLD.float(), self.tolerance)

    def layer_sizes(self) -> str:
        text = teacher_forced_answer("Maakye, wo ho te sɛn?", self.tokenizer)
        [known] = answer_states(self.model, [text])
        rms_L = known.states_SLD.float().square().mean(dim=(0, 2)).sqrt()
        shown = ", ".join(f"{rms:.3g}" for rms in rms_L.tolist())
        if not (rms_L.isfinite().all() and rms_L.min() > 0):
            raise InputError(f"RMS by layer {shown}")
        return f"RMS by layer {shown}"


def gemma_checks(conversation: Conversation, sounds: Sounds, tolerance: float) -> list[Check]:
    """What the stages rely on in Gemma: its tower, its handling of speech, its states."""
    gemma = GemmaChecks(
        conversation.model, conversation.tokenizer, conversation.encoder, sounds.gemma_N, tolerance
    )
    retry = "download the checkpoint again; a checkpoint changed by another tool may not fit"
    return [
        Check("every tensor of Gemma has its place", gemma.every_tensor, retry),
        Check("configuration is the one relied on", gemma.configuration, retry),
        Check("audio embeddings are as many as slots", gemma.audio_tokens, UNTESTED),
        Check("a batch gives what single clips give", gemma.batch_is_single, UNTESTED),
        Check("long speech in pieces = at once", gemma.pieces_are_one_shot, UNTESTED),
        Check("embeddings have unit size after the norm", gemma.unit_rms, UNTESTED),
        Check("injected speech = real speech", gemma.injected_is_real, UNTESTED),
        Check(
            "chat template closes its turns",
            gemma.template,
            "name an instruction-tuned Gemma (-it)",
        ),
        Check("states while writing = afterwards", gemma.streamed_states, UNTESTED),
        Check("layers that the head reads", gemma.layer_sizes, "try --dtype float32"),
    ]
