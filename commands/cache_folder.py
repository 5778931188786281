"""Where copies go that may be deleted at any time, and are then made again."""

import os
from pathlib import Path

FOLDER_VARIABLE = "SPOKEN_TWI_CACHE"


def cache_folder() -> Path:
    """The folder for copies of what lies on other machines."""
    return Path(os.environ.get(FOLDER_VARIABLE) or "~/.cache/spoken-twi").expanduser().absolute()
