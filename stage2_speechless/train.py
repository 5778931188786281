"""Train Speechless on codes with transcripts.

    python -m stage2_speechless.train --codes data/codes/train --dev-codes data/codes/dev \
        --rvq runs/rvq --recognizer runs/recognizer --out runs/speechless

`runs/speechless/model` (`Speechless.from_pretrained`) is the checkpoint whose speech the recogniser
understands best (lowest CER on generated dev sentences); without a recogniser it is the one with
the lowest dev loss, and without dev the last. With `--init-from`, training starts from the layers
of a small language model. Several processes (`accelerate launch`) train as one: the same sums over
the frames of the whole batch and the same draws, but for rounding and for `--dropout`, whose draws
are another in each process.
"""

from typing import Any

import torch
from accelerate import Accelerator

from commands.command_line import parse_config, run_command
from commands.device import describe_machine, pick_device, pick_dtype, seed_step
from commands.errors import InputError
from commands.launchers import join_processes
from commands.origins import Origin, combine, refuse_mixture
from commands.processes import Shares, processes_of, shared_run_folder
from commands.sources import (
    SPEECHLESS,
    Sources,
    as_facts,
    base_model,
    merge,
    refuse_licenses,
    used_for,
)
from commands.training import Training
from stage1_rvq.codes import read_codes_origins
from stage1_rvq.model import load_rvq
from stage2_speechless.config import SpeechlessConfig, default_num_heads
from stage2_speechless.corpus import Corpus, open_corpus, print_left_out
from stage2_speechless.data import collate, move_batch, plan_batches
from stage2_speechless.dev_set import Dev, load_dev
from stage2_speechless.draws import draw_frames, draw_hidden
from stage2_speechless.generation import MAX_FRAMES
from stage2_speechless.metrics import generate_and_transcribe, measure_loss, pool_sentences
from stage2_speechless.model import Speechless
from stage2_speechless.muon import make_optimizer
from stage2_speechless.training_settings import ShapeSettings, TrainConfig
from stage2_speechless.vocabulary import Vocabulary
from stage2_speechless.warm_start import (
    BaseModel,
    copy_layers,
    load_base_model,
    temporal_shape,
)

# Positions count characters, at most 500 per text. Llama's 10,000 is meant for thousands of tokens;
# over so few positions most dimensions would hardly rotate.
ROPE_THETA = 100.0


def main(argv: list[str] | None = None) -> None:
    """Train the model; prints the run's folder."""
    config = parse_config(TrainConfig, argv)
    if config.recognizer and not (config.dev_codes and config.rvq):
        raise InputError(
            "--recognizer needs --dev-codes and --rvq: it reads generated dev sentences"
        )
    corpus = open_corpus(config.codes, Vocabulary())
    refuse_licenses({f"--codes {config.codes}": corpus.sources}, config.inputs.allow_licenses)
    sources = used_for(corpus.sources, SPEECHLESS)
    if config.init_from:
        sources = merge(sources, [base_model(config.init_from)])
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    accelerator = join_processes(device, dtype)
    processes = processes_of(accelerator.device)
    processes.refuse_idle(len(corpus.utterances), "--codes")
    dev, origin = _load_dev(config, corpus, accelerator.device)
    base = load_base_model(config.init_from) if config.init_from else None
    speechless = _build(config, corpus, base, origin, sources).to(accelerator.device)
    inputs = ("codes", "dev_codes", "rvq", "recognizer", "init_from")
    with shared_run_folder(
        processes, config.out, config, "stage2_speechless.train", inputs=inputs,
        per_process=(("batch_size",),),
    ) as output:  # fmt: skip
        if output.is_done:
            return
        if output.is_writer:
            print_left_out(corpus, "--codes")
        output.record(
            **describe_machine(device, dtype),
            **origin.as_facts(),
            sources=as_facts(sources),
            num_processes=processes.count,
            num_utterances=len(corpus.utterances),
            num_left_out=dict(corpus.left_out),
            num_parameters=sum(p.numel() for p in speechless.parameters()),
        )
        if base:
            output.record(init_from_revision=base.revision)
            del base
        _train(config, speechless, corpus, dev, accelerator)


