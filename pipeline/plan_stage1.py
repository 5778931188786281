"""Steps of the plan that prepare recordings, and turn them into codes: data and stage 1."""

import math

import torch

from gemma4.gemma import FRAME_RATE_HZ
from gemma4.memory_plan import FLOAT32_BYTES
from pipeline import flops, probes
from pipeline.plan_case import LONGEST_OF_CORPUS, RECOGNIZER, RVQ, Case
from pipeline.plan_models import count_parameters
from pipeline.plan_sizes import (
    Memory,
    adamw_bytes,
    codes_bytes,
    count_frames,
    embeddings_bytes,
    logits_bytes,
    lstm_activations,
    rows_bytes,
    run_bytes,
    training_memory,
)
from pipeline.recipe import Speech
from pipeline.work import Part, Timed, Work
from stage1_rvq.corpus_encoder import UTTERANCES_PER_SHARD
from stage1_rvq.model import MIN_FRAMES_PER_CODE

MANIFEST_BYTES = 320  # a row of a manifest, without its text
PLOTS_BYTES = 300_000  # metrics and plots of an evaluation
PREFIXES = 5  # an evaluation reads speech unquantised, and with 1, 2, 4 and 8 codebooks


def say_hours(hours: float) -> str:
    """Hours, and their frames."""
    return f"{hours:,.4g} h, {count_frames(hours) / 1e6:,.3g} M frames"


def say_steps(steps: int, rows: int, speech: Speech) -> str:
    passes = say_epochs(steps * rows, speech.count_utterances(speech.hours))
    return f"{steps:,} steps of {rows} utterances, {passes}"


def say_epochs(seen: float, there: float) -> str:
    return f"{seen / max(1, there):.3g} epochs"


def plan_build(case: Case) -> Work:
    """`data_manifests.build`: unpacks archives; it decodes nothing."""
    speech = case.recipe.corpus
    disk = speech.all_hours * speech.megabytes_an_hour * 1e6
    disk += rows_bytes(speech, speech.all_hours, MANIFEST_BYTES)
    memory = Memory(0, host=case.host(speech))
    return Work("data_manifests.build", say_hours(speech.all_hours), (), memory, round(disk))


def plan_check(case: Case) -> Work:
    """`data_manifests.check` of the train split: decodes everything once."""
    speech, settings = case.recipe.corpus, case.recipe.settings("data_manifests.check")
    disk = rows_bytes(speech, speech.hours, MANIFEST_BYTES) if settings["fix"] else 0
    return Work(
        "data_manifests.check", say_hours(speech.hours), (), Memory(0), disk,
        audio_s=speech.hours * 3600, decoders=max(1, settings["num_workers"]),
    )  # fmt: skip


def plan_embed(case: Case) -> Work:
    """`stage1_rvq.embed` of all splits."""
    speech, settings = case.recipe.corpus, case.recipe.settings("stage1_rvq.embed")
    seconds = speech.all_hours * 3600
    weights, held, host = case.tower_memory(settings, speech)
    return Work(
        "stage1_rvq.embed", say_hours(speech.all_hours),
        (case.tower_part(settings, speech, seconds), case.mel_part(seconds)),
        Memory(weights, 0, held, host),
        embeddings_bytes(speech, speech.all_hours, dim=case.dim()),
        audio_s=seconds, decoders=max(1, settings["num_workers"]),
        num_shards=num_shards_of(speech),
    )  # fmt: skip


def plan_recognizer(case: Case) -> Work:
    """`stage1_rvq.train_recognizer`, with dev measured at every checkpoint."""
    speech, settings = case.recipe.corpus, case.recipe.settings(RECOGNIZER)
    frames = settings["batch_size"] * speech.seconds_an_utterance * FRAME_RATE_HZ
    steps = settings["steps"]
    model = case.recognizer()
    parts = [
        case.recognizer_part(steps * frames),
        case.adamw_part(count_parameters(model), steps),
    ]
    measured = steps / settings["save_every"] * count_frames(speech.dev_hours)
    parts.append(case.recognizer_part(measured, passes=flops.FORWARD))
    held = lstm_activations(
        settings["batch_size"], LONGEST_OF_CORPUS * speech.seconds_an_utterance * FRAME_RATE_HZ,
        settings["width"], settings["num_layers"],
    )  # fmt: skip
    held += logits_bytes(LONGEST_OF_CORPUS * frames, settings["num_units"])
    num = count_parameters(model)
    return Work(
        RECOGNIZER, say_steps(steps, settings["batch_size"], speech), tuple(parts),
        training_memory(num, adamw_bytes(num), held, case.host(speech)),
        run_bytes(num, adamw_bytes(num), settings),
    )  # fmt: skip


