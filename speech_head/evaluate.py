"""How well is the head's speech understood? Compares it, by the CTC recogniser, with recordings.

    python -m speech_head.evaluate --head runs/head --manifest data/cv/test.jsonl \
        --recognizer runs/recognizer --gemma google/gemma-4-E4B-it --mimi kyutai/mimi \
        --out runs/head-test
    python -m speech_head.evaluate --head runs/head --dialogues data/dialogues/test.jsonl \
        --questions data/dialogues/test-questions.jsonl --finetune runs/finetune \
        --recognizer runs/recognizer --out runs/answers-test

The first command speaks the manifest's transcripts; the second speaks Gemma's own answers to
held-out questions, which are spoken (or, without `--questions`, typed). Writes `metrics.json`,
`utterances.jsonl` (what was said, what was heard) and `wav/`; prints the table. The head is
compared with two ceilings, the recordings and the recordings coded by Mimi; and, with
`--parallel-head`, with the published architecture, which is given the length of each recording.
Every text counts; if its speech was cut off, the part before the cut is transcribed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from commands.atomic_write import write_json, write_json_lines
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, DtypeName, describe_machine, pick_device, pick_dtype
from commands.errors import InputError
from commands.origins import refuse_mixture
from commands.run_folder import run_folder
from commands.setting_types import (
    ModelName,
    NonNegativeInt,
    PositiveInt,
    Seed,
)
from data_manifests.audio import write_wav
from gemma4.weight_quantization import QuantizeName
from speech_head.generate import load_talker, refuse_misfit
from speech_head.held_out import gemma_answers, given_texts
from stage1_rvq.listener import AsrListener, Listener
from speech_head.metrics import (
    HeadMetrics,
    Spoken,
    compute_metrics,
    rate_speech,
    speak_and_read,
)
from speech_head.naturalness import Dnsmos, Rater, SpeakerSimilarity
from speech_head.parallel import load_parallel_head
from speech_head.settings import SamplingSettings
from stage1_rvq.data import iterate_batches
from stage1_rvq.recognizer import load_recognizer

INPUTS = (
    "head", "parallel_head", "recognizer", "asr", "speaker_model", "manifest", "texts", "dialogues",
    "questions", "gemma", "finetune", "mimi",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class HeldOutSettings:
    """What is spoken."""

    manifest: Path | None = None
    """held-out recordings with transcripts: the transcripts are spoken; with --dialogues,
    recordings for comparison, for answers with the same words"""
    texts: Path | None = None
    """held-out texts, one per line, if there are no recordings"""
    dialogues: Path | None = None
    """held-out dialogues: Gemma's answers to their last questions are spoken"""
    questions: Path | None = None
    """with --dialogues: recordings of the questions, which Gemma then gets instead of text"""
    num_utterances: NonNegativeInt = 0
    """number of utterances to measure, from the first; 0 takes all"""


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """What judges the speech."""

    recognizer: Path | None = None
    """folder of stage1_rvq.train_recognizer, which transcribes the speech"""
    asr: ModelName | None = None
    """instead of --recognizer: hub name or folder of a speech recogniser of transformers"""
    dnsmos: bool = False
    """rate the speech quality with DNSMOS (needs the extra "mos" and recordings)"""
    speaker_model: ModelName | None = None
    """hub name or folder of a transformers speaker-verification model, e.g.
    microsoft/wavlm-base-plus-sv: measures similarity to the recorded voice; needs recordings"""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Measure how well a head's speech is understood, on texts it was not trained on."""

    head: ModelName
    """folder of speech_head.train, or hub name"""
    out: Path
    """new folder for metrics.json"""
    held_out: HeldOutSettings = HeldOutSettings()
    judges: JudgeSettings = JudgeSettings()
    parallel_head: ModelName | None = None
    """head trained with --architecture parallel, to compare with; needs recordings"""
    gemma: ModelName = "google/gemma-4-E4B-it"
    """hub name or folder of the Gemma 4 the head was trained on"""
    finetune: Path | None = None
    """adapter, written by stage3_finetune.train"""
    mimi: ModelName = "kyutai/mimi"
    """hub name or folder of Mimi"""
    sampling: SamplingSettings = SamplingSettings()
    batch_size: PositiveInt = 16
    """texts spoken together; affects only speed"""
    seed: Seed = 0
    """sampling seed; another seed speaks the same texts differently"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    dtype: DtypeName = "auto"
    """precision of Gemma; head and Mimi run in float32"""
    quantize: QuantizeName = "none"
    """8bit or 4bit: quantise Gemma's decoder as it is loaded (needs bitsandbytes)"""
    allow_mixture: bool = False
    """go on although the inputs belong to different audio towers or quantisers"""
    overwrite: bool = False
    """delete what an earlier run wrote into --out, and write it again"""

    def __post_init__(self) -> None:
        held_out, judges = self.held_out, self.judges
        sources = (held_out.manifest or held_out.dialogues, held_out.texts)
        if sum(given is not None for given in sources) != 1:
            raise ValueError("give --manifest, --dialogues or both, or else --texts")
        if (judges.recognizer is None) == (judges.asr is None):
            raise ValueError("give one of --recognizer, --asr to transcribe the speech")
        if held_out.questions and not held_out.dialogues:
            raise ValueError("--questions needs --dialogues, which hold the words of the questions")
        if self.parallel_head and not held_out.manifest:
            raise ValueError("--parallel-head needs --manifest: recordings set its length")
        if (judges.dnsmos or judges.speaker_model) and not held_out.manifest:
            raise ValueError("--dnsmos and --speaker-model need the recordings of --manifest")


