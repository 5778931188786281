"""Manifest -> cached training data of the speech head: Gemma's states, Mimi's codes, alignment.

    python -m speech_head.states --manifest data/cv/train.jsonl --gemma google/gemma-4-E4B-it \
        --mimi kyutai/mimi --recognizer runs/recognizer --out data/states/train

Every transcript is put where Gemma would have written it, so that training sees the same states as
generation (`answer.py`): after "Kasa." ("Speak."), or with `--dialogues` after questions
(`questions.py`). Writes shards as described in `speech_head/data.py`. After it was killed,
`--resume` continues at the last shard.
"""

# S answer tokens, F Mimi frames (12.5 per second), K codebooks, L Gemma layers, D width of Gemma

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import Gemma4ForConditionalGeneration, PreTrainedTokenizerBase

from commands.atomic_write import write_json, write_json_lines
from commands.command_line import parse_config, run_command
from commands.device import describe_machine, pick_device, pick_dtype
from commands.errors import InputError
from commands.origins import combine, refuse_mixture
from commands.run_folder import run_folder
from commands.setting_types import ModelName, NumCodebooks, NumWorkers, PositiveInt, Seed
from commands.shards import ShardedRows, split_into_shards, unwritten_shards
from commands.tensor_files import read_tensors, save_tensors
from data_manifests.manifest import Utterance, read_manifest, read_utterance_audio
from data_manifests.twi_text import normalize_for_training
from gemma4.layer_states import LayersName, embed_tokens, pick_layers
from speech_head.alignment import cursor_path
from speech_head.answer import AnswerTokens, TeacherForcedAnswer, answer_states
from speech_head.data import StatesFormat
from speech_head.listener import Listener
from speech_head.mimi import Mimi, load_mimi
from speech_head.questions import Questions, load_questions, put_after_question
from speech_head.settings import PrecisionSettings
from stage1_rvq.corpus_encoder import UTTERANCES_PER_SHARD, count_skipped, encode_utterances
from stage1_rvq.data import iterate_batches
from stage1_rvq.recognizer import load_recognizer
from stage3_finetune.conversation import load_conversation

INDEX_KEYS = ("id", "text", "speaker", "dialect", "duration_s")


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


@dataclass(frozen=True, kw_only=True)
class StatesConfig:
    """Cache the speech head's training data: Gemma's states, Mimi's codes, and the alignment."""

    manifest: Path
    """manifest of utterances with transcripts"""
    recognizer: Path
    """CTC recogniser, written by stage1_rvq.train_recognizer: finds when each token is spoken"""
    out: Path
    """new folder"""
    gemma: ModelName = "google/gemma-4-E4B-it"
    """hub name or folder of Gemma 4 (E2B, E4B)"""
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


@dataclass(frozen=True)
class _Models:
    gemma: Gemma4ForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    mimi: Mimi
    listener: Listener
    questions: Questions | None
    has_transcripts: bool


@dataclass(frozen=True)
class _Row:
    utterance: Utterance
    tokens: AnswerTokens
    codes_FK: Tensor
    cursor_F: Tensor


def main(argv: list[str] | None = None) -> None:
    """Write the states; prints the folder."""
    config = parse_config(StatesConfig, argv)
    utterances = list(read_manifest(config.manifest))
    device = pick_device(config.precision.device)
    dtype = pick_dtype(config.precision.dtype, device)
    quantize = config.precision.quantize
    conversation = load_conversation(
        config.gemma, config.finetune, device=device, dtype=dtype, quantize=quantize
    )
    gemma, tokenizer = conversation.model, conversation.tokenizer
    questions = None
    if config.dialogues:
        questions = load_questions(config.dialogues, config.rvq, seed=config.seed)
    models = _Models(
        gemma, tokenizer,
        load_mimi(config.mimi, num_codebooks=config.cache.num_codebooks, device=device),
        Listener(conversation.encoder, load_recognizer(config.recognizer, device=device)),
        questions, conversation.writes_transcripts,
    )  # fmt: skip
    origins = {
        **conversation.origins,
        f"--recognizer {config.recognizer}": models.listener.recognizer.origin(),
        **(questions.origins if questions else {}),
    }
    refuse_mixture(origins, allowed=config.allow_mixture)
    fmt = StatesFormat(
        gemma.config.text_config.hidden_size,
        pick_layers(config.cache.layers, gemma) if config.cache.states else [],
        models.mimi.num_codebooks, models.mimi.codebook_size, models.mimi.frame_rate_hz,
    )  # fmt: skip
    inputs = ("manifest", "gemma", "finetune", "mimi", "recognizer", "dialogues", "rvq")
    with run_folder(config.out, config, "speech_head.states", inputs=inputs) as output:
        if output.is_done:
            return
        made_with = combine(*origins.values())
        output.record(**describe_machine(device, dtype), quantize=quantize, **made_with.as_facts())
        _print_size(utterances, tokenizer, fmt)
        write_json(config.out / "format.json", asdict(fmt))
        num_skipped = _write_shards(utterances, models, config, fmt.layers)
        _write_embeddings(config.out, gemma)
        output.record(num_utterances=len(utterances) - num_skipped, num_skipped=num_skipped)


