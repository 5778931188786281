"""The benchmark of stage 4 runs, and compares what it says it compares."""

import torch
from conftest import run
from head_world import models

from benchmarks import speech_head
from stage2_speechless.frame_decoder import FrameDecoder


def test_all_tables_are_there(head_world):
    words = (*models(head_world), "--num-frames", 3, "--rounds", 1, "--no-full-size")
    table = run(speech_head.main, *words)
    for part in ("first sound after", "real-time factor", "prefix again", "code-frame decoder"):
        assert part in table
    assert table.count("given") == 2 + 1 + 2


def test_csms_decoder_is_of_the_shape_of_ours():
    """But for what it has besides: an embedding of the last codebook, and of Mimi's width."""
    ours = FrameDecoder(8, 64, state_width=48, width=32, num_heads=4)
    csm = speech_head.build_csm_decoder(ours)
    ours_layers = sum(p.numel() for p in ours.transformer.layers.parameters())
    assert sum(p.numel() for p in csm.model.layers.parameters()) == ours_layers
    assert csm.codebooks_head.weight.numel() == ours.heads_JVW.numel()
    codes = csm.generate(
        torch.tensor([[0, 5]]), backbone_last_hidden_state=torch.randn(1, 48), max_new_tokens=7
    )
    assert codes.shape == (1, 9)
