"""Build a head for a folder of states, with random weights or those of another head.

A head can learn to pronounce from transcribed speech of any voice, without Gemma's states. So it
can first be trained on embeddings (`speech_head.states --no-states`, `speech_head.train --reads
embedding`) with all available speech, and then with states on the voice that will answer. In
LLaMA-Omni2 (arXiv:2505.02625) this was decisive: without it, 80 % of the words were wrong.
"""

from dataclasses import asdict
from typing import Any

import torch

from commands.checkpoint import find_pretrained, load_config, load_frozen
from commands.errors import InputError
from commands.sources import HEAD, Sources, known
from data_manifests.language import language
from speech_head.config import SpeechHeadConfig
from speech_head.data import StatesFolder
from speech_head.model import SpeechHead
from speech_head.parallel import ParallelHead, ParallelHeadConfig
from speech_head.references import References, voice_names
from speech_head.state_statistics import measure_states
from speech_head.training_settings import ShapeSettings
from speech_head.voice_encoder import VOICE_WIDTH

AnyHead = SpeechHead | ParallelHead

# A head that reads states may start from one that does not.
MAY_DIFFER = {
    "layers", "reads", "dropout", "text_dropout", "standardizes", "tower", "quantizer", "sources",
    "normalization",
    "voice_width", "voices",
}  # fmt: skip

# Weights that hold for the speakers of one head's training data.
OF_SPEAKERS = ("voices_VE", "name_voice.weight", "name_voice.bias")


def build_head(
    states: StatesFolder,
    shape: ShapeSettings,
    *,
    text_dropout: float,
    sources: Sources | None = None,
) -> AnyHead:
    """A head with random weights that fits a folder of states, and standardises them by what is
    measured there.

    Args:
        states: its training data.
        shape: of the head; the parallel head has no code-frame decoder.
        text_dropout: probability of a training utterance without its text; the parallel head has
            none.
        sources: what it is going to be trained on, and with.

    Raises:
        InputError: the folder has no utterances, or it has no states and the head would read them;
            the parallel head was to learn voices.
    """
    fmt = states.format
    if not states.utterances:
        raise InputError(f"--states {states.folder}: no utterance in it")
    is_parallel = shape.architecture == "parallel"
    reads = "states" if is_parallel else shape.reads
    if not fmt.layers and reads != "embedding":
        raise InputError("--states has no states (--no-states): train with --reads embedding")
    sizes = {"width": shape.width, "num_layers": shape.num_layers, "num_heads": shape.num_heads}
    given: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
    given |= {**states.origin.as_facts(), "sources": sources}
    if is_parallel and shape.voice_width:
        raise InputError("--voice-width is for --architecture cursor: the parallel head has none")
    if is_parallel:
        longest = int(states.num_frames_N.max())
        return ParallelHead(ParallelHeadConfig(**asdict(fmt), **given, max_frames=longest))
    names = voice_names(states) if shape.voice_width != 0 else []
    voice_width = shape.voice_width
    if voice_width is None:
        voice_width = VOICE_WIDTH if len(names) > 1 else 0
    head = SpeechHead(
        SpeechHeadConfig(
            **asdict(fmt),
            **given,
            reads=shape.reads,
            depth_width=shape.depth_width,
            depth_layers=shape.depth_layers,
            depth_heads=shape.depth_heads,
            text_dropout=text_dropout,
            standardizes=reads != "embedding",
            normalization=language().normalization,
            voice_width=voice_width,
            voices=names if voice_width else [],
        )
    )
    if head.config.standardizes:
        statistics = measure_states(states)
        head.set_statistics(statistics.mean_LD, statistics.std_LD)
    return head


def read_head_sources(name: str) -> Sources:
    """What the head that `start_from` starts from was made from; arguments and errors as there."""
    folder = find_pretrained(name, made_by="speech_head.train", flag="--init-from")
    return known(load_config(folder, SpeechHeadConfig).sources, HEAD)


def start_from(head: AnyHead, name: str) -> list[str]:
    """Copy the weights of another head of the same shape.

    Args:
        head: the head to initialise. Weights that the other head lacks stay as they are: if its
            `reads` differs, the gate and the layers that read states; and if it knows one voice,
            those that read voices. Voices are not taken over by name.
        name: folder of speech_head.train, a `save_pretrained` folder, or a hub name.

    Returns:
        Names of the weights that the other head lacks.

    Raises:
        InputError: the other head is not found, damaged, of another shape, or a parallel head.
    """
    if not isinstance(head, SpeechHead):
        raise InputError("--init-from is for --architecture cursor")
    folder = find_pretrained(name, made_by="speech_head.train", flag="--init-from")
    other = load_frozen(folder, SpeechHead, SpeechHeadConfig, device=torch.device("cpu"))
    wanted = asdict(head.config)
    for field, value in asdict(other.config).items():
        if field not in MAY_DIFFER and value != wanted[field]:
            raise InputError(f"--init-from has {field} = {value}, this head has {wanted[field]}")
    state, given = head.state_dict(), other.state_dict()
    # The mix of a different number of layers does not fit, and is not copied.
    kept = {n: v for n, v in given.items() if n in state and v.shape == state[n].shape}
    for name in OF_SPEAKERS:  # those of the training data take their place
        kept.pop(name, None)
    head.load_state_dict({**state, **kept})
    is_older = other.config.reads != "embedding" and not other.config.standardizes
    if is_older and head.config.standardizes:
        # What it learned from states is of use only if they are read as before.
        head.set_statistics(0.0, 1.0)
    return sorted(state.keys() - kept.keys() - {"state_mean_LD", "state_std_LD", *OF_SPEAKERS})


@torch.no_grad()
def keep_voices(head: AnyHead, references: References | None) -> None:
    """Store the voices of the training data that the head knows by name, as it hears them now."""
    if isinstance(head, SpeechHead) and references:
        for v, name in enumerate(head.config.voices):
            head.voices_VE[v] = head.voice_encoder.mean(references.of_speaker(name))


def references_for(head: AnyHead, states: StatesFolder) -> References | None:
    """What shows a head the voices of a folder of states; None for a head of one voice."""
    if not isinstance(head, SpeechHead) or not head.config.voice_width:
        return None
    return References(states, head.config.voices)
