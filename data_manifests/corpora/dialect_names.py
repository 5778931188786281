"""Names of the dialects as corpora write them: AsantiTwi, akuapem-twi, Mfantse, ..."""

SPELLINGS = {
    "asante": ("asante", "asanti", "ashanti"),
    "akuapem": ("akuapem", "akuapim", "akwapem", "akwapim"),
    "fante": ("fante", "fanti", "mfantse"),
}


def find_dialects(text: str) -> set[str]:
    """Every dialect named in a file name or a cell, in upper or lower case; empty if there is
    none."""
    lower = text.lower()
    return {
        dialect
        for dialect, spellings in SPELLINGS.items()
        if any(spelling in lower for spelling in spellings)
    }