def _train(
    config: TrainConfig,
    speechless: Speechless,
    corpus: Corpus,
    dev: Dev | None,
    accelerator: Accelerator,
) -> None:
    optimizer = make_optimizer(
        speechless, config.optimizer, learning_rate=config.schedule.learning_rate
    )
    training = Training(
        accelerator, config.out, speechless, optimizer, config.schedule,
        steps=config.steps, save_every=config.checkpoints.save_every,
    )  # fmt: skip
    processes = training.processes
    by_tokens = config.batch_tokens is not None
    batches = plan_batches(
        corpus.num_positions_N if by_tokens else corpus.num_frames_N,
        config.batch_size, config.batch_tokens, config.seed,
        num_processes=processes.count, flag="--batch-tokens",
    )  # fmt: skip
    with training:
        for step in training.progress("train"):
            seed_step(config.seed, step)
            picks = batches.at_step(step)
            frames = corpus.num_frames_N[picks].tolist()  # of the whole batch
            hidden = draw_hidden(
                frames,
                dialect_dropout=config.loss.dialect_dropout,
                text_dropout=config.loss.text_dropout,
                history_dropout=config.loss.history_dropout,
            )
            drawn, shares = None, Shares()
            if processes.count > 1:
                drawn = draw_frames(processes, frames, config.loss.depth_fraction)
                shares = Shares(
                    frames=processes.share(frames),
                    drawn=drawn.share,
                    utterances=processes.share([1] * len(frames)),
                )
                seed_step(config.seed, step, processes.rank)  # dropout
            chosen = [corpus.utterances[i] for i in processes.own(picks.tolist())]
            batch = collate(chosen, speechless, processes.own(hidden))
            loss = training.model(
                **vars(move_batch(batch, accelerator.device)),
                depth_fraction=config.loss.depth_fraction,
                codebook_weights=config.loss.codebook_weights,
                drawn_N=drawn.places_N if drawn else None,
                shares=shares,
            )
            training.update(loss.total, loss.as_numbers(), [u.id for u in chosen])
            if training.is_due:
                metrics = _measure(config, speechless.eval(), dev) if dev else None
                judged_by = "cer" if dev and dev.round_trip else "loss"
                training.keep_best(metrics, judged_by=judged_by)
                training.save()


def _load_dev(
    config: TrainConfig, corpus: Corpus, device: torch.device
) -> tuple[Dev | None, Origin]:
    """Dev data, if there are any, and what all inputs belong to."""
    origins = dict(corpus.origins)
    dev = None
    if config.dev_codes:
        origins |= read_codes_origins(config.dev_codes, flag="--dev-codes")
        dev = load_dev(
            config.dev_codes, config.rvq, config.recognizer, corpus.format, origins,
            expected_by=f"--codes {config.codes}", device=device,
            allow_mixture=config.inputs.allow_mixture,
        )  # fmt: skip
    if config.rvq and dev and dev.round_trip:
        origins[f"--rvq {config.rvq}"] = dev.round_trip.rvq.origin()
    elif config.rvq:
        rvq = load_rvq(config.rvq, device=torch.device("cpu"))
        origins[f"--rvq {config.rvq}"] = rvq.origin()
    if not (dev and dev.round_trip):  # else refused already
        refuse_mixture(origins, allowed=config.inputs.allow_mixture)
    return dev, combine(*origins.values())


def _build(
    config: TrainConfig,
    corpus: Corpus,
    base: BaseModel | None,
    origin: Origin,
    sources: Sources,
) -> Speechless:
    """The model, with random weights or the base model's layers."""
    fmt = corpus.format
    shape = SpeechlessConfig(
        num_codebooks=fmt.num_codebooks,
        codebook_size=fmt.codebook_size,
        frame_rate_hz=fmt.frame_rate_hz,
        **(temporal_shape(base) if base else _own_shape(config.shape)),
        depth_width=config.shape.depth_width,
        depth_layers=config.shape.depth_layers,
        depth_heads=config.shape.depth_heads or default_num_heads(config.shape.depth_width),
        dropout=config.shape.dropout,
        text_dropout=config.loss.text_dropout,
        rates_cps=corpus.rate_quantiles(),
        quantizer=origin.quantizer,
        tower=origin.tower,
        sources=sources,
    )
    seed_step(config.seed, -1)
    speechless = Speechless(shape)
    if base:
        copy_layers(base, speechless)
    return speechless


def _own_shape(shape: ShapeSettings) -> dict[str, Any]:
    """Shape of a temporal transformer that starts from random weights."""
    width = SpeechlessConfig.width if shape.width is None else shape.width
    layers = SpeechlessConfig.num_layers if shape.num_layers is None else shape.num_layers
    heads = shape.num_heads or default_num_heads(width)
    rope = {"rope_type": "default", "rope_theta": ROPE_THETA}
    llama = {"rope_parameters": rope}
    return {"width": width, "num_layers": layers, "num_heads": heads, "llama": llama}


def _measure(config: TrainConfig, model: Speechless, dev: Dev) -> dict[str, float]:
    """The losses on dev, and how the recogniser reads what the model makes of its sentences."""
    metrics = measure_loss(model, dev.utterances, config.batch_size, config.loss.codebook_weights)
    if not dev.round_trip:
        return metrics
    chosen = dev.utterances[: config.checkpoints.num_dev_sentences]
    # Models early in training do not end; twice the longest recording is enough to see that.
    longest = max(len(u.codes_TK) for u in chosen)
    sentences = generate_and_transcribe(
        model, chosen, dev.round_trip, seed=config.seed, batch_size=config.batch_size,
        max_frames=min(MAX_FRAMES, 2 * longest),
    )  # fmt: skip
    speech = pool_sentences(sentences)
    rates = speech.errors.generated
    return metrics | {
        "cer": rates.cer, "wer": rates.wer,
        "length_ratio": speech.length_ratio, "never_ended": speech.never_ended,
    }  # fmt: skip


if __name__ == "__main__":
    run_command(main)
