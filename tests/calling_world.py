"""A tiny Gemma that calls functions, for tests (see the fixture `calling_gemma`)."""

from dataclasses import replace

import torch
from head_world import teach_rows
from transformers import Gemma4AudioFeatureExtractor

from gemma4.function_calls import FunctionCall
from gemma4.plain_tokenizer import CALL_MARKS, plain_tokenizer
from gemma4.tiny_gemma import tiny_gemma
from gemma4.true_shapes import TINY_SPECIAL_IDS, TINY_VOCABULARY_SIZE
from stage3_finetune.conversation import load_conversation
from stage3_finetune.dialogue import Dialogue, Turn, encode_dialogue
from stage3_finetune.mixture import with_chain_target
from stage3_finetune.model import CALLS_KEY, TARGET_KEY
from stage3_finetune.tools import load_tools

IDS = TINY_SPECIAL_IDS | {
    name: number for number, name in enumerate(CALL_MARKS, start=len(TINY_SPECIAL_IDS))
}
TOOLS = "demo.world.tools"
SUM, SUM_ANSWER = "Mmienu ne mmiɛnsa yɛ sɛn?", "Ɛyɛ enum."
DAY, DAY_ANSWER = "Ɛnnɛ yɛ da bɛn?", "Ɛnnɛ yɛ Dwoada."
ADD = Turn("assistant", "", calls=(FunctionCall("add", {"a": 2, "b": 3}),), results=("5",))
ASK_DAY = Turn("assistant", "", calls=(FunctionCall("day_today", {}),), results=("Dwoada",))


def calling_tokenizer():
    """A tokenizer with the marks of calls."""
    return plain_tokenizer(TINY_VOCABULARY_SIZE, IDS)


def build_calling_gemma(folder, recording):
    """A Gemma that calls `add` for a question, typed or heard in a recording, and `day_today` for
    one that is asked after it, and answers with the result; saved as a merged checkpoint is."""
    tokenizer = calling_tokenizer()
    model = tiny_gemma(TINY_VOCABULARY_SIZE, IDS)
    setattr(model.config, TARGET_KEY, "chain")
    setattr(model.config, CALLS_KEY, 3)
    for part in (model, tokenizer, Gemma4AudioFeatureExtractor()):
        part.save_pretrained(folder)
    conversation = load_conversation(
        str(folder), None, device=torch.device("cpu"), dtype=torch.float32
    )
    heard = replace(conversation.spoken_turn(recording), content=SUM)
    tools = load_tools(TOOLS).schemas
    answer = Turn("assistant", SUM_ANSWER)
    typed = (Turn("user", SUM), ADD, answer)
    day = (Turn("user", DAY), ASK_DAY, Turn("assistant", DAY_ANSWER))
    dialogues = [
        Dialogue("typed", typed, tools=tools),
        with_chain_target(Dialogue("heard", (heard, ADD, answer), tools=tools)),
        Dialogue("both", (*typed, *day), tools=tools),
    ]
    rows = [encode_dialogue(dialogue, conversation.tokenizer) for dialogue in dialogues]
    teach_rows(conversation.model, conversation.tokenizer, rows)
    conversation.model.save_pretrained(folder)
