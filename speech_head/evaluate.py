"""How well is the head's speech understood? Compares it, by the CTC recogniser, with recordings.

    python -m speech_head.evaluate --head runs/head --manifest data/cv/test.jsonl \
        --recognizer runs/recognizer --gemma google/gemma-4-E4B-it --mimi kyutai/mimi \
        --out runs/head-test
    python -m speech_head.evaluate --head runs/head --dialogues data/dialogues/test.jsonl \
        --questions data/dialogues/test-questions.jsonl --finetune runs/finetune \
        --recognizer runs/recognizer --out runs/answers-test

The first command speaks the manifest's transcripts; the second speaks Gemma's own answers to
held-out questions, which are spoken (or, without `--questions`, typed). Writes `metrics.json`,
`utterances.jsonl` (what was said, what was heard) and WAV files; prints the table. The head is
compared with two ceilings, the recordings and the recordings coded by Mimi; and, with
`--parallel-head`, with the published architecture, which is given the length of each recording.
A head of several voices speaks each text in that of its recording, by name if it was trained on the
speaker, else from another recording of the speaker; texts without a recording take its voices by
turns. Every text counts; if its speech was cut off, the part before the cut is transcribed. Other
recognisers can hear the same WAV files afterwards: `speech_head.judge`.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from commands.atomic_write import write_json
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, DtypeName, describe_machine, pick_device, pick_dtype
from commands.errors import InputError
from commands.origins import refuse_mixture
from commands.run_folder import run_folder
from commands.setting_types import ModelName, NonNegativeInt, PositiveInt, Seed, StorePath
from gemma4.weight_quantization import QuantizeName
from speech_head.asked_voices import ask_for_voices
from speech_head.held_out import HeldOut, gemma_answers, given_texts
from speech_head.metrics import (
    Spoken,
    compute_metrics,
    format_table,
    rate_speech,
    speak,
    transcribe,
)
from speech_head.naturalness import Dnsmos, Rater, SpeakerSimilarity
from speech_head.parallel import ParallelHead, load_parallel_head
from speech_head.settings import SamplingSettings, VoiceSettings
from speech_head.spoken_answers import (
    SPOKEN,
    SpokenRow,
    how_to_judge,
    name_wav_files,
    write_rows,
    write_versions,
)
from speech_head.talker import Talker, load_talker, refuse_misfit
from stage1_rvq.data import iterate_batches
from stage1_rvq.judge import JudgeSettings, load_judge_beside
from stage1_rvq.listener import Transcriber

INPUTS = (
    "head", "parallel_head", "recognizer", "asr", "speaker_model", "manifest", "texts", "dialogues",
    "questions", "gemma", "finetune", "mimi",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class HeldOutSettings:
    """What is spoken."""

    manifest: StorePath | None = None
    """held-out recordings with transcripts: the transcripts are spoken; with --dialogues,
    recordings for comparison, for answers with the same words"""
    texts: Path | None = None
    """held-out texts, one per line, if there are no recordings"""
    dialogues: Path | None = None
    """held-out dialogues: Gemma's answers to their last questions are spoken"""
    questions: StorePath | None = None
    """with --dialogues: recordings of the questions, which Gemma then gets instead of text"""
    num_utterances: NonNegativeInt = 0
    """number of utterances to measure, from the first; 0 takes all"""


@dataclass(frozen=True, kw_only=True)
class SoundSettings:
    """What rates the sound of the speech."""

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
    judge: JudgeSettings = JudgeSettings()
    sound: SoundSettings = SoundSettings()
    parallel_head: ModelName | None = None
    """head trained with --architecture parallel, to compare with; needs recordings"""
    gemma: ModelName = "google/gemma-4-E4B-it"
    """hub name or folder of the Gemma 4 the head was trained on"""
    finetune: Path | None = None
    """adapter, written by stage3_finetune.train"""
    mimi: ModelName = "kyutai/mimi"
    """hub name or folder of Mimi"""
    sampling: SamplingSettings = SamplingSettings()
    spoken_in: VoiceSettings = VoiceSettings()
    batch_size: PositiveInt = 16
    """texts spoken together; affects only speed"""
    seed: Seed = 0
    """sampling seed; another seed speaks the same texts differently"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""
    dtype: DtypeName = "auto"
    """precision of Gemma; head and Mimi run in float32"""
    quantize: QuantizeName = "none"
    """8bit or 4bit: quantise Gemma's decoder as it is loaded (needs bitsandbytes)"""
    allow_mixture: bool = False
    """go on although the inputs belong to different audio towers or quantisers"""
    overwrite: bool = False
    """write again what an earlier run wrote into --out, which is kept until that is done"""

    def __post_init__(self) -> None:
        held_out, sound = self.held_out, self.sound
        sources = (held_out.manifest or held_out.dialogues, held_out.texts)
        if sum(given is not None for given in sources) != 1:
            raise ValueError("give --manifest, --dialogues or both, or else --texts")
        if held_out.questions and not held_out.dialogues:
            raise ValueError("--questions needs --dialogues, which hold the words of the questions")
        if self.parallel_head and not held_out.manifest:
            raise ValueError("--parallel-head needs --manifest: recordings set its length")
        if sound.speaker_model and self.spoken_in.voice_recording:
            raise ValueError(
                "--speaker-model compares with a speaker's recordings in --manifest: name the "
                "speaker with --voice, in place of --voice-recording"
            )
        if (sound.dnsmos or sound.speaker_model) and not held_out.manifest:
            raise ValueError("--dnsmos and --speaker-model need the recordings of --manifest")


