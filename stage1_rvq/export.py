"""Quantiser -> a repository to share: both layouts of its weights, and a model card with its
results.

    python -m stage1_rvq.export --rvq runs/rvq --metrics runs/rvq-test --codes data/cv-codes/test \
        --train-codes data/cv-codes/train --out runs/rvq-repository

The folder is the repository, ready for the Hugging Face hub, and holds nothing else: `README.md`,
`config.json` and `model.safetensors` (`SpeechRVQ.from_pretrained`), and the files of the published
repository: weights (`stage1_rvq/published.py`), `rvq_wrapper.py`, which loads them without this
project, and with `--codes` the codes as strings of tokens. So the published card's way of loading
works here too. The folder appears only when it is complete. `--push NAME` uploads it.
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from commands.checkpoint import list_checkpoints, load_weights, model_written_aside, state_to_save
from commands.command_line import parse_config, run_command
from commands.errors import InputError
from commands.fingerprints import fingerprint
from commands.finished_folder import InputFacts, is_output_folder, open_input, read_provenance
from commands.hub import push
from commands.json_files import read_json_as
from commands.new_paths import refuse_unwritable
from commands.origins import Origin, refuse_mixture
from commands.setting_types import ModelName
from commands.sources import Sources, merge, used_for
from stage1_rvq.codebook_metrics import QuantizerMetrics
from stage1_rvq.codes import (
    code_format,
    find_code_files,
    read_code_format,
    read_codes_origins,
    read_codes_sources,
    refuse_other_format,
)
from stage1_rvq.config import RVQConfig
from stage1_rvq.data import EmbeddingFolder
from stage1_rvq.dev_set import measure_on_dev
from stage1_rvq.model import SpeechRVQ, load_rvq
from stage1_rvq.published import (
    AVERAGED_FILE,
    BEST_FILE,
    CONFIG_FILE,
    FINAL_FILE,
    WRAPPER_FILE,
    write_published,
)
from stage1_rvq.token_strings import TOKENS_FILE, TRAIN_TOKENS_FILE, write_token_strings

NO_AVERAGE = "not an average, the weights of " + BEST_FILE


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a quantiser as a repository that others can load, with a model card."""

    rvq: ModelName
    """quantiser: folder of stage1_rvq.train, or hub name"""
    out: Path
    """new folder for the repository"""
    metrics: Path | None = None
    """folder of stage1_rvq.evaluate for this quantiser: the card's results"""
    dev_embeddings: Path | None = None
    """embeddings of the dev split: checkpoints are averaged, and the average is kept if better on
    it"""
    codes: tuple[Path, ...] = ()
    """folders of stage1_rvq.tokenize_corpus with held-out codes of this quantiser, for
    twi_semantic_tokens.jsonl"""
    train_codes: tuple[Path, ...] = ()
    """folders of codes of the training speech, for twi_semantic_tokens_train.jsonl"""
    push: str | None = None
    """hub repository to upload to; it is public unless your account's settings say otherwise"""
    allow_mixture: bool = False
    """go on although the inputs belong to different audio towers or quantisers"""


def main(argv: list[str] | None = None) -> None:
    """Write the repository; prints its folder, and the commit if it was pushed."""
    config = parse_config(ExportConfig, argv)
    refuse_unwritable(config.out, flag="--out")
    rvq = load_rvq(config.rvq, device=torch.device("cpu"))
    metrics = read_metrics(config.metrics, config.rvq) if config.metrics else None
    run = Path(config.rvq) if is_output_folder(Path(config.rvq)) else None
    checkpoints = list_checkpoints(run) if run else []
    final, averaged = rvq, None
    if checkpoints:
        final = SpeechRVQ(rvq.config)
        load_weights(final, checkpoints[-1] / "model.safetensors")
    else:
        print(
            f"{FINAL_FILE}: no checkpoints there, the same weights as {BEST_FILE}", file=sys.stderr
        )
    origins = {f"--rvq {config.rvq}": rvq.origin()}
    if config.metrics:
        origins[f"--metrics {config.metrics}"] = read_provenance(config.metrics).origin
    if config.dev_embeddings:
        dev = EmbeddingFolder(config.dev_embeddings, flag="--dev-embeddings")
        origins[dev.name] = dev.origin
    tokens = {
        TOKENS_FILE: ("--codes", config.codes),
        TRAIN_TOKENS_FILE: ("--train-codes", config.train_codes),
    }
    for flag, folders in tokens.values():
        origins |= _origins_of_codes(folders, flag, rvq.config)
    refuse_mixture(origins, allowed=config.allow_mixture)
    if config.dev_embeddings:
        averaged = average_if_better(rvq, checkpoints, dev)
    else:
        print(
            f"{AVERAGED_FILE}: {NO_AVERAGE}: no --dev-embeddings to judge one by", file=sys.stderr
        )
    states = {
        BEST_FILE: state_to_save(rvq),
        FINAL_FILE: state_to_save(final),
        # The published card loads this one, so it is always there.
        AVERAGED_FILE: state_to_save(averaged or rvq),
    }
    with model_written_aside(config.out) as aside:
        aside.mkdir()
        write_published(aside, rvq.config, states)
        shutil.copy(Path(__file__).with_name(WRAPPER_FILE), aside)
        token_files = [name for name, (_, folders) in tokens.items() if folders]
        for name in token_files:
            flag, folders = tokens[name]
            write_token_strings(aside / name, folders, flag=flag)
        facts: dict[str, Any] = {
            "run": run,
            "metrics": metrics,
            "token_sources": _sources_of_tokens(tokens),
            "published_files": [CONFIG_FILE, *states, WRAPPER_FILE, *token_files],
            "is_averaged": averaged is not None,
        }
        if config.push:
            facts["repository"] = config.push
        rvq.save_pretrained(aside, model_card_kwargs=facts)
    print(config.out)
    if config.push:
        print(push(config.out, config.push))


