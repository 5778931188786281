"""Twi corpora in miniature, each in its exact layout; what is returned is what its recipe takes."""

import functools
import io
import tarfile
import zipfile
import zlib

import numpy as np
import soundfile

FISD_LANGUAGES = {"asante": "AsantiTwi", "akuapem": "AkuapemTwi", "fante": "Fanti", "ga": "Ga"}
WAXAL_FOLDERS = {"aka_asr": "data/ASR/aka", "twi_tts": "data/TTS/twi", "fat_tts": "data/TTS/fat"}


def tone(seconds=1.0, rate=16_000, hertz=440.0):
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(
        np.float32
    )


@functools.cache
def encoded_tone(kind, seconds=0.3, hertz=440.0):
    """Bytes of a file: "ogg" (Opus, 48 kHz), "flac" (48 kHz, 24 bit), "mp3" or "wav"."""
    rate = {"ogg": 48_000, "flac": 48_000, "mp3": 44_100, "wav": 16_000}[kind]
    subtype = {"ogg": "OPUS", "flac": "PCM_24", "mp3": "MPEG_LAYER_III", "wav": "PCM_16"}[kind]
    file = io.BytesIO()
    soundfile.write(file, tone(seconds, rate, hertz), rate, format=kind.upper(), subtype=subtype)
    return file.getvalue()


def encoded_speech(kind, text, speaker=""):
    """As long as the text takes to say, and unlike any other recording: `check` finds no fault."""
    hertz = 200 + 3000 * zlib.crc32(f"{speaker}: {text}".encode()) / 2**32
    return encoded_tone(kind, max(0.5, len(text) / 12), hertz)


def common_voice_folder(folder, sentences):
    """Official dev and test are empty."""
    (folder / "clips").mkdir(parents=True)
    header = [
        "client_id", "path", "sentence_id", "sentence", "sentence_domain", "up_votes", "down_votes",
        "age", "gender", "accents", "variant", "locale", "segment",
    ]  # fmt: skip
    lines = ["\t".join(header)]
    for i, sentence in enumerate(sentences):
        soundfile.write(
            folder / "clips" / f"cv_{i}.mp3",
            tone(0.5 + 0.1 * i + len(sentence) / 12, 32_000),
            32_000,
        )
        cells = dict.fromkeys(header, "")
        cells |= {"client_id": "one", "path": f"cv_{i}.mp3", "sentence": sentence, "locale": "tw"}
        lines.append("\t".join(cells.values()))
    for name in ("train", "validated"):
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    for name in ("dev", "test", "other", "invalidated"):
        (folder / f"{name}.tsv").write_text(lines[0] + "\n")
    return folder


def fisd_file_name(dialect, speaker, i):
    return f"{FISD_LANGUAGES[dialect]}Fm23-{speaker}-Tmp{i:03d}-rnd{i:03d}.ogg"


def fisd_folder(folder, dialect, speakers, prompts, *, delimiter="\t", part="90p"):
    """Every speaker reads every prompt. The folder holds the one that the zip holds."""
    inner = folder / f"fisd-{dialect}-{part}"
    (inner / "audios").mkdir(parents=True)
    lines = [delimiter.join(["Audio Filepath", "Transcription", "Translation"])]
    for speaker in speakers:
        for i, prompt in enumerate(prompts):
            name = fisd_file_name(dialect, speaker, i)
            (inner / "audios" / name).write_bytes(encoded_speech("ogg", prompt, speaker))
            lines.append(delimiter.join([f"lacuna/{dialect}/audios/{name}", prompt, "English"]))
    (inner / "data.csv").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return folder


