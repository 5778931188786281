"""Steps of the plan that train Speechless and judge it: stage 2."""

import math

import torch

from gemma4.gemma import FRAME_RATE_HZ
from gemma4.memory_plan import FLOAT32_BYTES
from pipeline import flops, plan_models, probes
from pipeline.plan_case import LONGEST_OF_CORPUS, Case, spoken_rows
from pipeline.plan_models import META, count_parameters
from pipeline.plan_sizes import (
    Memory,
    cache_bytes,
    codes_copy_bytes,
    logits_bytes,
    muon_bytes,
    run_bytes,
    training_memory,
    transformer_activations,
)
from pipeline.plan_stage1 import PLOTS_BYTES, say_steps
from pipeline.recipe import Settings
from pipeline.work import Part, Timed, Work
from stage2_speechless.model import Speechless
from stage2_speechless.training_settings import LossSettings
from stage2_speechless.vocabulary import NUM_CONDITIONS


def plan_speechless(case: Case) -> Work:
    """`stage2_speechless.train`; with a recogniser, dev sentences are spoken at every
    checkpoint."""
    recipe, speech = case.recipe, case.recipe.corpus
    settings = recipe.settings("stage2_speechless.train")
    steps = settings["steps"]
    frames = speech.seconds_an_utterance * FRAME_RATE_HZ
    prefix = speechless_prefix(case, speech.seconds_an_utterance)
    rows = rows_of(settings, settings["batch_tokens"], prefix + frames)
    model = case.speechless()
    dtype = case.dtype(settings["dtype"])
    share = LossSettings.depth_fraction
    step = flops.TRAINING * flops.speechless(model, rows, prefix, frames, depth_fraction=share)

    def probe(device: torch.device, budget: float) -> Timed:
        return _time_speechless(case, rows, round(prefix), round(frames), dtype, device, budget)

    layers = model.config.num_layers + model.config.depth_layers
    launches = flops.TRAINING * steps * layers
    name = f"Speechless, training, {str(dtype).removeprefix('torch.')}"
    num, of_muon = count_parameters(model), muon_bytes(model)
    parts = [
        Part(name, steps * step, probe, launches, dtype), *case.muon_parts(model, steps, dtype),
    ]  # fmt: skip
    if settings["recognizer"]:
        num_dev = min(settings["num_dev_sentences"], speech.count_utterances(speech.dev_hours))
        together = settings["batch_size"]
        batches = steps / settings["save_every"] * math.ceil(num_dev / together)
        spoken = spoken_rows(together, settings)
        parts.append(case.speaking_part(batches, spoken, prefix, frames))
    stretch = 1.0 if settings["batch_tokens"] else LONGEST_OF_CORPUS
    length = round(stretch * (prefix + frames))
    held = speechless_activations(model, rows, length, round(stretch * frames))
    copy = codes_copy_bytes(speech, speech.hours, model.config.num_codebooks)
    return Work(
        "stage2_speechless.train", say_steps(steps, rows, speech), tuple(parts),
        training_memory(num, of_muon, held, case.host(speech)),
        run_bytes(num, of_muon, settings) + copy,
    )  # fmt: skip


def plan_speechless_evaluation(case: Case) -> Work:
    """`stage2_speechless.evaluate` on the test split, and the recogniser on it."""
    speech, settings = case.recipe.corpus, case.recipe.settings("stage2_speechless.evaluate")
    there = speech.count_utterances(speech.test_hours)
    num = min(settings["num_utterances"] or there, there)
    frames = speech.seconds_an_utterance * FRAME_RATE_HZ
    together = settings["batch_size"]
    rows = spoken_rows(together, settings)
    prefix = speechless_prefix(case, speech.seconds_an_utterance)
    parts = (
        case.speaking_part(math.ceil(num / together), rows, prefix, frames),
        case.recognizer_part(2 * num * frames, passes=flops.FORWARD),
    )
    return Work(
        "stage2_speechless.evaluate", f"{num:,} sentences", parts,
        speaking_memory(case, rows, LONGEST_OF_CORPUS * (prefix + frames)), PLOTS_BYTES,
    )  # fmt: skip


def rows_of(settings: Settings, positions: int | None, length: float) -> int:
    """Utterances in a step: as many as fit into so many positions, or --batch-size."""
    return max(1, round(positions / length)) if positions else int(settings["batch_size"])


def speechless_prefix(case: Case, seconds: float) -> float:
    """Positions before the first frame: conditions, characters, start."""
    return NUM_CONDITIONS + 1 + seconds * case.recipe.text.characters_a_second


def speaking_memory(case: Case, rows: int, length: float) -> Memory:
    """Speechless, its cache of so many rows, and what reads its codes."""
    model, rvq = case.speechless(), case.rvq()
    num = count_parameters(model) + count_parameters(case.recognizer())
    num += 2 * rvq.num_codebooks * rvq.codebook_size * rvq.dim
    held = cache_bytes(model.config.width, model.config.num_layers, rows, length)
    return Memory(FLOAT32_BYTES * num, activations=held)


def speechless_activations(model: Speechless, rows: int, length: int, frames: int) -> int:
    """What a training step keeps of the longest batch, logits included."""
    config = model.config
    drawn = round(LossSettings.depth_fraction * rows * frames)
    codes = (config.num_codebooks - 1) * drawn + rows * frames
    return (
        transformer_activations(model.temporal, rows, length)
        + transformer_activations(model.frame_decoder.transformer, drawn, config.num_codebooks - 1)
        + logits_bytes(codes, config.codebook_size)
    )


def _time_speechless(
    case: Case, rows: int, prefix: int, frames: int, dtype: torch.dtype, device: torch.device,
    budget: float,
) -> Timed:  # fmt: skip
    settings, rvq = case.recipe.settings("stage2_speechless.train"), case.rvq()
    with META:
        shape = plan_models.build_speechless(settings, rvq)
    share = LossSettings.depth_fraction
    one = flops.TRAINING * flops.speechless(shape, 1, prefix, frames, depth_fraction=share)
    rows = probes.fitting(rows, one, budget)
    model = probes.materialize(lambda: plan_models.build_speechless(settings, rvq), device)
    size, length = (rows, prefix + frames, rvq.num_codebooks), prefix + frames
    tokens = torch.ones(size, dtype=torch.long, device=device)
    targets = torch.full(size, -100, device=device)
    targets[:, prefix - 1 : -1] = 0
    targets[:, -1, 0] = model.end_of_speech
    positions = torch.arange(length, device=device).float().expand(rows, length)

    def loss(_: torch.nn.Module) -> torch.Tensor:
        with probes.mixed(device, dtype):
            return model(tokens, positions, targets, depth_fraction=share).total

    return probes.time_training(model, loss, rows * one, device)
