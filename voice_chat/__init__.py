"""A conversation by voice: in the terminal (`voice_chat.chat`), and in the browser
(`voice_chat.web`)."""

import commands  # noqa: F401 - before torch is loaded
