"""What a training batch of the speech head hides at random.

Drawn for a whole batch; each of several processes draws the same, and uses its own part
(`of_process`).
"""

# B utterances, F Mimi frames (12.5 per second)

from dataclasses import dataclass

import torch
from torch import Tensor

from commands.processes import Processes


@dataclass(frozen=True)
class Told:
    """What the head is shown of each utterance; None where all is shown.

    Attributes:
        text_B: bool, whether it is told the text.
        frames_BF: bool, True at frames that are shown to the frames after them.
    """

    text_B: Tensor | None = None
    frames_BF: Tensor | None = None

    def of_process(self, processes: Processes, num_frames: int) -> "Told":
        """The part of a process whose longest utterance has `num_frames` frames."""
        text_B, frames_BF = self.text_B, self.frames_BF
        return Told(
            None if text_B is None else processes.own(text_B),
            None if frames_BF is None else processes.own(frames_BF)[:, :num_frames],
        )


def draw_told(
    num_utterances: int,
    num_frames: int,
    *,
    text_dropout: float,
    history_dropout: float,
    device: torch.device,
) -> Told:
    """Draw from torch's global generator (see `seed_step`).

    Args:
        num_utterances: B.
        num_frames: F, frames of the longest utterance.
        text_dropout: probability that an utterance is not told its text.
        history_dropout: probability that a frame is hidden from the frames after it.
        device: that of the head.
    """
    text_B = frames_BF = None
    if text_dropout:
        text_B = torch.rand(num_utterances, device=device) >= text_dropout
    if history_dropout:
        frames_BF = torch.rand(num_utterances, num_frames, device=device) >= history_dropout
    return Told(text_B, frames_BF)
