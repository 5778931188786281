"""Steps of the plan that work on the answering voice: stage 4."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from gemma4.gemma import FRAME_RATE_HZ
from gemma4.memory_plan import FLOAT32_BYTES
from pipeline import flops, plan_models, probes
from pipeline.plan_case import LONGEST_OF_BATCH, LONGEST_OF_CORPUS, Case, spoken_rows
from pipeline.plan_models import META, count_parameters, num_state_layers
from pipeline.plan_sizes import (
    MIMI_VALUES_A_SECOND,
    Memory,
    adamw_bytes,
    logits_bytes,
    muon_bytes,
    run_bytes,
    states_bytes,
    training_memory,
    transformer_activations,
)
from pipeline.plan_stage1 import PLOTS_BYTES, say_hours, say_steps
from pipeline.plan_stage2 import rows_of
from pipeline.plan_stage3 import TEMPLATE_TOKENS, question_positions
from pipeline.recipe import Speech
from pipeline.work import Part, Timed, Work
from speech_head.build import AnyHead
from speech_head.head_batch import HeadBatch
from speech_head.model import SpeechHead
from speech_head.settings import PrecisionSettings
from stage1_rvq.corpus_encoder import UTTERANCES_PER_SHARD

MIMI_RATE_HZ = 12.5
ALIGNMENT_FLOPS = 800.0  # a frame: ten for each of 80 states of a text of 40 units
ALIGNMENT_S = 4e-5  # a frame, on a core, where it is not measured
STATE_COPIES = 5  # of a batch's states: raw, at unit RMS, standardised, scaled, mixed (a guess)
Settings = Mapping[str, Any]


def plan_states(case: Case) -> Work:
    """`speech_head.states` of the voice's train and dev splits: audio tower, Mimi and one pass of
    Gemma over every transcript after its question."""
    voice, settings = case.recipe.voice, case.recipe.settings("speech_head.states")
    hours = voice.hours + voice.dev_hours
    seconds = hours * 3600
    codec = plan_models.find_mimi_config(settings["mimi"])
    hears_for_recognizer = {**settings, "gemma": settings["recognizer_gemma"] or settings["gemma"]}
    parts = [
        *case.hearing_parts(hears_for_recognizer, voice, seconds),
        mimi_part(settings, seconds),
        case.recognizer_part(seconds * FRAME_RATE_HZ, passes=flops.FORWARD),
        alignment_part(seconds * FRAME_RATE_HZ),
    ]
    tokens = answer_tokens(case, voice)
    layers = num_state_layers(settings)
    number = voice.count_utterances(hours)
    config = plan_models.find_gemma_config(case.gemma_of(settings)).text_config
    if layers:
        before = question_positions(case) if settings["dialogues"] else TEMPLATE_TOKENS
        rows = settings["batch_size"]
        parts.append(states_part(case, settings, number, rows, before + tokens))
    of_tower = case.tower_memory(hears_for_recognizer, voice)
    held = of_tower[1] + round(
        FLOAT32_BYTES * MIMI_VALUES_A_SECOND * LONGEST_OF_CORPUS * voice.seconds_an_utterance
    )
    with META:
        of_mimi = FLOAT32_BYTES * count_parameters(plan_models.build_mimi(codec))
    return Work(
        "speech_head.states", f"{say_hours(hours)}, {tokens * number / 1e6:,.3g} M tokens",
        tuple(parts), Memory(case.gemma_bytes(settings) + of_mimi, 0, held, of_tower[2]),
        states_bytes(
            voice, hours, tokens=tokens * number, layers=layers, width=config.hidden_size,
            codebooks=settings["num_codebooks"],
        ),
        audio_s=2 * seconds, decoders=max(1, settings["num_workers"]),
        num_shards=math.ceil(number / UTTERANCES_PER_SHARD),
    )  # fmt: skip


def plan_head(case: Case) -> Work:
    """`speech_head.train`; with a recogniser, dev texts are spoken at every checkpoint."""
    voice, settings = case.recipe.voice, case.recipe.settings("speech_head.train")
    steps = settings["steps"]
    tokens, frames = answer_tokens(case, voice), voice.seconds_an_utterance * MIMI_RATE_HZ
    rows = rows_of(settings, settings["batch_frames"], frames)
    model = head_of(case)
    dtype = case.dtype(settings["dtype"])

    def probe(device: torch.device, budget: float) -> Timed:
        return _time_head(case, rows, round(tokens), round(frames), dtype, device, budget)

    num = count_parameters(model)
    step = flops.TRAINING * flops.speech_head(model, rows, tokens, frames)
    name = f"speech head, training, {str(dtype).removeprefix('torch.')}"
    layers = model.config.num_layers + settings["depth_layers"]
    parts = [Part(name, steps * step, probe, flops.TRAINING * steps * layers, dtype)]
    if isinstance(model, SpeechHead):
        parts += case.muon_parts(model, steps, dtype)
        of_optimizer = muon_bytes(model)
    else:
        parts.append(case.adamw_part(num, steps))
        of_optimizer = adamw_bytes(num)
    states = {**case.recipe.settings("speech_head.states"), "gemma": settings["gemma"]}
    weights = 0
    if settings["on_the_fly"]:
        before = question_positions(case) if states["dialogues"] else TEMPLATE_TOKENS
        parts.append(states_part(case, states, rows * steps, rows, before + tokens))
        weights = case.gemma_bytes(states)
    if settings["recognizer"]:
        together = settings["batch_size"]
        batches = (
            math.ceil(settings["num_dev_sentences"] / together) * steps / settings["save_every"]
        )
        spoken = spoken_rows(together, settings)
        parts += head_speaking_parts(case, model, batches, spoken, frames)
    longest = round((1.0 if settings["batch_frames"] else LONGEST_OF_CORPUS) * frames)
    held = STATE_COPIES * FLOAT32_BYTES * round(LONGEST_OF_CORPUS * rows * tokens)
    held *= len(model.config.layers) * model.config.state_width
    if isinstance(model, SpeechHead):
        decoder = model.frame_decoder
        steps_inside = decoder.num_codebooks - 1
        held += transformer_activations(model.temporal, rows, longest)
        held += transformer_activations(decoder.transformer, rows * longest, steps_inside)
    held += logits_bytes(rows * longest * model.config.num_codebooks, model.config.codebook_size)
    memory = training_memory(num, of_optimizer, held, case.host(voice))
    return Work(
        "speech_head.train",
        say_steps(steps, rows, voice),
        tuple(parts),
        Memory(memory.weights + weights, memory.training, memory.activations, memory.host),
        run_bytes(num, of_optimizer, settings),
    )  # fmt: skip


def plan_head_evaluation(case: Case) -> Work:
    """`speech_head.evaluate` on the voice's test split: spoken, and heard three times."""
    voice, settings = case.recipe.voice, case.recipe.settings("speech_head.evaluate")
    there = voice.count_utterances(voice.test_hours)
    num = min(settings["num_utterances"] or there, there)
    rows, frames = settings["batch_size"], voice.seconds_an_utterance * MIMI_RATE_HZ
    seconds = num * voice.seconds_an_utterance
    tokens = answer_tokens(case, voice)
    parts = [
        states_part(case, settings, num, rows, TEMPLATE_TOKENS + tokens),
        *head_speaking_parts(
            case, head_of(case), math.ceil(num / rows), spoken_rows(rows, settings), frames
        ),
        mimi_part(settings, seconds),
        *case.hearing_parts({**settings, "dtype": "float32"}, voice, 2 * seconds),
    ]
    memory = Memory(
        case.gemma_bytes(settings) + FLOAT32_BYTES * count_parameters(head_of(case)),
        activations=case.tower_memory(settings, voice)[1],
    )
    return Work(
        "speech_head.evaluate", f"{num:,} texts", tuple(parts), memory,
        round(3 * seconds * 48_000 + PLOTS_BYTES), audio_s=seconds,
    )  # fmt: skip


