"""Transcripts with times, as text, WebVTT, SRT or JSON, as Whisper's command line writes them.

write_text(path, format_cues(cues, ".vtt"))
"""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass

from data_manifests.language import language

SUFFIXES = (".txt", ".vtt", ".srt", ".json")


@dataclass(frozen=True)
class Cue:
    """What was said in a part of a recording.

    Attributes:
        start_s, end_s: when it begins and ends, in seconds of the recording.
        text: on one line.
    """

    start_s: float
    end_s: float
    text: str

    def __str__(self) -> str:
        return f"[{format_time(self.start_s)} --> {format_time(self.end_s)}] {self.text}"


def format_time(time_s: float, point: str = ".") -> str:
    """Seconds as `hours:minutes:seconds.milliseconds`, as subtitles have them."""
    milliseconds = round(time_s * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}{point}{milliseconds:03}"


def format_cues(cues: Sequence[Cue], suffix: str) -> str:
    """The content of a file of transcripts; those without text are left out.

    Args:
        cues: in order.
        suffix: one of `SUFFIXES`: ".txt" has a line per cue and no times, ".json" the keys of
            Whisper's that have a meaning here.
    """
    assert suffix in SUFFIXES
    cues = [cue for cue in cues if cue.text]
    if suffix == ".txt":
        return "".join(f"{cue.text}\n" for cue in cues)
    if suffix == ".vtt":
        return "WEBVTT\n" + "".join(f"\n{_webvtt_cue(cue)}" for cue in cues)
    if suffix == ".srt":
        return "\n".join(f"{i}\n{_srt_cue(cue)}" for i, cue in enumerate(cues, 1))
    segments = [
        {"id": i, "start": round(cue.start_s, 3), "end": round(cue.end_s, 3), "text": cue.text}
        for i, cue in enumerate(cues)
    ]
    text = " ".join(cue.text for cue in cues)
    whole = {"text": text, "segments": segments, "language": language().codes[0]}
    return json.dumps(whole, ensure_ascii=False, indent=2) + "\n"


def _webvtt_cue(cue: Cue) -> str:
    # "&", "<" and ">" are markup there (https://www.w3.org/TR/webvtt1/#cue-text).
    text = html.escape(cue.text, quote=False)
    return f"{format_time(cue.start_s)} --> {format_time(cue.end_s)}\n{text}\n"


def _srt_cue(cue: Cue) -> str:
    times = f"{format_time(cue.start_s, ',')} --> {format_time(cue.end_s, ',')}"
    # An arrow in the text would be taken for another line of times.
    return f"{times}\n{cue.text.replace('-->', '→')}\n"
