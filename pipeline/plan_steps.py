"""Every command that a recipe may hold, and what counts its work."""

from collections.abc import Callable

from pipeline import plan_stage1, plan_stage2, plan_stage3, plan_stage4
from pipeline.plan_case import Case
from pipeline.work import Work

PLANNERS: dict[str, Callable[[Case], Work]] = {
    "data_manifests.build": plan_stage1.plan_build,
    "data_manifests.check": plan_stage1.plan_check,
    "stage1_rvq.embed": plan_stage1.plan_embed,
    "stage1_rvq.train_recognizer": plan_stage1.plan_recognizer,
    "stage1_rvq.train": plan_stage1.plan_rvq,
    "stage1_rvq.evaluate": plan_stage1.plan_rvq_evaluation,
    "stage1_rvq.tokenize_corpus": plan_stage1.plan_tokenizing,
    "stage2_speechless.train": plan_stage2.plan_speechless,
    "stage2_speechless.evaluate": plan_stage2.plan_speechless_evaluation,
    "stage3_finetune.speak_dialogues": plan_stage3.plan_speaking,
    "stage3_finetune.train": plan_stage3.plan_finetuning,
    "stage3_finetune.evaluate": plan_stage3.plan_finetune_evaluation,
    "speech_head.states": plan_stage4.plan_states,
    "speech_head.train": plan_stage4.plan_head,
    "speech_head.evaluate": plan_stage4.plan_head_evaluation,
}


def works_of(case: Case) -> list[Work]:
    """The work of every command of a recipe, in its order.

    Raises:
        InputError: a Gemma or Mimi that is not known, or a table that a command needs is missing.
    """
    return [PLANNERS[command](case) for command in case.recipe.commands]
