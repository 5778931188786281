"""Settings shared by the commands that talk with Gemma."""

from dataclasses import dataclass

from commands.setting_types import ModelName, NonNegativeInt
from speech_head.settings import TalkerConfig
from speech_head.talker import Talker
from stage3_finetune.tools import load_tools


@dataclass(frozen=True, kw_only=True)
class ConversationConfig(TalkerConfig):
    """Which models talk, and what they may do."""

    remember: NonNegativeInt | None = None
    """earlier questions, with their answers, that Gemma is shown; by default as many as fit"""
    tools: ModelName | None = None
    """Python file or module whose functions Gemma may call while it answers; its code is run"""

    def load(self) -> Talker:
        """Load the models that talk; raises the same errors as `TalkerConfig.load`,
        `load_tools` and `Conversation.use_tools`."""
        tools = load_tools(self.tools) if self.tools else None
        talker = super().load()
        talker.conversation.num_remembered = self.remember
        if tools:
            talker.conversation.use_tools(tools)
        return talker
