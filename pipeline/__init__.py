"""What spans the stages: checks before an expensive run (`pipeline.preflight`), and the report."""

import commands  # noqa: F401 - before torch is loaded
