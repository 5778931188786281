"""Random mixtures of corpora and of their mirrors, of which it is known which recordings are the
same: does the same recording get into two splits, and are different ones taken for one?

    python -m tests.mirrors --mixtures 400 --folder /tmp/mirrors

By hand, half an hour; `results.jsonl` there holds what was done, and a second run goes on. A mirror
has other names of speakers and recordings, other formats, and at times other spelling. Speech is
from the demo's synthesiser, and where ../shared/data is present a third of it is real.
"""

import argparse
import csv
import functools
import io
import itertools
import json
import random
import shutil
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from data_manifests import build
from data_manifests.audio import decode_audio, resample
from data_manifests.audio_fingerprint import MAX_DIFFERENT, fingerprint, share_different
from data_manifests.manifest import read_manifest
from data_manifests.normalization import normalize_for_scoring
from demo.voice.synthesizer import Synthesizer
from demo.voice.voices import HELD_OUT_VOICES, TRAINING_VOICES, draw_style, record
from tests.miniature_corpora import FISD_LANGUAGES

REAL_CLIPS = Path(__file__).resolve().parents[2] / "shared/data/common_voice_tw/clips"
RATE_HZ = 24_000
VOICES = (*TRAINING_VOICES, *HELD_OUT_VOICES)
PROMPTS = (
    "Aane.", "Daabi.", "Maakye!", "Me din de Ama.", "Wo ho te sɛn?", "Baako ne mmienu yɛ sɛn?",
    "Yɛrekɔ fie ɔkyena anɔpa.", "Kɔ sika korabea na bra ntɛm.",
)  # fmt: skip
NUM_SPEAKERS = 21
# Name -> the file's ending, its sampling rate, and how it is encoded.
SOUNDFILE_FORMATS = {
    "wav16": ("wav", 16_000, "WAV", "PCM_16"),
    "flac48": ("flac", 48_000, "FLAC", "PCM_24"),
    "mp3": ("mp3", 32_000, "MP3", "MPEG_LAYER_III"),
    "vorbis": ("ogg", 44_100, "OGG", "VORBIS"),
    "opus": ("ogg", 48_000, "OGG", "OPUS"),
}
AV_FORMATS = {
    "m4a": ("m4a", 44_100, "mp4", "aac", 48_000),
    "3gp": ("3gp", 16_000, "3gp", "aac", 24_000),
    "webm": ("webm", 48_000, "webm", "libopus", 24_000),
    "amr": ("amr", 8_000, "amr", "libopencore_amrnb", 12_200),
}
FORMATS = (*SOUNDFILE_FORMATS, *AV_FORMATS)


def encode(samples: np.ndarray, rate_hz: int, name: str) -> bytes:
    """Samples as a file of one of `FORMATS`."""
    file = io.BytesIO()
    if name in SOUNDFILE_FORMATS:
        _, to_hz, container, subtype = SOUNDFILE_FORMATS[name]
        samples = resample(samples, rate_hz, to_hz).clip(-1, 1)
        soundfile.write(file, samples, to_hz, format=container, subtype=subtype)
        return file.getvalue()
    _, to_hz, container, codec, bit_rate = AV_FORMATS[name]
    pcm = (resample(samples, rate_hz, to_hz).clip(-1, 1) * 32767).astype(np.int16)
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=to_hz, layout="mono")
        stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = to_hz
        resampler = av.AudioResampler(
            format=stream.codec_context.format, layout="mono", rate=to_hz,
            frame_size=stream.codec_context.frame_size,
        )  # fmt: skip
        for one in itertools.chain(resampler.resample(frame), resampler.resample(None)):
            output.mux(stream.encode(one))
        output.mux(stream.encode(None))
    return file.getvalue()


def suffix_of(name: str) -> str:
    """The ending of a file of one of `FORMATS`."""
    return (SOUNDFILE_FORMATS | AV_FORMATS)[name][0]