def main(argv: list[str] | None = None) -> None:
    """Measure, write `metrics.json`, and print the table."""
    config = parse_config(EvaluateConfig, argv)
    given = config.held_out
    device = pick_device(config.device)
    dtype = pick_dtype(config.dtype, device)
    raters: list[Rater] = [Dnsmos()] if config.sound.dnsmos else []
    if config.sound.speaker_model:
        raters.append(SpeakerSimilarity(config.sound.speaker_model, device=device))
    talker = load_talker(
        config.gemma, config.finetune, config.mimi, config.head, device=device, dtype=dtype,
        quantize=config.quantize, allow_mixture=config.allow_mixture,
        voice=config.spoken_in.voice, voice_recording=config.spoken_in.voice_recording,
    )  # fmt: skip
    listener = load_judge_beside(
        config.judge, config.gemma, talker.conversation.encoder,
        device=device, allow_mixture=config.allow_mixture,
    )  # fmt: skip
    origins = dict(talker.conversation.origins)
    parallel = None
    if config.parallel_head:
        parallel = load_parallel_head(config.parallel_head, device=device)
        refuse_misfit(parallel, talker.conversation.model, talker.mimi, flag="--parallel-head")
        if parallel.config.layers != talker.head.config.layers:
            raise InputError("--parallel-head and --head read different layers of Gemma")
        origins[f"--parallel-head {config.parallel_head}"] = parallel.config.origin
    refuse_mixture(origins, allowed=config.allow_mixture)
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
        is_fixed = bool(config.spoken_in.voice or config.spoken_in.voice_recording)
        asked = ask_for_voices(held_out.rows, talker, is_fixed=is_fixed)
        spoken, rows = _speak_all(config, asked, talker, parallel, listener)
        metrics = compute_metrics(rows, held_out.left_out, judge=config.judge.name())
        if raters and metrics.num_recorded:
            metrics = replace(metrics, sound=rate_speech(spoken, talker.mimi, raters))
        write_rows(config.out, rows)
        write_json(config.out / "metrics.json", metrics.as_dict())
        print(format_table(metrics))
        if listener is None:
            print(how_to_judge(config.out, rows), file=sys.stderr)


def _speak_all(
    config: EvaluateConfig,
    held_out: Sequence[HeldOut],
    talker: Talker,
    parallel: ParallelHead | None,
    listener: Transcriber | None,
) -> tuple[list[Spoken], list[SpokenRow]]:
    """Speak and transcribe all answers, and write their WAV files. Of the waveforms only the speech
    is returned: the other versions lie on the disk, and would fill the memory."""
    sampling = config.sampling.with_seed(config.seed)
    spoken: list[Spoken] = []
    rows: list[SpokenRow] = []
    names = name_wav_files([row.id for row in held_out])
    with tqdm(total=len(names), desc="speak", unit=" texts") as progress:
        for picks in iterate_batches(len(names), config.batch_size):
            batch = speak([held_out[i] for i in picks], talker, sampling, parallel)
            heard = transcribe(batch, listener)
            for i, one, texts in zip(picks, batch, heard, strict=True):
                paths = write_versions(config.out, names[i], one.sounds)
                rows.append(one.as_row(texts, paths))
                spoken.append(replace(one, sounds={SPOKEN: one.sounds[SPOKEN]}))
            progress.update(len(picks))
    return spoken, rows


if __name__ == "__main__":
    run_command(main)
