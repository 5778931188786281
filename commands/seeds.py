"""Seeds for everything that is drawn."""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from several numbers or names, the same on every machine and in every
    process."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