def main(argv: list[str] | None = None) -> None:
    """Measure, write `metrics.json`, and print the table."""
    config = parse_config(EvaluateConfig, argv)
    given, judges = config.held_out, config.judges
    sampling = config.sampling.with_seed(config.seed)
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    asr = AsrListener(judges.asr, device=device) if judges.asr else None
    recognizer = load_recognizer(judges.recognizer, device=device) if judges.recognizer else None
    raters: list[Rater] = [Dnsmos()] if judges.dnsmos else []
    if judges.speaker_model:
        raters.append(SpeakerSimilarity(judges.speaker_model, device=device))
    talker = load_talker(
        config.gemma, config.finetune, config.mimi, config.head, device=device, dtype=dtype,
        quantize=config.quantize, allow_mixture=config.allow_mixture,
    )  # fmt: skip
    origins = dict(talker.conversation.origins)
    if recognizer:
        origins[f"--recognizer {judges.recognizer}"] = recognizer.origin()
    parallel = None
    if config.parallel_head:
        parallel = load_parallel_head(config.parallel_head, device=device)
        refuse_misfit(parallel, talker.conversation.model, talker.mimi, flag="--parallel-head")
        if parallel.config.layers != talker.head.config.layers:
            raise InputError("--parallel-head and --head read different layers of Gemma")
        origins[f"--parallel-head {config.parallel_head}"] = parallel.config.origin
    refuse_mixture(origins, allowed=config.allow_mixture)
    listener = Listener(talker.conversation.encoder, recognizer) if recognizer else asr
    assert listener is not None, "one of --recognizer, --asr is given"
    limit = given.num_utterances or None
    held_out = None
    if not given.dialogues:  # refuse unspeakable texts before anything is written
        held_out = given_texts(given.manifest, given.texts, talker, limit=limit)
    with run_folder(config.out, config, "speech_head.evaluate", inputs=INPUTS) as output:
        output.record(**describe_machine(device, dtype), quantize=config.quantize)
        if held_out is None:
            assert given.dialogues is not None
            held_out = gemma_answers(
                given.dialogues, given.questions, given.manifest, talker,
                limit=limit, batch_size=config.batch_size,
            )  # fmt: skip
        rows = held_out.rows
        spoken: list[Spoken] = []
        with tqdm(total=len(rows), desc="speak", unit=" texts") as progress:
            for picks in iterate_batches(len(rows), config.batch_size):
                batch = [rows[i] for i in picks]
                spoken += speak_and_read(batch, talker, listener, sampling, parallel)
                progress.update(len(picks))
        metrics = compute_metrics(spoken, held_out.left_out)
        if raters and metrics.num_recorded:
            metrics = replace(metrics, sound=rate_speech(spoken, talker.mimi, raters))
        _write_speech(config.out, spoken, talker.mimi.sample_rate_hz)
        write_json(config.out / "metrics.json", metrics.as_dict())
        print(format_table(metrics))


def format_table(metrics: HeadMetrics) -> str:
    """Format the numbers as a readable table."""
    rates = {
        "WER, recordings": metrics.wer_teacher,
        "WER, recordings through Mimi": metrics.wer_mimi,
        "WER, spoken": metrics.wer_spoken,
        "CER, spoken": metrics.cer_spoken,
        "WER, parallel head": metrics.wer_parallel,
        "runaway": metrics.runaway,
        "cut short": metrics.cut_short,
        "stuck on a token, and pushed on": metrics.pushed_on,
    }
    lines = [
        f"{metrics.num_held_out} texts, {metrics.num_recorded} of them recorded"
        + (f"; {len(metrics.left_out)} answers left out" if metrics.left_out else "")
    ]
    for name, value in rates.items():
        lines.append(f"{name:<32}" + ("not measured" if value is None else f"{100 * value:8.2f} %"))
    for key, rated in (metrics.sound or {}).items():
        name = {"dnsmos": "DNSMOS", "speaker_similarity": "voice"}[key]
        lines.append(
            f"{name:<12}recordings {rated['teacher']:.2f}, through Mimi {rated['mimi']:.2f}, "
            f"spoken {rated['spoken']:.2f}"
        )
    return "\n".join(lines)


def _write_speech(out: Path, spoken: Sequence[Spoken], sample_rate_hz: int) -> None:
    rows = []
    for one in spoken:
        name = re.sub(r"[^\w.-]", "_", one.held_out.id)  # ids of dialogues may hold slashes
        path = Path("wav") / f"{name}.wav"
        write_wav(out / path, one.samples_N, sample_rate_hz)
        row = {
            "id": one.held_out.id, "text": one.held_out.answer.text, "heard": one.heard,
            "heard_in_recording": one.heard_in_recording,
            "heard_through_mimi": one.heard_through_mimi, "heard_parallel": one.heard_parallel,
            "end": one.end, "num_pushed": one.num_pushed, "audio": str(path),
        }  # fmt: skip
        rows.append(row)
    write_json_lines(out / "utterances.jsonl", rows)


if __name__ == "__main__":
    run_command(main)
