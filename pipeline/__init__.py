"""What spans the stages: checks before money is spent (`pipeline.preflight`), and the report."""

import commands  # noqa: F401 - before torch is loaded
