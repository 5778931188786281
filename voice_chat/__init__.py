"""A conversation by voice: in the terminal (`voice_chat.chat`), and in the browser
(`voice_chat.serve`)."""

import commands  # noqa: F401 - before torch is loaded
