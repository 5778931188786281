"""Speed and memory at true size, side by side with what a user would use instead, in one run."""

import commands  # noqa: F401 - before torch is loaded
