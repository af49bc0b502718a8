"""Numbers with their nouns, for sentences."""


def counted(number: int, noun: str) -> str:
    """A number with its noun, which gets an s unless the number is 1."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
