"""Train the speech head on cached states.

    python -m speech_head.train --states data/states/train --dev-states data/states/dev \
        --out runs/head

`runs/head/model` (`SpeechHead.from_pretrained`) is the checkpoint whose speech the recogniser
understands best (lowest CER on dev texts that the head speaks by itself); without a recogniser it
is the one with the lowest dev loss, without dev states the last one. Several processes
(`accelerate launch`) train as one: the same sums over the frames of the whole batch and the same
draws, but for rounding and for dropout inside layers, whose draws are another in each process.
"""

import sys
from dataclasses import asdict

import torch
from accelerate import Accelerator

from commands.command_line import parse_config, run_command
from commands.device import describe_machine, pick_device, pick_dtype, seed_step
from commands.errors import InputError
from commands.launchers import join_processes
from commands.origins import refuse_mixture
from commands.processes import Shares, processes_of, shared_run_folder
from commands.sources import HEAD, Sources, as_facts, merge, refuse_licenses, used_for
from commands.training import Training
from speech_head.build import (
    AnyHead,
    build_head,
    keep_voices,
    read_head_sources,
    references_for,
    start_from,
)
from speech_head.data import StatesFolder, refuse_other_states
from speech_head.dev_set import Dev, load_judge, measure_loss, measure_speech
from speech_head.head_batch import collate
from speech_head.live_states import load_live_states
from speech_head.model import SpeechHead
from speech_head.training_settings import TrainConfig
from stage2_speechless.data import plan_batches
from stage2_speechless.muon import make_optimizer


def main(argv: list[str] | None = None) -> None:
    """Train the head; prints the run's folder."""
    config = parse_config(TrainConfig, argv)
    if config.recognizer and not config.dev_states:
        raise InputError(
            "--recognizer needs --dev-states: it reads what the head makes of dev texts"
        )
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    states, dev_states = _open_states(config, device, dtype)
    fmt = states.format
    codebook_weights = config.loss.codebook_weights
    if len(codebook_weights) != fmt.num_codebooks:
        raise InputError(
            f"--codebook-weights has {len(codebook_weights)} numbers, the states have "
            f"{fmt.num_codebooks} codebooks"
        )
    sources = _read_sources(config, states)
    accelerator = join_processes(device, dtype)
    processes = processes_of(accelerator.device)
    processes.refuse_idle(len(states.utterances), "--states")
    dev = None
    if dev_states:
        judge = None
        if config.recognizer:
            judge = load_judge(
                config.gemma, config.mimi, config.recognizer, fmt, device=accelerator.device,
                allow_mixture=config.inputs.allow_mixture,
            )  # fmt: skip
        dev = Dev(dev_states, judge)
    seed_step(config.seed, -1)
    head = build_head(states, config.shape, text_dropout=config.loss.text_dropout, sources=sources)
    if config.init_from:
        missing = ", ".join(start_from(head, config.init_from)) or "none"
        if processes.is_first:
            print(f"--init-from: weights left random: {missing}", file=sys.stderr)
    head.to(accelerator.device)
    judged = ("recognizer", "gemma", "mimi") if config.recognizer else ()
    inputs = ("states", "dev_states", "init_from", *judged)
    with shared_run_folder(
        processes, config.out, config, "speech_head.train", inputs=inputs,
        per_process=(("batch_size",),),
    ) as output:  # fmt: skip
        if output.is_done:
            return
        output.record(
            **describe_machine(device, dtype),
            num_processes=processes.count,
            num_utterances=len(states.utterances),
            num_frames=states.num_frames,
            sources=as_facts(sources),
            num_parameters=sum(p.numel() for p in head.parameters()),
        )
        _train(config, head, states, dev, accelerator)


