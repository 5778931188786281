"""Evaluate a quantiser: codebook use, what it loses, and whether its codes can still be read.

    python -m stage1_rvq.evaluate --rvq runs/rvq --embeddings data/cv-embeddings/test \
        --recognizer runs/recognizer --out runs/rvq-test

Writes `metrics.json` and a plot of codebook use; prints the table. Everything is measured on all of
one held-out folder, whose size is printed.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from commands.atomic_write import write_json, written_aside
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, describe_machine, pick_device
from commands.errors import InputError
from commands.origins import combine, refuse_mixture
from commands.run_folder import run_folder
from commands.setting_types import ModelName, PositiveInt, StorePath
from data_manifests.error_rates import compute_error_rates
from data_manifests.manifest import read_manifest
from gemma4.gemma import load_audio_encoder
from stage1_rvq.codebook_metrics import (
    CodebookUsage,
    QuantizerMetrics,
    ReadRates,
    codebook_prefixes,
    measure_reconstruction,
    measure_usage,
)
from stage1_rvq.data import EmbeddingFolder
from stage1_rvq.model import MIN_FRAMES_PER_CODE, SpeechRVQ, load_rvq
from stage1_rvq.noise_robustness import measure_noise_robustness
from stage1_rvq.recognizer import CTCRecognizer, load_recognizer


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Measure a quantiser on held-out embeddings."""

    rvq: ModelName
    """quantiser: folder of stage1_rvq.train, or hub name"""
    embeddings: Path
    """held-out folder written by stage1_rvq.embed"""
    out: Path
    """new folder for metrics.json"""
    recognizer: Path | None = None
    """folder of stage1_rvq.train_recognizer: adds word and character error rates before and after
    quantisation"""
    manifest: StorePath | None = None
    """manifest of recordings: adds how much codes change under noise (30 and 20 dB); needs
    --gemma"""
    gemma: ModelName | None = None
    """with --manifest: hub name or folder of the audio tower that made the embeddings"""
    beam_size: PositiveInt = 1
    """candidates kept per codebook while encoding"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""
    allow_mixture: bool = False
    """go on although the inputs belong to different audio towers or quantisers"""
    overwrite: bool = False
    """write again what an earlier run wrote into --out, which is kept until that is done"""

    def __post_init__(self) -> None:
        if bool(self.manifest) != bool(self.gemma):
            raise ValueError("--manifest and --gemma go together: recordings, and what hears them")


def main(argv: list[str] | None = None) -> None:
    """Measure, write `metrics.json`, print the table."""
    config = parse_config(EvaluateConfig, argv)
    device = pick_device(config.device)
    embeddings = EmbeddingFolder(config.embeddings)
    rvq = load_rvq(config.rvq, device=device)
    recognizer = config.recognizer and load_recognizer(config.recognizer, device=device)
    encoder, utterances = None, []
    if config.manifest and config.gemma:
        utterances = list(read_manifest(config.manifest))
        encoder = load_audio_encoder(config.gemma, device=device, dtype=torch.float32)
    if embeddings.dim != rvq.config.dim:
        raise InputError(f"--embeddings are {embeddings.dim} wide, --rvq takes {rvq.config.dim}")
    origins = {f"--rvq {config.rvq}": rvq.origin(), embeddings.name: embeddings.origin}
    if recognizer:
        origins[f"--recognizer {config.recognizer}"] = recognizer.origin()
    if encoder:
        origins[f"--gemma {config.gemma}"] = encoder.origin
    refuse_mixture(origins, allowed=config.allow_mixture)
    with run_folder(
        config.out,
        config,
        "stage1_rvq.evaluate",
        inputs=("rvq", "embeddings", "recognizer", "manifest", "gemma"),
    ) as output:
        made_with = combine(*origins.values())
        output.record(**describe_machine(device, "float32"), **made_with.as_facts())
        metrics = measure(rvq, embeddings, recognizer or None, beam_size=config.beam_size)
        if encoder:
            distances = measure_noise_robustness(utterances, encoder, rvq)
            metrics = replace(metrics, unit_edit_distance=distances)
        write_json(config.out / "metrics.json", metrics.as_dict())
        plot_usage(metrics, config.out / "codebook_usage.png")
        print(format_table(metrics))


def measure(
    rvq: SpeechRVQ,
    embeddings: EmbeddingFolder,
    recognizer: CTCRecognizer | None,
    *,
    beam_size: int = 1,
) -> QuantizerMetrics:
    """All stage-1 numbers on one folder of embeddings, except the robustness to noise."""
    device = rvq.frame_scale_D.device
    frames = [
        embeddings.read(u) for u in tqdm(embeddings.utterances, desc="read", unit=" utterances")
    ]
    codes = [
        rvq.encode(f.to(device), beam_size=beam_size)
        for f in tqdm(frames, desc="quantise", unit=" utterances")
    ]
    codes_NK = torch.cat(codes).cpu()
    frames_ND = torch.cat(frames)
    prefixes = codebook_prefixes(rvq.config.num_codebooks)
    reconstruction = {}
    for k in prefixes:
        decoded_ND = rvq.decode(codes_NK[:, :k].to(device)).cpu()
        reconstruction[str(k)] = measure_reconstruction(frames_ND, decoded_ND, embeddings.metric)
    continuous, quantized = None, None
    if recognizer is not None:
        texts = [u.text for u in embeddings.utterances]
        continuous = _read(recognizer, frames, texts)
        quantized = {
            str(k): _read(recognizer, [rvq.decode(c[:, :k]) for c in codes], texts)
            for k in prefixes
        }
    return QuantizerMetrics(
        **vars(measure_usage(codes_NK, rvq.config.codebook_size)),
        num_utterances=len(frames),
        num_frames=len(codes_NK),
        codebook_size=rvq.config.codebook_size,
        enough_frames_for_usage=len(codes_NK) >= MIN_FRAMES_PER_CODE * rvq.config.codebook_size,
        reconstruction=reconstruction,
        continuous=continuous,
        quantized=quantized,
    )


def format_table(metrics: QuantizerMetrics) -> str:
    """The numbers as a table for the terminal."""
    few = "" if metrics.enough_frames_for_usage else " (under 20 per code: usage is a lower bound)"
    lines = [
        f"{metrics.num_utterances} utterances, {metrics.num_frames} frames{few}",
        f"{'codebook':<10}{'used %':>8}{'perplexity':>12}{'entropy':>9}",
    ]
    usage = zip(metrics.used_fraction, metrics.perplexity, metrics.normalized_entropy, strict=True)
    for k, (used, perplexity, entropy) in enumerate(usage, start=1):
        lines.append(f"{k:<10}{100 * used:>8.1f}{perplexity:>12.1f}{entropy:>9.3f}")
    lines += _reconstruction_rows(metrics)
    for db, distances in (metrics.unit_edit_distance or {}).items():
        shown = " ".join(f"{100 * distance:.1f}" for distance in distances)
        lines.append(f"codes changed by noise at {db} dB, % by codebook: {shown}")
    return "\n".join(lines)


def _reconstruction_rows(metrics: QuantizerMetrics) -> list[str]:
    """By the number of codebooks: relative error in each space, cosine and MSE of raw embeddings,
    error rates."""
    by_codebooks = metrics.reconstruction.items()
    spaces = list(next(iter(metrics.reconstruction.values())))
    titles = [f"error {space}" for space in spaces] + ["cosine raw", "MSE raw"]
    rows = ["codebooks " + "".join(f"{t:>18}" for t in titles) + f"{'WER %':>8}{'CER %':>8}"]
    if metrics.continuous:
        numbers = [*(f"{0:>18.4f}" for _ in spaces), f"{1:>18.4f}", f"{0:>18.4f}"]
        rows.append(f"{'none':<10}" + "".join(numbers) + _percent(metrics.continuous))
    for codebooks, parts in by_codebooks:
        numbers = [f"{parts[space].relative_error:>18.4f}" for space in spaces]
        numbers += [f"{parts['raw'].cosine:>18.4f}", f"{parts['raw'].mse:>18.4f}"]
        rates = _percent(metrics.quantized[codebooks]) if metrics.quantized else ""
        rows.append(f"{codebooks:<10}" + "".join(numbers) + rates)
    return rows


def plot_usage(metrics: CodebookUsage, path: Path) -> None:
    """Bar chart of used codes and normalised entropy by codebook."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    positions = range(1, len(metrics.used_fraction) + 1)
    axes.bar(positions, metrics.used_fraction, label="used codes")
    axes.plot(positions, metrics.normalized_entropy, "ko-", label="entropy / log(size)")
    axes.set(xlabel="codebook, coarsest first", ylabel="fraction", ylim=(0, 1.05))
    axes.legend(loc="lower right")
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=120, format="png")


def _percent(rates: ReadRates) -> str:
    return f"{100 * rates.wer:>8.1f}{100 * rates.cer:>8.1f}"


def _read(recognizer: CTCRecognizer, frames: list[Tensor], texts: list[str]) -> ReadRates:
    rates = compute_error_rates(texts, recognizer.transcribe(frames))
    return ReadRates(rates.wer, rates.cer, rates.wer_low, rates.wer_high)


if __name__ == "__main__":
    run_command(main)
