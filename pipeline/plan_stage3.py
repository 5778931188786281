"""Steps of the plan that work on dialogues: stage 3."""

import math
from collections.abc import Mapping
from typing import Any

from commands.errors import InputError
from gemma4.gemma import FRAME_RATE_HZ
from gemma4.memory_plan import plan_memory
from pipeline import flops, plan_models
from pipeline.plan_case import LONGEST_OF_BATCH, LONGEST_OF_CORPUS, Case, spoken_rows
from pipeline.plan_sizes import Memory, adamw_bytes, codes_bytes, run_bytes
from pipeline.plan_stage1 import PLOTS_BYTES
from pipeline.plan_stage2 import speaking_memory, speechless_prefix
from pipeline.recipe import Dialogues, Speech
from pipeline.work import Part, Work
from stage3_finetune.answer_scores import LATER
from stage3_finetune.model import lora_config

DIALOGUES_PER_SHARD = 1024  # of stage3_finetune.speak_dialogues
TEMPLATE_TOKENS = 20  # of Gemma's chat template around a question and an answer
PROMPT_TOKENS = 12  # of a request for a transcript
# An evaluation asks: typed, spoken before, cascade, spoken after, typed after, and later questions.
SYSTEMS = 5 + len(LATER)
Settings = Mapping[str, Any]


def plan_speaking(case: Case) -> Work:
    """`stage3_finetune.speak_dialogues`; with a recogniser every turn is spoken `--takes` times at
    most, which is counted."""
    dialogues = _dialogues(case, "stage3_finetune.speak_dialogues")
    settings = case.recipe.settings("stage3_finetune.speak_dialogues")
    rvq = case.rvq()
    number = dialogues.number * settings["variants"]
    turns = number * dialogues.spoken_turns
    seconds = dialogues.question_characters / case.recipe.text.characters_a_second
    frames, together = seconds * FRAME_RATE_HZ, settings["batch_size"]
    rows = spoken_rows(together, settings)
    takes = settings["takes"] if settings["recognizer"] else 1
    prefix = speechless_prefix(case, seconds)
    batches = takes * turns / together
    parts = [case.speaking_part(batches, rows, prefix, frames)]
    if settings["recognizer"]:
        parts.append(case.recognizer_part(takes * turns * frames, passes=flops.FORWARD))
    characters = number * (dialogues.question_characters + dialogues.answer_characters)
    disk = codes_bytes(turns * frames, rvq.num_codebooks, rvq.codebook_size)
    return Work(
        "stage3_finetune.speak_dialogues",
        f"{turns:,.0f} turns, {turns * seconds / 3600:,.3g} h, {takes} take(s)", tuple(parts),
        speaking_memory(case, rows, LONGEST_OF_CORPUS * (prefix + frames)),
        round(disk + characters + 100 * number),
        num_shards=math.ceil(number / DIALOGUES_PER_SHARD),
    )  # fmt: skip


def plan_finetuning(case: Case) -> Work:
    """`stage3_finetune.train`: rows of the mixture, at their mean length."""
    dialogues = _dialogues(case, "stage3_finetune.train")
    settings = case.recipe.settings("stage3_finetune.train")
    config = plan_models.find_gemma_config(case.gemma_of(settings))
    joined_share = settings["joined_share"]
    shares = (1.0, settings["transcribe_share"], settings["typed_share"], joined_share)
    lengths, written = (
        (*numbers, _joined(numbers, settings["typed_share"], settings["max_joined"]))
        for numbers in row_lengths(case, dialogues, settings["target"])
    )
    positions, labelled = (
        sum(share * number for share, number in zip(shares, numbers, strict=True)) / sum(shares)
        for numbers in (lengths, written)
    )
    longest = max(lengths[:-1])
    if joined_share:
        longest *= settings["max_joined"]
    rows = settings["batch_size"]
    forward = flops.gemma(
        config.text_config, case.gemma_matrices(settings), rows, positions, written=labelled
    )
    passes = flops.FROZEN_CHECKPOINTED if settings["gradient_checkpointing"] else flops.FROZEN
    steps = settings["steps"] * settings["accumulate"]
    dtype = case.dtype(settings["dtype"])
    plan = plan_memory(
        config,
        adapter=lora_config(
            settings["lora_rank"], settings["lora_alpha"], settings["lora_dropout"],
            train_embed_audio=settings["train_embed_audio"],
        ),
        device=case.device, dtype=dtype, batch_size=rows,
        num_tokens=round(LONGEST_OF_CORPUS * longest),
        gradient_checkpointing=settings["gradient_checkpointing"], quantize=settings["quantize"],
    )  # fmt: skip
    lora = flops.TRAINING * 2.0 * plan.num_trained * rows * positions
    part = case.decoder_part(
        settings,
        steps * (passes * forward + lora),
        rows,
        positions,
        trains=True,
        launches=passes * steps * config.text_config.num_hidden_layers,
    )
    has_own_memory = case.device.type not in ("cpu", "mps")
    seen = settings["steps"] * settings["accumulate"] * rows
    return Work(
        "stage3_finetune.train",
        f"{settings['steps']:,} steps of {settings['accumulate'] * rows} rows x {positions:.0f}, "
        f"{seen / dialogues.number / sum(shares):.3g} epochs",
        (part, case.adamw_part(plan.num_trained, settings["steps"])),
        Memory(
            plan.weights + plan.adapter, plan.gradients + plan.optimizer,
            plan.activations + plan.logits, plan.host - (0 if has_own_memory else plan.total),
        ),
        run_bytes(plan.num_trained, adamw_bytes(plan.num_trained), settings),
    )  # fmt: skip


