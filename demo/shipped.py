"""Where the trained models lie that come with the repository."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