def states_part(case: Case, settings: Settings, number: float, rows: int, positions: float) -> Part:
    """One pass of Gemma over so many rows of so many positions."""
    config = plan_models.find_gemma_config(case.gemma_of(settings)).text_config
    counted = flops.gemma(config, case.gemma_matrices(settings), number, positions, written=1)
    full = {**settings, "dtype": settings.get("dtype", PrecisionSettings.dtype)}
    return case.decoder_part(full, counted, rows, positions)


def alignment_part(frames: float) -> Part:
    """When each unit of a text was said, frame by frame on the CPU."""

    def probe(device: torch.device, budget: float) -> Timed:
        return probes.time_alignment(ALIGNMENT_FLOPS)

    return Part(
        "alignment, CPU", ALIGNMENT_FLOPS * frames, probe, assumed=ALIGNMENT_FLOPS / ALIGNMENT_S
    )


def mimi_part(settings: Settings, seconds: float) -> Part:
    """Mimi's encoder on so many seconds."""
    config = plan_models.find_mimi_config(settings["mimi"])
    with META:
        model = plan_models.build_mimi(config)

    def probe(device: torch.device, budget: float) -> Timed:
        return probes.time_mimi(config, device=device, budget=budget)

    return Part("Mimi", flops.mimi(model, seconds), probe)


