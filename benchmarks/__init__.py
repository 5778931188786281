"""Speed and memory at full size, compared in one run with what a user would use instead."""

import commands  # noqa: F401 - before torch is loaded
