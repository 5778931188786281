"""Open Hugging Face datasets, local or on the Hub, without decoding audio."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from commands.errors import InputError
from commands.regular_files import list_files_below, open_regular
from data_manifests.corpora.recording import one_line

METADATA_NAMES = ("metadata.csv", "metadata.jsonl")


def open_dataset(
    source: str, config: str | None = None, *, parquet_files: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Open all splits of a dataset.

    Args:
        source: name on the Hub, or local path: a folder written by `save_to_disk`, a Parquet file
            or a folder of them, or a folder of audio with `metadata.csv` or `metadata.jsonl`.
        config: which of its configurations to open.
        parquet_files: split name -> pattern of Parquet files, local or hf://; read in place of
            whatever `source` would resolve to.

    Returns:
        Split name -> `datasets.Dataset`.

    Raises:
        InputError: it cannot be opened; the library's reason is in the message.
    """
    import datasets  # takes a second to import

    path = Path(source)
    _refuse_special_file(path)
    with _opening(source):
        if parquet_files is not None:
            opened = datasets.load_dataset("parquet", data_files=dict(parquet_files))
        elif _is_saved(path):
            opened = datasets.load_from_disk(source)
        elif path.is_file():
            opened = datasets.load_dataset("parquet", data_files=source)
        elif metadata := _find_metadata(path):
            opened = {
                file.parent.name if file.parent != path else "train": _open_audio_folder(file)
                for file in metadata
            }
        else:
            opened = datasets.load_dataset(source, config)
    splits = {"train": opened} if isinstance(opened, datasets.Dataset) else dict(opened)
    if not splits:
        raise InputError(f"{source}: a dataset without a split")
    return splits


def list_parquet_files(
    source: str, config: str | None = None, *, parquet_files: Mapping[str, str] | None = None
) -> dict[str, list[Path]]:
    """The files from which `open_dataset` would read a local dataset, by split, in their order.

    Returns:
        None at all if it is not Parquet. Nothing is read, and nothing is copied.

    Raises:
        InputError: as `open_dataset`.
    """
    import datasets
    from datasets.packaged_modules.parquet.parquet import Parquet

    path = Path(source)
    _refuse_special_file(path)
    with _opening(source):
        if parquet_files is not None:
            builder = datasets.load_dataset_builder("parquet", data_files=dict(parquet_files))
        elif _is_saved(path):
            return {}
        elif path.is_file():
            return {"train": [path]}
        elif _find_metadata(path):
            return {}
        else:
            builder = datasets.load_dataset_builder(source, config)
        if not isinstance(builder, Parquet):
            return {}
        files = {
            str(split): [Path(file) for file in of_split]
            for split, of_split in builder.config.data_files.items()
        }
        if not all(files.values()):  # what is not a regular file is not listed
            raise InputError(f"{source}: a split without a file")
    return files


@contextlib.contextmanager
def _opening(source: str) -> Iterator[None]:
    """Turn what a damaged or missing dataset raises into InputError."""
    try:
        yield
    except InputError:
        raise
    # For damaged data, datasets, pyarrow, pandas and fsspec may raise anything; for a missing
    # dataset, or one that consists of code, datasets raises an OSError or a RuntimeError.
    except Exception as error:
        reason = one_line(error.__cause__ or error)
        raise InputError(f"{source}: cannot be opened as a dataset: {reason}") from None


def _is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote it."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def _refuse_special_file(path: Path) -> None:
    """Raise InputError for a pipe or a device, which would be read for ever."""
    if path.exists() and not path.is_dir():
        try:
            open_regular(path).close()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from None


def _find_metadata(folder: Path) -> list[Path]:
    files = list_files_below(folder) if folder.is_dir() else []  # or a name on the hub
    return [file for name in METADATA_NAMES for file in files if file.name == name]


def _open_audio_folder(metadata: Path) -> Any:
    """The same dataset as `load_dataset("audiofolder")`, which needs torchcodec even for audio it
    only names (datasets 5.2, `Audio.encode_example`)."""
    import datasets

    kind = "csv" if metadata.suffix == ".csv" else "json"
    table = datasets.load_dataset(kind, data_files=str(metadata), split="train")
    if "file_name" not in table.column_names:
        columns = ", ".join(table.column_names)
        raise InputError(f"{metadata}: no column 'file_name'; its columns: {columns}")
    files = [str(metadata.parent / str(name)) for name in table["file_name"]]
    return table.remove_columns("file_name").add_column("audio", files)