def head_of(case: Case) -> AnyHead:
    """The head, on the meta device."""
    with META:
        return _build_head(case)


def _build_head(case: Case) -> AnyHead:
    settings = case.recipe.settings("speech_head.train")
    states = case.recipe.settings("speech_head.states")
    text = plan_models.find_gemma_config(case.gemma_of(settings)).text_config
    codec = plan_models.find_mimi_config(settings["mimi"])
    return plan_models.build_head(settings, states, text, codec)


def head_speaking_parts(
    case: Case, model: AnyHead, batches: float, rows: int, frames: float
) -> list[Part]:
    """The head speaks frame by frame; the parallel head in one pass, which is of no account."""
    if not isinstance(model, SpeechHead):
        return []
    one = flops.speech_head(model, rows, 0, 1)

    def probe(device: torch.device, budget: float) -> Timed:
        real = probes.materialize(lambda: _build_head(case), device)
        assert isinstance(real, SpeechHead)
        few = probes.fitting(rows, one * probes.NUM_GENERATED / rows, 2 * budget)
        return probes.time_frames(real.temporal, real.frame_decoder, few, one * few / rows, device)

    config = model.config
    layers = config.num_layers + (config.num_codebooks - 1) * config.depth_layers
    counted = flops.speech_head(model, rows * batches, 0, frames)
    launches = layers * batches * LONGEST_OF_BATCH * frames
    return [Part("speech head, speaking", counted, probe, launches)]


def answer_tokens(case: Case, speech: Speech) -> float:
    """Gemma's tokens of an utterance's text."""
    text = case.recipe.text
    return speech.seconds_an_utterance * text.characters_a_second / text.characters_a_token


def _time_head(
    case: Case, rows: int, tokens: int, frames: int, dtype: torch.dtype, device: torch.device,
    budget: float,
) -> Timed:  # fmt: skip
    one = flops.TRAINING * flops.speech_head(head_of(case), 1, tokens, frames)
    rows = probes.fitting(rows, one, budget)
    model = probes.materialize(lambda: _build_head(case), device)
    config = model.config
    states = torch.randn(rows, tokens, len(config.layers), config.state_width, device=device)
    step = torch.arange(frames + 1, device=device).clamp(max=tokens - 1)
    batch = HeadBatch(
        states_BSLD=states,
        embeddings_BSD=torch.randn(rows, tokens, config.state_width, device=device),
        token_mask_BS=torch.ones(rows, tokens, dtype=torch.bool, device=device),
        codes_BFK=torch.zeros(rows, frames, config.num_codebooks, dtype=torch.long, device=device),
        cursor_BF=step.expand(rows, -1),
        frame_mask_BF=torch.ones(rows, frames, dtype=torch.bool, device=device),
    )
    weights_K = torch.ones(config.num_codebooks, device=device)

    def loss(_: torch.nn.Module) -> torch.Tensor:
        with probes.mixed(device, dtype):
            return model(batch, weights_K).total

    return probes.time_training(model, loss, rows * one, device)
