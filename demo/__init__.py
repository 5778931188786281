"""The built-in demo: a small world and trained models; everything runs offline on a laptop.

A grammar of Twi questions, a synthesiser, a tiny Gemma 4 and a tiny Mimi trained here
(`weights/`), and `demo.run`, which runs all four stages on them.
"""

import commands  # noqa: F401 - before torch is loaded
