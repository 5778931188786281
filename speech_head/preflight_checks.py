"""What the four stages rely on in Gemma and Mimi, each as a measurement with a verdict."""

# N samples, T frames (25 per second), D embedding width, S text positions, L Gemma layers, F Mimi
# frames (12.5 per second)

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_manifests.artifact import read_json
from data_manifests.audio import GEMMA_SAMPLE_RATE_HZ, MIMI_SAMPLE_RATE_HZ, read_audio
from data_manifests.config import InputError
from speech_head.answer import SPEAK, answer_states, stream_answer, tokenize_spoken_text
from speech_head.generate import refuse_misfit
from speech_head.mimi import Mimi, MimiStreamDecoder
from speech_head.model import load_head
from stage1_rvq.gemma import PIECE_FRAMES, SAMPLES_PER_FRAME, count_audio_tokens
from stage1_rvq.model import load_rvq
from stage3_finetune.chat import Conversation
from stage3_finetune.dialogue import Turn, encode_prompt, render_example
from stage3_finetune.generate import prompt_inputs, stop_ids, stream_tokens
from stage3_finetune.memory import GIB, load_gemma_config, plan_memory
from stage3_finetune.train import TrainConfig

LENGTHS = (161, 640, 641, 1000, 16_000, 16_160, 20_000, 50_001, 160_000, 480_000)
NUM_TOKENS = 8  # answer tokens compared
MAX_RECORDING_S = 10.0
FINETUNE_TOKENS = (
    600  # positions of a row, as many as half a minute of speech takes with its answer
)
NOT_MADE_FOR_IT = "name the checkpoint it was trained on, or train it again on this one"
UNTESTED = "these versions of torch and transformers do not do what this project relies on: install"
UNTESTED += " those of constraints.txt, and open an issue if it stays"


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        name: what should hold.
        measure: returns what was measured; InputError says what is wrong.
        remedy: what to do where it does not hold.
    """

    name: str
    measure: Callable[[], str]
    remedy: str


@dataclass(frozen=True)
class Sounds:
    """What the checks listen to, float32 `[N]`: one sound at Gemma's rate and at Mimi's."""

    gemma_N: np.ndarray
    mimi_N: np.ndarray


def load_sounds(recording: Path | None) -> Sounds:
    """The first seconds of a recording, or a gliding tone with noise.

    Raises:
        InputError: the recording is unusable.
    """
    rates = (GEMMA_SAMPLE_RATE_HZ, MIMI_SAMPLE_RATE_HZ)
    if recording is None:
        return Sounds(*(_test_sound(round(2.5 * rate_hz), rate_hz) for rate_hz in rates))
    read = [read_audio(recording, rate_hz)[: round(MAX_RECORDING_S * rate_hz)] for rate_hz in rates]
    return Sounds(*read)


def gemma_checks(conversation: Conversation, sounds: Sounds, tolerance: float) -> list[Check]:
    """What the stages rely on in Gemma: its tower, its way of taking speech, its states.

    Args:
        conversation: the model, with or without an adapter.
        sounds: what it listens to.
        tolerance: largest difference between what should be equal, of the largest value.
    """
    model, tokenizer, encoder = conversation.model, conversation.tokenizer, conversation.encoder
    waveform_N = sounds.gemma_N

    def every_tensor() -> str:
        left_over: list[str] = model.left_over_tensors
        if left_over:
            raise InputError(f"{len(left_over)} tensors have no place, e.g. {left_over[0]}")
        num_parameters = sum(p.numel() for p in model.parameters())
        return f"{num_parameters / 1e6:,.1f} M parameters, none missing, none left over"

    def configuration() -> str:
        config, extractor = model.config, encoder.extractor
        found = {
            "sampling_rate": extractor.sampling_rate,
            "hop_length": extractor.hop_length,
            "padding_side": extractor.padding_side,
            "attention_context_right": config.audio_config.attention_context_right,
            "audio_token_id": config.audio_token_id,
            "turns end generation": tokenizer.convert_tokens_to_ids("<turn|>")
            in np.atleast_1d(model.generation_config.eos_token_id),
        }
        expected = {
            "sampling_rate": GEMMA_SAMPLE_RATE_HZ,
            "hop_length": 160,
            "padding_side": "right",
            "attention_context_right": 0,
            "audio_token_id": tokenizer.convert_tokens_to_ids("<|audio|>"),
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

    def audio_tokens() -> str:
        for num_samples in LENGTHS:
            sound_N = _test_sound(num_samples, GEMMA_SAMPLE_RATE_HZ)
            found, expected = len(encoder.encode([sound_N])[0]), count_audio_tokens(num_samples)
            if found != expected:
                raise InputError(f"{num_samples} samples give {found} embeddings, not {expected}")
        return f"{len(LENGTHS)} lengths agree"

    def batch_is_single() -> str:
        sounds = [waveform_N, waveform_N[:12_345], waveform_N[:30_000]]
        batched = torch.cat(encoder.encode(sounds))
        single = torch.cat([encoder.encode([sound_N])[0] for sound_N in sounds])
        return _refuse_difference(batched, single, tolerance)

    def pieces_are_one_shot() -> str:
        num_samples = (PIECE_FRAMES + 50) * SAMPLES_PER_FRAME
        sound_N = _test_sound(num_samples, GEMMA_SAMPLE_RATE_HZ)
        [at_once], [in_pieces] = encoder.encode_at_once([sound_N]), encoder.encode([sound_N])
        return _refuse_difference(in_pieces, at_once, tolerance)

    def unit_rms() -> str:
        [frames_TD] = encoder.encode([waveform_N])
        rms_T = (frames_TD / encoder.frame_scale_D).square().mean(dim=1).sqrt()
        return "RMS: " + _refuse_difference(rms_T, torch.ones_like(rms_T), max(tolerance, 1e-3))

    def injected_is_real() -> str:
        [frames_TD] = encoder.encode([waveform_N])
        prompt = encode_prompt([Turn("user", "", spoken=True, frames_TD=frames_TD)], tokenizer)
        features = encoder.extractor(
            [waveform_N], sampling_rate=GEMMA_SAMPLE_RATE_HZ, return_tensors="pt"
        )
        heard = replace(prompt, frames=(features["input_features"][0],))
        with torch.no_grad():
            logits = [
                model(**prompt_inputs([p], tokenizer, model)).logits.float()
                for p in (prompt, heard)
            ]
        measured = _refuse_difference(*logits, tolerance)
        written = [
            list(stream_tokens(model, tokenizer, p, max_new_tokens=NUM_TOKENS))
            for p in (prompt, heard)
        ]
        if written[0] != written[1]:
            raise InputError(f"greedy tokens {written[0]}, not {written[1]}")
        return f"logits {measured}, {NUM_TOKENS} greedy tokens at most are the same"

    def template() -> str:
        text = tokenize_spoken_text("Maakye, wo ho te sɛn?", tokenizer)
        closing = tokenizer.convert_ids_to_tokens(int(text.ids_S[-1]))
        if int(text.ids_S[-1]) not in stop_ids(tokenizer):
            raise InputError(f"a turn is closed by {closing!r}, which does not stop Gemma")
        return f"turns are closed by {closing}"

    def streamed_states() -> str:
        text = tokenize_spoken_text("Maakye.", tokenizer)
        streamed = list(itertools.islice(stream_answer(model, tokenizer, [SPEAK]), NUM_TOKENS))
        written_S = torch.cat([tokens.ids_S for tokens in streamed])
        [known] = answer_states(model, [replace(text, ids_S=written_S)])
        states = torch.cat([tokens.states_SLD for tokens in streamed])
        return _refuse_difference(states.float(), known.states_SLD.float(), tolerance)

    def layer_sizes() -> str:
        [known] = answer_states(model, [tokenize_spoken_text("Maakye, wo ho te sɛn?", tokenizer)])
        rms_L = known.states_SLD.float().square().mean(dim=(0, 2)).sqrt()
        shown = ", ".join(f"{rms:.3g}" for rms in rms_L.tolist())
        if not (rms_L.isfinite().all() and rms_L.min() > 0):
            raise InputError(f"RMS by layer {shown}")
        return f"RMS by layer {shown}"

    retry = "download the checkpoint again; a checkpoint changed by another tool may not fit"
    return [
        Check("every tensor of Gemma has its place", every_tensor, retry),
        Check("configuration is the one relied on", configuration, retry),
        Check("audio embeddings are as many as slots", audio_tokens, UNTESTED),
        Check("a batch gives what single clips give", batch_is_single, UNTESTED),
        Check("long speech in pieces = at once", pieces_are_one_shot, UNTESTED),
        Check("embeddings have unit size after the norm", unit_rms, UNTESTED),
        Check("injected speech = real speech", injected_is_real, UNTESTED),
        Check("chat template closes its turns", template, "name an instruction-tuned Gemma (-it)"),
        Check("states while writing = afterwards", streamed_states, UNTESTED),
        Check("layers that the head reads", layer_sizes, "try --dtype float32"),
    ]


def mimi_checks(mimi: Mimi, sounds: Sounds) -> list[Check]:
    """What the speech head relies on in Mimi."""

    def rates() -> str:
        found = (mimi.sample_rate_hz, mimi.frame_rate_hz)
        if found != (MIMI_SAMPLE_RATE_HZ, 12.5):
            raise InputError(f"{found[0]} Hz, {found[1]} frames/s; expected 24000 Hz, 12.5")
        return f"{mimi.sample_rate_hz} Hz, 12.5 frames/s, {mimi.num_codebooks} codebooks"

    def streaming() -> str:
        [codes_FK] = mimi.encode([sounds.mimi_N])
        stream = MimiStreamDecoder(mimi)
        pieces = [stream.decode(codes_1K[None])[0] for codes_1K in codes_FK.split(1)]
        return _refuse_difference(torch.cat(pieces), mimi.decode(codes_FK), 1e-4)

    return [
        Check("Mimi's rates", rates, "--mimi kyutai/mimi is the codec this project speaks through"),
        Check("Mimi as a stream = Mimi at once", streaming, UNTESTED),
    ]


def stage_checks(
    conversation: Conversation,
    mimi: Mimi,
    rvq: str | None,
    finetune: Path | None,
    head: str | None,
    device: torch.device,
) -> list[Check]:
    """Whether the trained stages that were named fit these models."""
    checks: list[Check] = []
    tokenizer = conversation.tokenizer

    def rvq_fits() -> str:
        quantiser = load_rvq(rvq or "", device=device)
        if quantiser.config.dim != conversation.encoder.dim:
            raise InputError(
                f"--rvq takes {quantiser.config.dim}, Gemma has {conversation.encoder.dim}"
            )
        return f"embeddings {quantiser.config.dim} wide"

    def template_is_the_one_trained_with() -> str:
        assert finetune is not None
        trained_with = read_json(finetune / "provenance.json").get("chat_template_example")
        if trained_with is None:
            return "unknown: trained before it was recorded"
        if trained_with != (found := render_example(tokenizer)):
            raise InputError(f"renders {found!r}, trained with {trained_with!r}")
        return "renders a dialogue as it was trained on"

    def head_fits() -> str:
        speech_head = load_head(head or "", device=device)
        refuse_misfit(speech_head, conversation.model, mimi)
        config = speech_head.config
        return f"states {config.state_width} wide, {config.num_codebooks} codebooks"

    if rvq:
        checks.append(Check("RVQ fits Gemma", rvq_fits, NOT_MADE_FOR_IT))
    if finetune:
        checks.append(
            Check("chat template of the adapter", template_is_the_one_trained_with, NOT_MADE_FOR_IT)
        )
    if head:
        checks.append(Check("speech head fits Gemma and Mimi", head_fits, NOT_MADE_FOR_IT))
    return checks


def memory_check(gemma: str, device: torch.device, dtype: torch.dtype) -> Check:
    """Whether a fine-tuning run of stage 3 with its defaults would fit."""

    def needed(quantize: str) -> float:
        plan = plan_memory(
            load_gemma_config(gemma), rank=TrainConfig.lora_rank, dtype=dtype,
            batch_size=TrainConfig.batch_size, num_tokens=FINETUNE_TOKENS,
            gradient_checkpointing=True, quantize=quantize,
        )  # fmt: skip
        return plan.total / GIB

    def fits() -> str:
        there, wanted = memory_there(device) / GIB, needed("none")
        if wanted > there:
            raise InputError(
                f"{wanted:.1f} GiB needed, {there:.1f} there ({needed('4bit'):.1f} with "
                "--quantize 4bit)"
            )
        return f"{wanted:.1f} GiB needed, {there:.1f} there"

    remedy = "stage3_finetune.train --quantize 4bit, --batch-size 1, or a smaller Gemma (E2B)"
    return Check("memory to fine-tune, with the defaults", fits, remedy)


def memory_there(device: torch.device) -> int:
    """Bytes that a device has, in use or not."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _refuse_difference(found: Tensor, expected: Tensor, tolerance: float) -> str:
    difference = float((found - expected).abs().max() / expected.abs().max())
    if not difference <= tolerance:
        raise InputError(f"differ by {difference:.1e} of the largest value, at most {tolerance}")
    return f"differ by {difference:.1e}"


def _test_sound(num_samples: int, sample_rate_hz: int) -> np.ndarray:
    """A gliding tone with noise, float32 `[N]`."""
    times_N = np.arange(num_samples) / sample_rate_hz
    noise_N = np.random.default_rng(0).standard_normal(num_samples)
    tone_N = np.sin(2 * np.pi * (150 + 100 * times_N) * times_N)
    return (0.3 * tone_N + 0.02 * noise_N).astype(np.float32)