def _print_size(
    utterances: list[Utterance], tokenizer: PreTrainedTokenizerBase, fmt: StatesFormat
) -> None:
    texts = [normalize_for_training(utterance.text) for utterance in utterances]
    num_tokens = sum(len(ids) + 1 for ids in tokenizer(texts, add_special_tokens=False).input_ids)
    token_bytes = 2 * len(fmt.layers) * fmt.state_width
    print(
        f"states of {num_tokens:,} tokens, {token_bytes / 1000:.1f} kB each: "
        f"{num_tokens * token_bytes / 1e9:.2f} GB",
        file=sys.stderr,
    )


def _write_shards(
    utterances: list[Utterance], models: _Models, config: StatesConfig, layers: list[int]
) -> int:
    """Write the missing shards, 256 utterances each; returns the number of skipped utterances."""
    skipped = ShardedRows(config.out / "skipped.jsonl")
    shards = split_into_shards(utterances, UTTERANCES_PER_SHARD)
    for shard in unwritten_shards(
        shards, config.out, "shard_{:05d}.jsonl", "states", unit="utterances"
    ):
        rows: list[_Row] = []
        aligned, unusable = [], []
        for utterance, result in _align(shard.items, models, config):
            shard.progress.update()
            if isinstance(result, InputError):
                unusable.append({"id": utterance.id, "reason": str(result)})
            else:
                aligned.append((utterance, *result))
        for batch in iterate_batches(len(aligned), config.batch_size):
            rows += _read_states([aligned[i] for i in batch], models, layers)
        skipped.replace(shard.number, unusable)
        _write_shard(shard.path, rows)
    return count_skipped(skipped, len(utterances))


def _align(
    utterances: Sequence[Utterance], models: _Models, config: StatesConfig
) -> Iterator[tuple[Utterance, tuple[TeacherForcedAnswer, Tensor, Tensor] | InputError]]:
    """Text, Mimi codes and cursor of each utterance, or why its text cannot be aligned with it."""
    encoded = encode_utterances(
        utterances,
        models.listener.encoder,
        batch_size=config.batch_size,
        num_workers=config.num_workers,
    )
    for utterance, frames_TD in encoded:
        if isinstance(frames_TD, InputError):
            if not config.skip_bad_audio:
                raise frames_TD
            yield utterance, frames_TD
            continue
        try:
            text = put_after_question(
                utterance.text, utterance.id, models.tokenizer, models.questions,
                has_transcripts=models.has_transcripts,
            )  # fmt: skip
            spans = models.listener.recognizer.align(frames_TD, text.text)
            waveform_N = read_utterance_audio(utterance, models.mimi.sample_rate_hz)
            [codes_FK] = models.mimi.encode([waveform_N])
            cursor_F = cursor_path(spans, text.text, text.offsets, len(codes_FK))
        except InputError as error:
            yield utterance, error
        else:
            yield utterance, (text, codes_FK, cursor_F)


def _read_states(
    aligned: list[tuple[Utterance, TeacherForcedAnswer, Tensor, Tensor]],
    models: _Models,
    layers: list[int],
) -> list[_Row]:
    texts = [text for _, text, _, _ in aligned]
    if layers:
        answers = answer_states(models.gemma, texts, layers)
    else:  # without running the decoder
        rows = [embed_tokens(models.gemma, text.ids_S) for text in texts]
        answers = [
            AnswerTokens(text.ids_S, rows_SD[:, None][:, :0], rows_SD)
            for text, rows_SD in zip(texts, rows, strict=True)
        ]
    return [
        _Row(utterance, tokens, codes_FK, cursor_F)
        for (utterance, _, codes_FK, cursor_F), tokens in zip(aligned, answers, strict=True)
    ]


def _write_shard(index_path: Path, rows: list[_Row]) -> None:
    """Write the tensors first, the index last: a shard with an index is complete."""
    index, first_token, first_frame = [], 0, 0
    for row in rows:
        num_tokens, num_frames = len(row.tokens.ids_S), len(row.codes_FK)
        entry = {name: getattr(row.utterance, name) for name in INDEX_KEYS}
        entry |= {"first_token": first_token, "num_tokens": num_tokens}
        entry |= {"first_frame": first_frame, "num_frames": num_frames}
        index.append(entry)
        first_token, first_frame = first_token + num_tokens, first_frame + num_frames
    if rows:
        tensors = {
            "states": torch.cat([row.tokens.states_SLD.bfloat16().cpu() for row in rows]),
            "token_ids": torch.cat([row.tokens.ids_S.int() for row in rows]),
            "codes": torch.cat([row.codes_FK.short().cpu() for row in rows]),
            "cursor": torch.cat([row.cursor_F.int() for row in rows]),
        }
        tensors_path = index_path.with_suffix(".safetensors")
        save_tensors(tensors_path, tensors)
    write_json_lines(index_path, index)


def _write_embeddings(out: Path, gemma: Gemma4ForConditionalGeneration) -> None:
    """Gemma's embeddings of every token that occurs, once each."""
    token_ids = []
    for path in sorted(out.glob("shard_*.safetensors")):
        token_ids.append(read_tensors(path)["token_ids"])
    ids_U = torch.cat(token_ids).unique().long()
    rows_UD = embed_tokens(gemma, ids_U).bfloat16().cpu()
    save_tensors(out / "embeddings.safetensors", {"token_ids": ids_U, "rows": rows_UD})


if __name__ == "__main__":
    run_command(main)
