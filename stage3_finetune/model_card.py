"""Model cards of stage 3: of the adapter, and of a Gemma into which it was merged.

They say what the run recorded, and contain no local paths.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from commands.data_card import data_section, license_facts
from commands.sources import Sources
from data_manifests.language import language


def merged_card(
    gemma: str,
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    sources: Sources,
    *,
    dtype: str,
) -> str:
    """The card of a checkpoint with the adapter merged.

    Args:
        gemma: hub name or folder of the base model.
        settings: `config.json` of the run that trained the adapter.
        provenance: its `provenance.json`.
        sources: what both were made from.
        dtype: precision in which the weights are stored.
    """
    spoken = provenance["spoken_turns"]
    lines = [
        *_front_matter(gemma, "transformers", sources),
        f"# Gemma 4 that answers spoken {language().name}",
        "",
        f"`{_shown(gemma)}` with a LoRA adapter of rank {settings['lora_rank']} merged into its "
        f"decoder ({dtype}); what it hears with is the base model's.",
        "",
        f"Trained for {settings['steps']:,} steps on {provenance['num_dialogues']:,} dialogues "
        f"with {spoken['generated_codes']:,} questions spoken by a text-to-semantic-tokens model, "
        f"and {spoken['recordings']:,} recorded ones.",
        *_recordings(provenance.get("num_recordings", 0)),
        "",
        *_target(settings["target"]),
        data_section(sources),
    ]
    return "\n".join(lines)


def _recordings(count: int) -> list[str]:
    return [f"It also learnt to write down {count:,} recordings."] if count else []


def adapter_card(gemma: str, *, rank: int, steps: int, target: str, sources: Sources) -> str:
    """The card of an adapter; arguments as of `merged_card`."""
    lines = [
        *_front_matter(gemma, "peft", sources),
        f"# LoRA adapter: Gemma 4 answers spoken {language().name}",
        "",
        f"For `{_shown(gemma)}`, of rank {rank}, trained for {steps:,} steps.",
        "",
        *_target(target),
        data_section(sources),
    ]
    return "\n".join(lines)


def _front_matter(gemma: str, library: str, sources: Sources) -> list[str]:
    return [
        "---",
        *([f"base_model: {gemma}"] if not Path(gemma).exists() else []),
        f"language: {language().codes[0]}",
        f"library_name: {library}",
        *(f"{key}: {value}" for key, value in license_facts(sources).items()),
        "pipeline_tag: any-to-any",
        f"tags: [speech, {language().tags[0]}]",
        "---",
        "",
    ]


def _target(target: str) -> list[str]:
    if target != "chain":
        return []
    return ["Asked aloud, it writes what it heard, a line break, and the answer.", ""]


def _shown(gemma: str) -> str:
    return Path(gemma).name if Path(gemma).exists() else gemma
