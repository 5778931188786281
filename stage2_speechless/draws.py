"""What is drawn at random for a training batch, by one process or by several that share it.

Every process draws for the whole batch, in the same order, and uses what falls to its own
utterances. So the draws do not depend on the number of processes.
"""

# B utterances, T frames (25 per second), N frames of a batch end to end

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from commands.processes import Processes


@dataclass(frozen=True)
class Hidden:
    """What the model is not shown of one utterance.

    Attributes:
        dialect: whether its dialect becomes "unknown".
        text: whether it is all text.
        frames_T: bool, True at frames that are hidden from the frames after them.
    """

    dialect: bool
    text: bool
    frames_T: Tensor


def draw_hidden(
    lengths: Sequence[int],
    *,
    dialect_dropout: float,
    text_dropout: float,
    history_dropout: float,
) -> list[Hidden]:
    """Draw what a batch hides, from torch's global generator (see `seed_step`).

    Args:
        lengths: frames of each utterance of the batch.
        dialect_dropout: probability that an utterance's dialect becomes "unknown".
        text_dropout: probability that an utterance's text is hidden, so that the model can be
            guided towards a text (see `guide`).
        history_dropout: probability that a frame is hidden from the frames after it; the frame
            itself must still be predicted. The last frames tell most of what comes next, and a
            model that always sees them is slow to learn to use the text (word dropout, Bowman et
            al., 2016, arXiv:1511.06349).
    """
    hides_dialect_B = (torch.rand(len(lengths)) < dialect_dropout).tolist()
    hides_text_B = (torch.rand(len(lengths)) < text_dropout).tolist()
    return [
        Hidden(hides_dialect, hides_text, torch.rand(num_frames) < history_dropout)
        for hides_dialect, hides_text, num_frames in zip(
            hides_dialect_B, hides_text_B, lengths, strict=True
        )
    ]


@dataclass(frozen=True)
class DrawnFrames:
    """The frames of this process on which the code-frame decoder learns.

    Attributes:
        places_N: int64, their places among this process's frames, end to end.
        share: what their mean counts for (see `Shares`).
    """

    places_N: Tensor
    share: float


def draw_frames(processes: Processes, lengths: Sequence[int], fraction: float) -> DrawnFrames:
    """Draw a fraction of the frames of a batch, and find out which of them this process has.

    As `Speechless.forward` draws in a single process, from the generator of the same device.

    Args:
        lengths: frames of each utterance of the batch.
        fraction: share of the frames to draw.
    """
    num_drawn = max(1, round(fraction * sum(lengths)))
    is_drawn_N = torch.zeros(sum(lengths), dtype=torch.bool, device=processes.device)
    is_drawn_N[torch.randperm(sum(lengths), device=processes.device)[:num_drawn]] = True
    places_N = torch.cat(processes.own(is_drawn_N.split(list(lengths)))).nonzero()[:, 0]
    share = len(places_N) * processes.count / num_drawn
    # At least one, that the decoder takes part; it then counts for nothing.
    return DrawnFrames(places_N if len(places_N) else places_N.new_zeros(1), share)