def _origins_of_codes(folders: Sequence[Path], flag: str, config: RVQConfig) -> dict[str, Origin]:
    """What folders of codes were made with; InputError if they are of another form."""
    origins: dict[str, Origin] = {}
    for folder in folders:
        found = read_code_format(folder, flag=flag)
        refuse_other_format(found, code_format(config), flag=flag, expected_by="--rvq")
        origins |= read_codes_origins(folder, flag=flag)
    return origins


def _sources_of_tokens(tokens: Mapping[str, tuple[str, Sequence[Path]]]) -> Sources:
    """What the codes of the token files were made from."""
    return merge(
        *(
            used_for(read_codes_sources(path, find_code_files(path, flag=flag), flag=flag), name)
            for name, (flag, folders) in tokens.items()
            for path in folders
        )
    )


def read_metrics(folder: Path, rvq: str) -> QuantizerMetrics:
    """The numbers of a `stage1_rvq.evaluate` folder.

    Raises:
        InputError: unfinished or foreign folder, or it measured another quantiser than `rvq`, or
            used the speech that `rvq` was trained on.
    """
    open_input(folder, made_by="stage1_rvq.evaluate", flag="--metrics")
    measured = read_provenance(folder).inputs
    nothing = InputFacts("nothing")
    measured_rvq = measured.get("rvq", nothing)
    # A hub name has no fingerprint, so the names are compared.
    sha256 = fingerprint(rvq).get("sha256")
    if measured_rvq.sha256 != sha256 if sha256 else measured_rvq.path != rvq:
        raise InputError(
            f"--metrics {folder} measured another quantiser ({measured_rvq.path}) than --rvq {rvq}"
        )
    if is_output_folder(Path(rvq)):
        trained_on = read_provenance(Path(rvq)).inputs.get("embeddings", nothing)
        if trained_on.sha256 and trained_on.sha256 == measured.get("embeddings", nothing).sha256:
            raise InputError(
                f"--metrics {folder} was measured on the embeddings --rvq was trained on; measure "
                "on held-out ones"
            )
    return read_json_as(folder / "metrics.json", QuantizerMetrics)


def average_if_better(
    rvq: SpeechRVQ, checkpoints: list[Path], dev: EmbeddingFolder
) -> SpeechRVQ | None:
    """The mean of a run's kept checkpoints, if its error on dev is lower than that of the best
    weights.

    Averaging assumes that a code means the same in every checkpoint, which is not true of a
    replaced code: hence the comparison.
    """
    if len(checkpoints) < 2:
        print(f"{AVERAGED_FILE}: {NO_AVERAGE}: under two checkpoints there", file=sys.stderr)
        return None
    averaged = average_checkpoints(rvq.config, checkpoints)
    best_error, error = (measure_on_dev(model, dev).relative_error for model in (rvq, averaged))
    is_better = error < best_error
    print(
        f"{AVERAGED_FILE}: {'an average' if is_better else NO_AVERAGE}: relative error on dev "
        f"{error:.4f} averaged, {best_error:.4f} {BEST_FILE}",
        file=sys.stderr,
    )
    return averaged if is_better else None


def average_checkpoints(config: RVQConfig, checkpoints: list[Path]) -> SpeechRVQ:
    """A quantiser with the mean of the weights of several checkpoints of a run."""
    states, averaged = [], SpeechRVQ(config)
    for path in checkpoints:
        load_weights(averaged, path / "model.safetensors")
        states.append(state_to_save(averaged))
    averaged.load_state_dict(
        {
            name: torch.stack([state[name] for state in states]).mean(dim=0)
            if newest.is_floating_point()
            else newest
            for name, newest in states[-1].items()
        }
    )
    return averaged.eval()


if __name__ == "__main__":
    run_command(main)
