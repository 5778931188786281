"""Publish a folder on the Hugging Face hub."""

from pathlib import Path

from huggingface_hub import HfApi

from commands.errors import InputError


def push(folder: Path, repository: str) -> str:
    """Upload a repository's folder in one commit; returns the commit's URL.

    Raises:
        InputError: no such account, not logged in, offline, or an invalid repository name.
    """
    api = HfApi()
    try:
        repo_id = api.create_repo(repository, exist_ok=True).repo_id
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"--push {repository}: {folder} is written, not pushed: {reason}"
        ) from error
