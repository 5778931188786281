"""Manifest -> cached training data of the speech head: Gemma's states, Mimi's codes, alignment.

    python -m speech_head.states --manifest data/cv/train.jsonl --gemma google/gemma-4-E4B-it \
        --mimi kyutai/mimi --recognizer runs/recognizer --out data/states/train

Every transcript is put where Gemma would have written it, so that training sees the same states as
generation (`answer.py`): after "Kasa." ("Speak."), or with `--dialogues` after questions
(`questions.py`). Writes shards as described in `speech_head/data.py`. If killed, `--resume`
continues at the last shard. With `--part` or `--ray`, many processes share the work
(`commands/shards.py`).
"""

# S answer tokens, F Mimi frames (12.5 per second), K codebooks, L Gemma layers, D width of Gemma

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from commands.atomic_write import write_json
from commands.command_line import parse_config, run_command
from commands.device import describe_machine, pick_device, pick_dtype
from commands.errors import InputError
from commands.origins import combine, refuse_mixture
from commands.run_folder import run_folder
from commands.setting_types import (
    ModelName,
    NumCodebooks,
    NumWorkers,
    PositiveInt,
    Seed,
    StorePath,
)
from commands.shard import Shard
from commands.shards import join_sources, write_shards
from commands.sources import as_facts, base_model, merge
from commands.workers import WorkerSettings
from data_manifests.manifest import Utterance, read_manifest, read_utterance_audio
from gemma4.gemma import load_audio_encoder
from gemma4.layer_states import LayersName, embed_tokens, pick_layers
from gemma4.speech_encoder import require_tower
from speech_head.alignment import cursor_path
from speech_head.answer import AnswerTokens, TeacherForcedAnswer, answer_states
from speech_head.data import StatesFormat
from speech_head.mimi import load_mimi
from speech_head.questions import Questions, load_questions, put_after_question
from speech_head.settings import PrecisionSettings
from speech_head.states_shards import StatesRow, join_embeddings, write_shard
from stage1_rvq.corpus_encoder import (
    count_skipped,
    count_utterances,
    encode_utterances,
    utterance_shards,
)
from stage1_rvq.data import iterate_batches
from stage1_rvq.listener import Listener
from stage1_rvq.recognizer import load_recognizer
from stage3_finetune.conversation import Conversation, load_conversation
from stage3_finetune.model import finetuned_sources


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """What is cached of each utterance."""

    states: bool = True
    """cache Gemma's states; --no-states caches only the tokens, which is small and quick: for a
    head that learns to pronounce (speech_head.train --reads embedding), or whose states are
    computed during training (--on-the-fly)"""
    layers: LayersName = "last_six"
    """layers of Gemma to mix: the last six, or only the one at two thirds of its depth"""
    num_codebooks: NumCodebooks = 8
    """Mimi codebooks to use, coarsest first"""
    recognizer_gemma: ModelName | None = None
    """hub name or folder of the Gemma 4 whose audio tower the recogniser was trained on, if that is
    not --gemma: 12B has no tower"""


@dataclass(frozen=True, kw_only=True)
class StatesConfig:
    """Cache the speech head's training data: Gemma's states, Mimi's codes, and the alignment."""

    manifest: StorePath
    """manifest of utterances with transcripts"""
    recognizer: Path
    """CTC recogniser, written by stage1_rvq.train_recognizer: finds when each token is spoken"""
    out: StorePath
    """new folder"""
    gemma: ModelName = "google/gemma-4-E4B-it"
    """hub name or folder of Gemma 4 (E2B, E4B, 12B)"""
    finetune: Path | None = None
    """adapter, written by stage3_finetune.train, if the head is to speak for that model"""
    mimi: ModelName = "kyutai/mimi"
    """hub name or folder of Mimi"""
    dialogues: Path | None = None
    """messages file, or folder of stage3_finetune.speak_dialogues (with --rvq): transcripts are put
    after its questions, instead of all after "Kasa." ("Speak.")"""
    rvq: ModelName | None = None
    """folder of stage1_rvq.train, or hub name, which decodes the spoken questions of --dialogues"""
    cache: CacheSettings = CacheSettings()
    skip_bad_audio: bool = False
    """list unusable recordings in skipped.jsonl and go on, instead of stopping at the first"""
    batch_size: PositiveInt = 8
    """utterances per forward pass"""
    num_workers: NumWorkers = 2
    """threads that decode audio in advance"""
    seed: Seed = 0
    """seed for choosing the question before each transcript"""
    precision: PrecisionSettings = PrecisionSettings()
    allow_mixture: bool = False
    """go on although the inputs belong to different audio towers or quantisers"""
    resume: bool = False
    """continue an unfinished folder"""
    workers: WorkerSettings = WorkerSettings()


def main(argv: list[str] | None = None) -> None:
    """Write the states; prints the folder."""
    config = parse_config(StatesConfig, argv)
    utterances = list(read_manifest(config.manifest))
    inputs = (
        "manifest", "gemma", "finetune", "mimi", "recognizer", "recognizer_gemma", "dialogues",
        "rvq",
    )  # fmt: skip
    with run_folder(config.out, config, "speech_head.states", inputs=inputs) as output:
        if output.is_done:
            return
        shards = utterance_shards(utterances)
        write_shards(
            output, shards, "shard_{:05d}.jsonl",
            partial(StatesWriter, config), config.workers,
            description="states", unit="utterances",
        )  # fmt: skip
        if config.workers.part:
            return
        num_skipped = count_skipped(output.path, len(utterances))
        join_embeddings(output.path)
        output.record(
            num_utterances=len(utterances) - num_skipped, num_skipped=num_skipped,
            sources=as_facts(join_sources(output.path, len(shards))),
        )  # fmt: skip


