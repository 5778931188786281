"""What a Gemma was made from: a model of others, or one of ours that was merged and says so."""

import json

from transformers import PretrainedConfig

from commands.pretrained import one_line_errors
from commands.schema import check_json
from commands.sources import Sources, base_model, base_models_of

# In `config.json` of a merged checkpoint: its sources.
SOURCES_KEY = "speech_sources"


def gemma_sources(name: str) -> Sources:
    """What a Gemma was made from.

    Args:
        name: hub name or local folder of a checkpoint.

    Raises:
        InputError: not found, or it records its sources and they cannot be read.
    """
    with one_line_errors("--gemma", name):
        recorded = PretrainedConfig.get_config_dict(name)[0].get(SOURCES_KEY)
    if recorded is None:
        return (base_model(name),)
    where = f"--gemma {name}: {SOURCES_KEY} of its config.json"
    return check_json(json.dumps(recorded), Sources, where=where)


def tower_sources(name: str) -> Sources:
    """What its audio tower was made from, as `gemma_sources`: no training of ours changes it."""
    return base_models_of(gemma_sources(name))