class Recordings:
    """What everybody says of every prompt: each another recording, made when it is first needed."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        """`folder` keeps the files; another `seed` makes other recordings."""
        self._folder = folder
        self._seed = seed
        self._clips = sorted(REAL_CLIPS.glob("*.mp3"))
        self._synthesizer = Synthesizer()

    @functools.cache  # noqa: B019
    def samples(self, speaker: int, prompt: int) -> np.ndarray:
        """Float32 at 24 kHz; made once, because the synthesiser never says the same twice."""
        path = self._folder / f"{speaker}_{prompt}.npy"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            np.save(path, self._make(speaker, prompt))
        return np.load(path)

    def _make(self, speaker: int, prompt: int) -> np.ndarray:
        number = speaker * len(PROMPTS) + prompt
        if self._clips and number % 3 == 0 and number // 3 < len(self._clips):
            decoded = decode_audio(self._clips[number // 3])
            return resample(decoded.samples, decoded.sample_rate_hz, RATE_HZ)[: 3 * RATE_HZ]
        generator = np.random.default_rng((self._seed, number))
        style = draw_style(generator, held_out=False)
        style = replace(style, voice=VOICES[speaker % len(VOICES)])
        return record(
            self._synthesizer, PROMPTS[prompt], style, sample_rate_hz=RATE_HZ, generator=generator
        )

    @functools.cache  # noqa: B019
    def encoded(self, speaker: int, prompt: int, name: str) -> bytes:
        """As a file of one of `FORMATS`."""
        path = self._folder / f"{speaker}_{prompt}.{name}"
        samples = self.samples(speaker, prompt)
        if not path.exists():
            path.write_bytes(encode(samples, RATE_HZ, name))
        return path.read_bytes()


@dataclass(frozen=True)
class Row:
    """A row of a corpus: which recording it truly is, and what the corpus says of it."""

    truth: tuple[int, int]
    id: str
    speaker: str
    text: str
    format: str


@dataclass
class Mixture:
    """Words for `data_manifests.build`, and which recording every row truly is."""

    words: list[str] = field(default_factory=list)
    more_words: list[str] = field(default_factory=list)
    truth: dict[str, tuple[int, int]] = field(default_factory=dict)
    by_recording: set[str] = field(default_factory=set)
    by_sentence: set[str] = field(default_factory=set)
    speakers: list[str] = field(default_factory=list)  # of manifests, where they are called so
    named: str = ""  # a speaker who is held out by name


def write_corpus(folder: Path, kind: str, name: str, rows: list[Row], made: Recordings) -> str:
    """Write a corpus in the layout of a kind; returns the word for --corpus."""
    folder.mkdir(parents=True)
    files = {row.id: made.encoded(*row.truth, row.format) for row in rows}
    if kind == "dataset":
        table = {
            "audio": [{"bytes": files[row.id], "path": None} for row in rows],
            "sentence": [row.text for row in rows], "who": [row.speaker for row in rows],
            "number": [row.id for row in rows],
        }  # fmt: skip
        pq.write_table(pa.table(table), folder / "train.parquet")
        options = "text=sentence,speaker=who,id=number"
        return f"dataset={folder / 'train.parquet'},name={name},{options}"
    for row in rows:
        (folder / f"{row.id}.{suffix_of(row.format)}").write_bytes(files[row.id])
    if kind == "table":
        with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("audio", "text", "who"))
            for row in rows:
                writer.writerow((f"{row.id}.{suffix_of(row.format)}", row.text, row.speaker))
        return f"table={folder / 'table.csv'},name={name},speaker=who"
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            path = folder / f"{row.id}.{suffix_of(row.format)}"
            values = {
                "id": row.id, "audio": path.name, "text": row.text, "speaker": row.speaker,
                "duration_s": round(decode_audio(path).duration_s, 3), "dialect": "unknown",
                "corpus": name, "split": "train", "license": "CC0-1.0",
            }  # fmt: skip
            file.write(json.dumps(values, ensure_ascii=False) + "\n")
    return f"manifest={folder / 'rows.jsonl'}"


def write_fisd(folder: Path, rows: list[Row], made: Recordings) -> str:
    """Write an original as FISD; the speaker is in the names of its files."""
    inner = folder / "fisd-asante-90p"
    (inner / "audios").mkdir(parents=True)
    lines = ["Audio Filepath\tTranscription\tTranslation"]
    for row in rows:
        name = f"{row.id}.ogg"
        (inner / "audios" / name).write_bytes(made.encoded(*row.truth, "opus"))
        lines.append(f"lacuna/asante/audios/{name}\t{row.text}\tEnglish")
    (inner / "data.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"fisd_asante={folder}"


def otherwise_spelt(text: str, generator: random.Random) -> str:
    """A sentence as a mirror may write it."""
    spelling = generator.randrange(4)
    if spelling == 1:
        return text.lower().rstrip(".!?")
    if spelling == 2:
        return text.upper()
    return text.replace("ɛ", "e").replace("ɔ", "o") if spelling == 3 else text


def make_mixture(folder: Path, seed: int, made: Recordings) -> Mixture:
    """One or two corpora, one or two mirrors of them, and settings."""
    generator = random.Random(seed)
    mixture = Mixture()
    originals: list[list[Row]] = []
    speakers = list(range(NUM_SPEAKERS))
    generator.shuffle(speakers)
    kinds = generator.sample(["fisd", "table", "dataset", "manifest"], generator.randint(1, 2))
    for number, kind in enumerate(kinds):
        mine = speakers[number :: len(kinds)] if generator.random() < 0.6 else speakers
        taken = {row.truth for rows in originals for row in rows}
        prompts = generator.sample(range(len(PROMPTS)), generator.randint(1, 2))
        chosen = [(s, p) for s in mine for p in prompts if (s, p) not in taken]
        rows = [_original(kind, number, *truth, generator) for truth in chosen]
        if not rows:
            continue
        originals.append(rows)
        name = "fisd_asante" if kind == "fisd" else f"c{number}"
        into = folder / name
        word = (
            write_fisd(into, rows, made)
            if kind == "fisd"
            else write_corpus(into, kind, name, rows, made)
        )
        _add(mixture, word, name, kind, rows)
    for number in range(generator.randint(1, 2)):
        rows = _mirror(generator.choice(originals), number, generator)
        kind = generator.choice(["dataset", "table", "manifest"])
        # A mirror under the very name of another corpus happens too.
        name = generator.choice([f"m{number}", "c0" if kind == "manifest" else f"m{number}"])
        word = write_corpus(folder / f"mirror{number}", kind, name, rows, made)
        _add(mixture, word, name, kind, rows)
    generator.shuffle(mixture.words)
    _choose_settings(mixture, generator)
    return mixture


def _original(kind: str, number: int, speaker: int, prompt: int, generator: random.Random) -> Row:
    who = f"Spk{speaker:02d}"
    name = f"{FISD_LANGUAGES['asante']}Fm23-{who}-Tmp{prompt:03d}-rnd{prompt:03d}"
    id_ = name if kind == "fisd" else f"c{number}x{speaker:02d}x{prompt}"
    form = "opus" if kind == "fisd" else generator.choice(FORMATS)
    return Row((speaker, prompt), id_, who, PROMPTS[prompt], form)


def _mirror(rows: list[Row], number: int, generator: random.Random) -> list[Row]:
    """Some rows of a corpus under other names, in another format."""
    chosen = generator.sample(rows, max(1, round(len(rows) * generator.uniform(0.2, 1))))
    speakers = generator.choice(["lost", "renamed", "kept"])
    one_format = generator.choice([*FORMATS, ""])
    text = functools.partial(otherwise_spelt, generator=generator)
    found = []
    for i, row in enumerate(chosen):
        who = {"lost": "", "renamed": f"r{number}{row.speaker}", "kept": row.speaker}[speakers]
        form = one_format or generator.choice(FORMATS)
        found.append(Row(row.truth, f"m{number}x{i:04d}", who or "unknown", text(row.text), form))
    return found


def _add(mixture: Mixture, word: str, name: str, kind: str, rows: list[Row]) -> None:
    mixture.words.append(word)
    if kind == "manifest":
        mixture.speakers += [row.speaker for row in rows if row.speaker != "unknown"]
    for row in rows:
        row_id = f"{name}-{row.id}" if kind == "table" else row.id
        assert row_id not in mixture.truth
        mixture.truth[row_id] = row.truth


def _choose_settings(mixture: Mixture, generator: random.Random) -> None:
    words = ["--seed", str(generator.randrange(5)), "--test-fraction", "0.2"]
    hold_out = generator.choice(["speaker", "speaker", "sentence", "recording"])
    words += ["--hold-out", hold_out]
    of_corpora = dict.fromkeys(["*"], hold_out)
    if generator.random() < 0.4 and any("name=m0" in word for word in mixture.words):
        of_corpora["m0"] = generator.choice(["speaker", "sentence", "recording"])
        words += [f"m0={of_corpora['m0']}"]
    mixture.by_recording = {name for name, what in of_corpora.items() if what == "recording"}
    mixture.by_sentence = {name for name, what in of_corpora.items() if what == "sentence"}
    if mixture.speakers and generator.random() < 0.4:
        mixture.named = generator.choice(mixture.speakers)
        words += ["--test-speakers", mixture.named]
    if generator.random() < 0.5:
        words.append("--no-copy-audio")
    mixture.more_words = words


def judge(out: Path, mixture: Mixture) -> Counter[str]:
    """What went wrong in a folder of `build`; rows, or pairs of splits, by kind of mistake."""
    found: Counter[str] = Counter()
    rows = {
        path.stem: list(read_manifest(path))
        for path in sorted(out.glob("*.jsonl"))
        if path.stem in ("train", "dev", "test", "test_seen_prompts") and path.stat().st_size
    }
    held = dict.fromkeys(mixture.by_recording, "recording")
    held |= dict.fromkeys(mixture.by_sentence, "sentence")

    def what(corpus: str) -> str:
        return held.get(corpus, held.get("*", "speaker"))

    for one, other in itertools.combinations(rows, 2):
        truths = [{mixture.truth[u.id] for u in rows[name]} for name in (one, other)]
        found["the same recording in two splits"] += len(truths[0] & truths[1])
        if {one, other} == {"test", "test_seen_prompts"}:
            continue
        by_speaker = [
            {u.speaker for u in rows[n] if what(u.corpus) == "speaker"} for n in (one, other)
        ]
        everyone = [{u.speaker for u in rows[name]} for name in (one, other)]
        found["a speaker in two splits"] += len(by_speaker[0] & everyone[1])
        found["a speaker in two splits"] += len(by_speaker[1] & everyone[0])
        if "test_seen_prompts" not in (one, other):
            said = [
                {normalize_for_scoring(u.text) for u in rows[n] if what(u.corpus) != "recording"}
                for n in (one, other)
            ]
            found["a sentence in two splits"] += len(said[0] & said[1])
    found["a named test speaker in train or dev"] = sum(
        u.speaker == mixture.named for name in ("train", "dev") for u in rows.get(name, ())
    )
    kept = Counter(mixture.truth[u.id] for of_split in rows.values() for u in of_split)
    found["copies kept in one split"] += sum(number - 1 for number in kept.values())
    for line in (out / "dropped.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "same_as" in row:
            found["copies left out (right)"] += 1
            same = mixture.truth[row["id"]] == mixture.truth[row["same_as"]]
            found["different recordings taken for one"] += not same
    found["rows kept"] = sum(map(len, rows.values()))
    return found


def try_mixture(folder: Path, seed: int, made: Recordings) -> Counter[str]:
    """Make a mixture, build it, and judge what came out."""
    mixture = make_mixture(folder / "corpora", seed, made)
    out = folder / "out"
    build.main(["--corpus", *mixture.words, *mixture.more_words, "--out", str(out)])
    return judge(out, mixture)


def print_real_pairs() -> None:
    """How alike two real recordings are that are different."""
    prints = [fingerprint(decode_audio(path)) for path in sorted(REAL_CLIPS.glob("*.mp3"))]
    shares = sorted(share_different(*pair) for pair in itertools.combinations(prints, 2))
    if shares:
        taken = sum(share <= MAX_DIFFERENT for share in shares)
        print(
            f"{len(shares)} pairs of {len(prints)} real recordings: {taken} taken for one, which "
            f"are those that differ in {MAX_DIFFERENT} of their bits; the most alike differ "
            f"in {shares[0]:.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mixtures", type=int, default=400)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0, help="another one makes other mixtures")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    results = arguments.folder / "results.jsonl"
    done = results.read_text().splitlines() if results.exists() else []
    made = Recordings(arguments.folder / "recordings", arguments.seed)
    for seed in range(len(done), arguments.mixtures):
        folder = arguments.folder / "mixture"
        shutil.rmtree(folder, ignore_errors=True)
        found = try_mixture(folder, 10_000 * arguments.seed + seed, made)
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"seed": seed, **found}) + "\n")
    total: Counter[str] = Counter()
    for line in results.read_text().splitlines():
        total.update({key: value for key, value in json.loads(line).items() if key != "seed"})
    print_real_pairs()
    print(f"{arguments.mixtures} mixtures")
    for kind, number in total.items():
        print(f"{number:8} {kind}")


if __name__ == "__main__":
    main()
