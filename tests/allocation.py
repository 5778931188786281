"""What the test of peak memory runs in another process, which loads nothing else for it."""

import torch


def allocate(num_bytes: int) -> None:
    """Hold so much memory for a moment."""
    torch.ones(num_bytes, dtype=torch.uint8)
