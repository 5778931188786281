"""What a training batch of the speech head hides at random.

Drawn for a whole batch; each of several processes draws the same, and uses its own part
(`of_process`).
"""

# B utterances, F Mimi frames (12.5 per second)

from dataclasses import dataclass

import torch
from torch import Tensor

from commands.processes import Processes

# So that a head of several voices can also speak without being told one.
VOICE_DROPOUT = 0.1


@dataclass(frozen=True)
class Told:
    """What the head is shown of each utterance; None where all is shown.

    Attributes:
        text_B: bool, whether it is told the text.
        frames_BF: bool, True at frames that are shown to the frames after them.
        voice_B: bool, whether it is told whose voice to speak in.
    """

    text_B: Tensor | None = None
    frames_BF: Tensor | None = None
    voice_B: Tensor | None = None

    def of_process(self, processes: Processes, num_frames: int) -> "Told":
        """The part of a process whose longest utterance has `num_frames` frames."""
        text_B, frames_BF, voice_B = self.text_B, self.frames_BF, self.voice_B
        return Told(
            None if text_B is None else processes.own(text_B),
            None if frames_BF is None else processes.own(frames_BF)[:, :num_frames],
            None if voice_B is None else processes.own(voice_B),
        )


def draw_told(
    num_utterances: int,
    num_frames: int,
    *,
    text_dropout: float,
    history_dropout: float,
    voice_dropout: float,
    device: torch.device,
) -> Told:
    """Draw from torch's global generator (see `seed_step`).

    Args:
        num_utterances: B.
        num_frames: F, frames of the longest utterance.
        text_dropout: probability that an utterance is not told its text.
        history_dropout: probability that a frame is hidden from the frames after it.
        voice_dropout: probability that an utterance is not told its voice.
        device: that of the head.
    """
    text_B = frames_BF = voice_B = None
    if text_dropout:
        text_B = torch.rand(num_utterances, device=device) >= text_dropout
    if history_dropout:
        frames_BF = torch.rand(num_utterances, num_frames, device=device) >= history_dropout
    if voice_dropout:
        voice_B = torch.rand(num_utterances, device=device) >= voice_dropout
    return Told(text_B, frames_BF, voice_B)
