"""Location of the trained models that come with the repository."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