def zip_folder(path, folder):
    """Zip a folder, with the shadow copies that macOS adds."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = str(file.relative_to(folder))
            archive.write(file, name)
            archive.writestr(f"__MACOSX/{name.replace(file.name, '._' + file.name)}", b"shadow")
    return path


def fisd_zip(path, dialect, speakers, prompts, **options):
    folder = path.with_suffix(".unzipped")
    return zip_folder(path, fisd_folder(folder, dialect, speakers, prompts, **options))


def bibletts_folder(folder, dialect, books):
    """`books`: split -> book -> verses."""
    for split, verses_of_book in books.items():
        for book, verses in verses_of_book.items():
            inner = folder / f"{dialect}-twi" / split / book
            inner.mkdir(parents=True)
            for i, verse in enumerate(verses, start=1):
                (inner / f"{book}_001_{i:03d}.flac").write_bytes(encoded_speech("flac", verse))
                (inner / f"{book}_001_{i:03d}.txt").write_text(verse + "\n")
    return folder


def bibletts_tgz(path, dialect, books):
    folder = bibletts_folder(path.with_suffix(".unpacked"), dialect, books)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder / f"{dialect}-twi", f"{dialect}-twi")
    return path


def waxal_folder(folder, config, rows, *, text_column="transcription", broken_ids=()):
    """`rows`: split -> list of (id, speaker_id, text); returns the repository's root, as text."""
    import datasets

    inner = folder / WAXAL_FOLDERS[config]
    inner.mkdir(parents=True)
    for split, of_split in rows.items():
        columns = {
            "id": [row[0] for row in of_split],
            "speaker_id": [row[1] for row in of_split],
            text_column: [row[2] for row in of_split],
            "language": ["aka" for _ in of_split],
            "gender": ["" for _ in of_split],
            "audio": [
                {
                    "bytes": (
                        b"no audio"
                        if row[0] in broken_ids
                        else encoded_speech("mp3", row[2], row[1])
                    ),
                    "path": f"{row[0]}.mp3",
                }
                for row in of_split
            ],
        }
        dataset = datasets.Dataset.from_dict(columns)
        dataset = dataset.cast_column("audio", datasets.Audio(decode=False))
        name = f"{config.partition('_')[0]}-{split}-00000-of-00001.parquet"
        dataset.to_parquet(inner / name)
    return str(folder)


def saved_dataset(folder, splits):
    """`splits`: split -> list of rows, dicts with bytes as "audio"; written by `save_to_disk`."""
    import datasets

    parts = {}
    for split, rows in splits.items():
        rows = [
            {**row, "audio": row["audio"] and {"bytes": row["audio"], "path": None}} for row in rows
        ]
        dataset = datasets.Dataset.from_list(rows)
        parts[split] = dataset.cast_column("audio", datasets.Audio(decode=False))
    datasets.DatasetDict(parts).save_to_disk(folder)
    return str(folder)


def ugspeechdata_folder(folder, transcripts, num_untranscribed=2):
    """`transcripts`: by file name without suffix; the table is its workbook's sheet as CSV."""
    (folder / "Akan").mkdir(parents=True)
    (folder / "Metadata").mkdir()
    for i in range(num_untranscribed):
        name = f"ak_gh_image_{i:04d}_u900_1_1682163241022_0000{i}.mp3"
        (folder / "Akan" / name).write_bytes(encoded_tone("mp3"))
    lines = ["Full Filename,SPEAKER_ID,GENDER,AGE,ENVIRONMENT,DEVICE,Transcription"]
    for name, text in transcripts.items():
        (folder / "Akan" / f"{name}.mp3").write_bytes(encoded_speech("mp3", text, name))
        lines.append(f'{name}.mp3,776,Male,23,Home,Phone,"{text}"')
    (folder / "Metadata" / "Akan.csv").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8-sig")
    (folder / "Metadata" / "AUDIO_ID.csv").write_text("IMAGE_URL,AUDIO_URL,SPEAKER_ID\na,b,776\n")
    return folder


def read_recipe(recipe, *arguments, **settings):
    """All recordings by id, and the reasons of the rows left out."""
    dropped = {}

    def report_dropped(row_id, reason):
        assert row_id not in dropped
        dropped[row_id] = reason

    recordings = list(recipe(*arguments, report_dropped, **settings))
    for recording in recordings:  # after the recipe has ended, as build does it
        if recording.audio_bytes is None:
            info = soundfile.info(recording.utterance.audio)
        else:
            assert "/" not in recording.utterance.audio
            info = soundfile.info(io.BytesIO(recording.audio_bytes()))
        assert abs(info.duration - recording.utterance.duration_s) < 0.01
    by_id = {recording.utterance.id: recording for recording in recordings}
    assert len(by_id) == len(recordings)
    return by_id, dropped