class StatesWriter:
    """Caches the states, codes and alignments of a shard."""

    def __init__(self, config: StatesConfig, folder: Path) -> None:
        """Load the models, and write the format into the folder; InputError if they do not belong
        together."""
        device = pick_device(config.precision.device)
        dtype = pick_dtype(config.precision.dtype, device)
        quantize = config.precision.quantize
        conversation = load_conversation(
            config.gemma, config.finetune, device=device, dtype=dtype, quantize=quantize
        )
        self.config = config
        self.gemma, self.tokenizer = conversation.model, conversation.tokenizer
        self.has_transcripts = conversation.writes_transcripts
        self.questions: Questions | None = None
        if config.dialogues:
            if config.dialogues.is_dir():
                typed = "it takes no codes: give --dialogues a `messages` file, of typed questions"
                require_tower(conversation.encoder, instead=typed)
            self.questions = load_questions(config.dialogues, config.rvq, seed=config.seed)
        self.mimi = load_mimi(config.mimi, num_codebooks=config.cache.num_codebooks, device=device)
        self.listener = _load_listener(config, conversation, device)
        origins = {
            **conversation.origins, **(self.questions.origins if self.questions else {})
        }  # fmt: skip
        if not config.cache.recognizer_gemma:
            origins[f"--recognizer {config.recognizer}"] = self.listener.recognizer.origin()
        refuse_mixture(origins, allowed=config.allow_mixture)
        self.sources = merge(
            finetuned_sources(config.gemma, config.finetune),
            [base_model(config.mimi)],
            self.listener.recognizer.made_from(),
            self.questions.sources if self.questions else (),
        )
        made_with = combine(*origins.values()).as_facts()
        self.facts = {**describe_machine(device, dtype), "quantize": quantize, **made_with}
        self.layers = pick_layers(config.cache.layers, self.gemma) if config.cache.states else []
        fmt = StatesFormat(
            self.gemma.config.text_config.hidden_size, self.layers,
            self.mimi.num_codebooks, self.mimi.codebook_size, self.mimi.frame_rate_hz,
        )  # fmt: skip
        write_json(folder / "format.json", asdict(fmt))

    def write(self, shard: Shard[Utterance]) -> None:
        """Write the tensors of a shard, and then its index."""
        aligned, unusable = [], []
        for utterance, result in self._align(shard.items):
            shard.progress.update()
            if isinstance(result, InputError):
                unusable.append({"id": utterance.id, "reason": str(result)})
            else:
                aligned.append((utterance, *result))
        shard.write_rows("skipped", unusable)
        rows: list[StatesRow] = []
        for batch in iterate_batches(len(aligned), self.config.batch_size):
            rows += self._read_states([aligned[i] for i in batch])
        shard.write_sources(merge(count_utterances(row.utterance for row in rows), self.sources))
        write_shard(shard.path, shard.number, rows)

    def _align(
        self, utterances: Sequence[Utterance]
    ) -> Iterator[tuple[Utterance, tuple[TeacherForcedAnswer, Tensor, Tensor] | InputError]]:
        """Text, Mimi codes and cursor of each utterance, or why its text cannot be aligned."""
        encoded = encode_utterances(
            utterances,
            self.listener.encoder,
            batch_size=self.config.batch_size,
            num_workers=self.config.num_workers,
        )
        for utterance, frames_TD in encoded:
            if isinstance(frames_TD, InputError):
                if not self.config.skip_bad_audio:
                    raise frames_TD
                yield utterance, frames_TD
                continue
            try:
                text = put_after_question(
                    utterance.text, utterance.id, self.tokenizer, self.questions,
                    has_transcripts=self.has_transcripts,
                )  # fmt: skip
                spans = self.listener.recognizer.align(frames_TD, text.text)
                waveform_N = read_utterance_audio(utterance, self.mimi.sample_rate_hz)
                [codes_FK] = self.mimi.encode([waveform_N])
                cursor_F = cursor_path(spans, text.text, text.offsets, len(codes_FK))
            except InputError as error:
                yield utterance, error
            else:
                yield utterance, (text, codes_FK, cursor_F)

    def _read_states(
        self, aligned: list[tuple[Utterance, TeacherForcedAnswer, Tensor, Tensor]]
    ) -> list[StatesRow]:
        texts = [text for _, text, _, _ in aligned]
        if self.layers:
            answers = answer_states(self.gemma, texts, self.layers)
        else:  # without running the decoder
            rows = [embed_tokens(self.gemma, text.ids_S) for text in texts]
            answers = [
                AnswerTokens(text.ids_S, rows_SD[:, None][:, :0], rows_SD)
                for text, rows_SD in zip(texts, rows, strict=True)
            ]
        return [
            StatesRow(utterance, tokens, codes_FK, cursor_F)
            for (utterance, _, codes_FK, cursor_F), tokens in zip(aligned, answers, strict=True)
        ]


def _load_listener(
    config: StatesConfig, conversation: Conversation, device: torch.device
) -> Listener:
    """What aligns the recordings; InputError if it has no tower, or another one."""
    name = config.cache.recognizer_gemma
    recognizer = load_recognizer(config.recognizer, device=device)
    if name is None:
        instead = "name the one that --recognizer was trained on with --recognizer-gemma"
        return Listener(require_tower(conversation.encoder, instead=instead), recognizer)
    flag = "--recognizer-gemma"
    tower = load_audio_encoder(name, device=device, dtype=torch.float32, flag=flag)
    origins = {
        f"{flag} {name}": tower.origin,
        f"--recognizer {config.recognizer}": recognizer.origin(),
    }
    refuse_mixture(origins, allowed=config.allow_mixture)
    return Listener(tower, recognizer)


if __name__ == "__main__":
    run_command(main)
