"""Have spoken answers transcribed by another recogniser: of transformers, ours, or any in a file.

    python -m speech_head.judge --speech runs/head-test --asr NAME --asr-language jw \
        --out runs/head-test-whisper
    python -m speech_head.judge --speech runs/head-test --hypotheses heard.jsonl \
        --out runs/head-test-other

`--speech` is a folder of `speech_head.evaluate`. Its WAV files are heard again: the answers, and
beside them the recordings, which show the judge's own error. A recogniser that does not load here
transcribes the files by itself; its transcripts are given as JSON Lines with the path of each WAV
file in the folder as `id`, and what was `heard`. Writes `metrics.json` and `utterances.jsonl` as
`speech_head.evaluate` does; prints the table. The rows name the WAV files of `--speech`.
"""

from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from commands.atomic_write import write_json
from commands.command_line import parse_config, run_command
from commands.device import DeviceName, describe_machine, pick_device
from commands.json_files import read_json
from commands.run_folder import run_folder
from commands.setting_types import ModelName
from data_manifests.audio import decode_audio
from data_manifests.audio_defects import SilentAudio
from data_manifests.hypotheses import read_hypotheses
from speech_head.metrics import compute_metrics, format_table
from speech_head.spoken_answers import read_spoken_answers, wav_files, write_rows
from stage1_rvq.judge import AnyJudgeSettings, load_judge
from stage1_rvq.listener import Transcriber


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Have spoken answers transcribed by another recogniser."""

    speech: Path
    """folder of speech_head.evaluate"""
    out: Path
    """new folder for metrics.json and utterances.jsonl"""
    judge: AnyJudgeSettings = AnyJudgeSettings()
    gemma: ModelName = "google/gemma-4-E4B-it"
    """with --recognizer: hub name or folder of the Gemma 4 whose audio tower it was trained on"""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, mps, xpu"""
    allow_mixture: bool = False
    """go on although --recognizer and --gemma belong to different audio towers"""
    overwrite: bool = False
    """write again what an earlier run wrote into --out, which is kept until that is done"""

    def __post_init__(self) -> None:
        if self.judge.name() is None:
            raise ValueError(f"give one of {self.judge.flags()} to transcribe the speech")


def main(argv: list[str] | None = None) -> None:
    """Transcribe, write `metrics.json`, and print the table."""
    config = parse_config(JudgeConfig, argv)
    device = pick_device(config.device)
    rows = read_spoken_answers(config.speech, flag="--speech")
    files = wav_files(rows)
    if config.judge.hypotheses:
        texts = read_hypotheses(config.judge.hypotheses, files, of=f"WAV files in {config.speech}")
        heard = dict(zip(files, texts, strict=True))
    else:
        judge = load_judge(
            config.judge, config.gemma, device=device, allow_mixture=config.allow_mixture
        )
    inputs = ["speech", "recognizer", "asr", "hypotheses"]
    inputs += ["gemma"] if config.judge.recognizer else []
    with run_folder(config.out, config, "speech_head.judge", inputs=inputs) as output:
        output.record(**describe_machine(device, "float32"))
        if not config.judge.hypotheses:
            heard = {
                name: transcribe_file(config.speech / name, judge)
                for name in tqdm(files, desc="transcribe", unit=" files")
            }
        rows = [row.with_transcripts(heard) for row in rows]
        left_out = read_json(config.speech / "metrics.json")["left_out"]
        metrics = compute_metrics(rows, left_out, judge=config.judge.name())
        write_rows(config.out, rows)
        write_json(config.out / "metrics.json", metrics.as_dict())
        print(format_table(metrics))


def transcribe_file(path: Path, judge: Transcriber) -> str:
    """What a judge hears in a WAV file; "" where it is silent.

    Raises:
        InputError: it is damaged.
    """
    try:
        audio = decode_audio(path)
    except SilentAudio:
        return ""
    [text] = judge.transcribe([audio.samples], audio.sample_rate_hz)
    return text


if __name__ == "__main__":
    run_command(main)