def plan_rvq(case: Case) -> Work:
    """`stage1_rvq.train`: k-means once, then steps; with a recogniser its loss, too."""
    speech, settings = case.recipe.corpus, case.recipe.settings(RVQ)
    config = case.rvq()
    shape = (config.dim, config.num_codebooks, config.codebook_size)
    learns = bool(settings["recognizer"])
    steps, there = settings["steps"], count_frames(speech.hours)
    read = settings["task_utterances"] * speech.seconds_an_utterance * FRAME_RATE_HZ * learns
    frames = min(settings["batch_frames"], there) + read
    sampled = min(4 * MIN_FRAMES_PER_CODE * config.codebook_size, there)
    quantize = flops.rvq_training(*shape, frames, learns=learns)

    def probe(device: torch.device, budget: float) -> Timed:
        return probes.time_quantizer(
            config, round(frames), learns=learns, device=device, budget=budget
        )

    name = f"quantiser, {config.num_codebooks} x {config.codebook_size}"
    dev = steps / settings["save_every"] * count_frames(speech.dev_hours)
    parts = [
        case.encoding_part(flops.kmeans(*shape, sampled)),
        Part(name, steps * quantize, probe),
        case.encode_part(dev),
    ]
    num = 2 * config.dim * (config.dim + 1)
    if learns:
        parts += [
            case.recognizer_part(steps * read, passes=flops.FROZEN),
            case.recognizer_part(dev, passes=flops.FORWARD),
            case.adamw_part(num, steps),
        ]
    codebooks = 2 * FLOAT32_BYTES * math.prod(shape)
    # k-means holds the sample six times: raw, mapped, residual, centred, rotated, cut.
    fitting = 6 * FLOAT32_BYTES * sampled * config.dim
    # The library's distances, and one-hot vectors as integers and as numbers.
    stepping = 20 * frames * config.codebook_size + 8 * FLOAT32_BYTES * frames * config.dim
    weights = FLOAT32_BYTES * (num + config.dim**2) + codebooks
    faults: tuple[str, ...] = ()
    if there < MIN_FRAMES_PER_CODE * config.codebook_size:
        needed = MIN_FRAMES_PER_CODE * config.codebook_size / FRAME_RATE_HZ / 60
        faults = (f"--codebook-size {config.codebook_size} needs {needed:.0f} minutes of speech",)
    return Work(
        RVQ, f"{steps:,} steps of {frames:,.0f} frames, {say_epochs(steps * frames, there)}",
        tuple(parts),
        Memory(
            weights, (FLOAT32_BYTES * num + adamw_bytes(num)) * learns,
            round(max(fitting, stepping)), case.host(speech),
        ),
        run_bytes(num, adamw_bytes(num) * learns, settings, others=codebooks), faults=faults,
    )  # fmt: skip


def plan_rvq_evaluation(case: Case) -> Work:
    """`stage1_rvq.evaluate` on the test split."""
    speech, settings = case.recipe.corpus, case.recipe.settings("stage1_rvq.evaluate")
    frames = count_frames(speech.test_hours)
    parts = [case.encode_part(frames)]
    if settings["recognizer"]:
        parts.append(case.recognizer_part(PREFIXES * frames, passes=flops.FORWARD))
    # All embeddings of the split, as they are and reconstructed.
    held = 2 * FLOAT32_BYTES * frames * case.dim()
    config = case.rvq()
    weights = FLOAT32_BYTES * config.num_codebooks * config.codebook_size * config.dim
    return Work(
        "stage1_rvq.evaluate", say_hours(speech.test_hours), tuple(parts),
        Memory(weights, host=case.host(speech) + held), PLOTS_BYTES,
    )  # fmt: skip


def plan_tokenizing(case: Case) -> Work:
    """`stage1_rvq.tokenize_corpus` of all splits: cached embeddings if the recipe embeds or names
    them, else recordings."""
    speech, settings = case.recipe.corpus, case.recipe.settings("stage1_rvq.tokenize_corpus")
    config = case.rvq()
    is_cached = bool(settings["embeddings"]) or (
        not settings["manifest"] and "stage1_rvq.embed" in case.recipe.commands
    )
    frames = count_frames(speech.all_hours)
    parts = [case.encode_part(frames * settings["beam_size"])]
    weights = 2 * FLOAT32_BYTES * config.num_codebooks * config.codebook_size * config.dim
    memory = Memory(weights, host=case.host(speech))
    seconds = 0.0
    if not is_cached:
        seconds = speech.all_hours * 3600
        parts += [case.tower_part(settings, speech, seconds), case.mel_part(seconds)]
        of_tower, held, host = case.tower_memory(settings, speech)
        memory = Memory(weights + of_tower, 0, held, host)
    disk = codes_bytes(frames, config.num_codebooks, config.codebook_size)
    return Work(
        "stage1_rvq.tokenize_corpus", say_hours(speech.all_hours), tuple(parts), memory,
        disk + rows_bytes(speech, speech.all_hours, 60), audio_s=seconds,
        decoders=max(1, settings["num_workers"]), num_shards=num_shards_of(speech),
    )  # fmt: skip


def num_shards_of(speech: Speech) -> int:
    return math.ceil(speech.count_utterances(speech.all_hours) / UTTERANCES_PER_SHARD)
