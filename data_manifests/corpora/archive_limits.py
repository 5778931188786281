"""Limits on what an archive of speech may unpack to: enough for any corpus, but not to fill a
disk."""

# A recording of an hour is far smaller; Bible corpora have some 40,000 members.
MAX_MEMBER_BYTES = 2**29
MAX_MEMBERS = 1_000_000
# Speech is already compressed, so archiving saves nothing more; texts shrink to a tenth.
MAX_RATIO = 20
# For small archives, which may hold mostly texts.
ALLOWANCE_BYTES = 2**24
MAX_TOTAL_BYTES = 2**41  # 2 TiB


def max_unpacked_bytes(archive_bytes: int) -> int:
    """The most bytes that an archive of this size may unpack to, all members together."""
    return min(MAX_TOTAL_BYTES, MAX_RATIO * archive_bytes + ALLOWANCE_BYTES)
