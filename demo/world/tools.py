"""Two functions for a Gemma that calls functions: the example of docs/training.md.

python -m stage3_finetune.chat --gemma google/gemma-4-E4B-it --tools demo.world.tools
"""

from datetime import date

from demo.world.facts import read_world


def add(a: int, b: int) -> int:
    """The sum of two numbers.

    Args:
        a: the first number.
        b: the second number.
    """
    return a + b


def day_today() -> str:
    """The name of today's day of the week, in Twi."""
    days: list[list[str]] = read_world()["tables"]["day"]["rows"]  # from Monday on
    return days[date.today().weekday()][0]
