"""The embedded default: a small trained world, so that everything runs on a laptop, offline.

A grammar of Twi questions, a synthesiser, a tiny Gemma 4 and a tiny Mimi trained here
(`weights/`), and `demo.run`, which teaches them all four stages.
"""

import commands  # noqa: F401 - before torch is loaded