def plan_finetune_evaluation(case: Case) -> Work:
    """`stage3_finetune.evaluate`: every system answers every held-out question."""
    dialogues = _dialogues(case, "stage3_finetune.evaluate")
    settings = case.recipe.settings("stage3_finetune.evaluate")
    text = case.recipe.text
    systems = SYSTEMS - (not settings["recognizer"])
    rows = settings["batch_size"]
    batches = systems * math.ceil(dialogues.test_number / rows)
    lengths, written = row_lengths(case, dialogues, "chain")
    tokens = min(settings["max_new_tokens"], LONGEST_OF_BATCH * written[0])
    seconds = dialogues.test_number * dialogues.question_characters / text.characters_a_second
    # Later questions are asked after others and their answers.
    prompt = lengths[0] - written[0] + lengths[0] * sum(LATER.values()) / systems
    part = writing_part(case, settings, rows, batches, prompt, tokens)
    speech = Speech(hours=seconds / 3600 or 1e-3, dev_hours=0, test_hours=0)
    hearing = case.hearing_parts(settings, speech, seconds)
    memory = Memory(case.gemma_bytes(settings), activations=case.tower_memory(settings, speech)[1])
    return Work(
        "stage3_finetune.evaluate", f"{dialogues.test_number:,} questions, {systems} systems",
        (*part, *hearing), memory, PLOTS_BYTES, audio_s=seconds,
    )  # fmt: skip


def writing_part(
    case: Case, settings: Settings, rows: int, batches: float, prompt: float, tokens: float
) -> tuple[Part, Part]:
    """Gemma reads prompts, and writes token by token."""
    config = plan_models.find_gemma_config(case.gemma_of(settings)).text_config
    matrices = case.gemma_matrices(settings)
    reading = flops.gemma(config, matrices, rows * batches, prompt, written=1)
    writing = tokens * flops.gemma(
        config, matrices, rows * batches, 1, written=1, keys=prompt + tokens / 2
    )
    return (
        case.decoder_part(settings, reading, rows, prompt),
        case.decoder_part(
            settings, writing, rows, 1, launches=batches * tokens * config.num_hidden_layers
        ),
    )


def row_lengths(
    case: Case, dialogues: Dialogues, target: str
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Positions of a row that answers speech, that writes it down, and that answers typed text;
    and how many of them are written."""
    text = case.recipe.text
    question = dialogues.question_characters / text.characters_a_token
    answer = dialogues.answer_characters / text.characters_a_token
    frames = dialogues.question_characters / text.characters_a_second * FRAME_RATE_HZ
    written = (answer + (question if target == "chain" else 0.0), question, answer)
    asked = (frames, frames + PROMPT_TOKENS, question)
    lengths = [TEMPLATE_TOKENS + a + w for a, w in zip(asked, written, strict=True)]
    return (lengths[0], lengths[1], lengths[2]), written


def _joined(numbers: tuple[float, float, float], typed_share: float, max_joined: int) -> float:
    """Positions, or written ones, of a row of several dialogues, from those of rows of one."""
    answering, _, typed = numbers
    mean_joined = (2 + max_joined) / 2
    return mean_joined * (answering + typed_share * typed) / (1 + typed_share)


def question_positions(case: Case) -> float:
    """Positions before a transcript that stands after a spoken question and its transcript."""
    if case.recipe.dialogues is None:
        return TEMPLATE_TOKENS
    lengths, written = row_lengths(case, case.recipe.dialogues, "chain")
    answer = case.recipe.dialogues.answer_characters / case.recipe.text.characters_a_token
    return lengths[0] - written[0] + written[0] - answer


def _dialogues(case: Case, command: str) -> Dialogues:
    if case.recipe.dialogues is None:
        raise InputError(f"[{command}] needs a table [dialogues] with their number")
    return case.recipe.dialogues