def _train(
    config: TrainConfig,
    head: AnyHead,
    states: StatesFolder,
    dev: Dev | None,
    accelerator: Accelerator,
) -> None:
    # WER on the demo's dev answers, 700 steps: AdamW 0.422 at a rate of 0.003, no other tried;
    # Muon 0.458 at 0.003, 0.355 at 0.006, 0.318 at 0.012. In 3,000 steps neither is better. The
    # published head keeps the optimizer that it was published with.
    optimizer = make_optimizer(
        head,
        "muon" if isinstance(head, SpeechHead) else "adamw",
        learning_rate=config.schedule.learning_rate,
    )
    training = Training(
        accelerator, config.out, head, optimizer, config.schedule,
        steps=config.steps, save_every=config.checkpoints.save_every,
    )  # fmt: skip
    processes = training.processes
    weights_K = torch.tensor(config.loss.codebook_weights, device=accelerator.device)
    batches = plan_batches(
        states.num_frames_N, config.batch_size, config.batch_frames, config.seed,
        num_processes=processes.count, flag="--batch-frames",
    )  # fmt: skip
    references = references_for(head, states)
    with training:
        for step in training.progress("head"):
            seed_step(config.seed, step)
            rows = batches.at_step(step).tolist()
            whole = [states.utterances[i] for i in rows]
            longest = max(utterance.num_frames for utterance in whole)
            told = head.draw_told(len(whole), longest, config.loss.history_dropout)
            shown = references.draw(rows) if references else None
            if processes.count > 1:
                seed_step(config.seed, step, processes.rank)  # dropout
            chosen = processes.own(whole)
            batch = collate(states.read_all(chosen))
            if references and shown:
                own = processes.own(shown)
                batch = batch.with_voices(references.read(own), references.voices(own))
            loss = training.model(
                batch.to(accelerator.device),
                weights_K,
                told.of_process(processes, batch.frame_mask_BF.shape[1]),
                Shares(
                    frames=processes.share([utterance.num_frames for utterance in whole]),
                    utterances=processes.share([1] * len(whole)),
                    tokens=processes.share([utterance.num_tokens for utterance in whole]),
                ),
            )
            training.update(loss.total, loss.as_numbers(), [u.id for u in chosen])
            if training.is_due:
                head.eval()
                # Its voices are those of the training data, as it hears them at this step.
                keep_voices(head, references)
                metrics = _measure(config, head, dev) if dev else None
                judged_by = "cer" if dev and dev.judge else "loss"
                training.keep_best(metrics, judged_by=judged_by)
                training.save()


def _read_sources(config: TrainConfig, states: StatesFolder) -> Sources:
    """What the head is made from; InputError if a licence is not allowed."""
    sources = {states.name: used_for(states.sources, HEAD)}
    if config.init_from and config.shape.architecture == "cursor":
        sources[f"--init-from {config.init_from}"] = read_head_sources(config.init_from)
    refuse_licenses(sources, config.inputs.allow_licenses)
    return merge(*sources.values())


def _open_states(
    config: TrainConfig, device: torch.device, dtype: torch.dtype
) -> tuple[StatesFolder, StatesFolder | None]:
    """Training and dev states, from disk or computed when needed."""
    states: StatesFolder
    dev_states: StatesFolder | None = None
    if config.on_the_fly:
        states, dev_states = load_live_states(
            config.states, config.dev_states, device=device, dtype=dtype,
            allow_mixture=config.inputs.allow_mixture,
        )  # fmt: skip
    else:
        states = StatesFolder(config.states)
        if config.dev_states:
            dev_states = StatesFolder(config.dev_states, flag="--dev-states")
    if dev_states:
        refuse_other_states(dev_states.format, states.format, flag="--dev-states")
        refuse_mixture(
            {states.name: states.origin, dev_states.name: dev_states.origin},
            allowed=config.inputs.allow_mixture,
        )
    return states, dev_states


def _measure(config: TrainConfig, head: AnyHead, dev: Dev) -> dict[str, float]:
    """The losses on dev, and how the recogniser reads what the head makes of its texts."""
    weights_K = torch.tensor(config.loss.codebook_weights, device=head.device)
    metrics = measure_loss(head, dev.states, weights_K, config.batch_size)
    if dev.judge:
        speech = measure_speech(
            head, dev.states, dev.judge, num_sentences=config.checkpoints.num_dev_sentences,
            batch_size=config.batch_size, seed=config.seed,
        )  # fmt: skip
        metrics |= asdict(speech)
    return {**metrics, **head.layer_shares()}


if __name__ == "__main__":
    run_command(main)
