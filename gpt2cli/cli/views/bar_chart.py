"""The bars of a chart in a terminal, and the percentages beside them."""

EIGHTHS = " ▏▎▍▌▋▊▉"


def bar(share: float, width: int, blocks: bool) -> str:
    """A bar for `share` of `width` columns. A share above 0 always shows a bar.

    blocks  whether the terminal can show block characters, which are accurate to an eighth of a column
    """
    if not blocks:
        return "#" * max(round(share * width), int(share > 0))
    whole, eighths = divmod(max(round(share * width * 8), int(share > 0)), 8)
    return "█" * whole + EIGHTHS[eighths].strip()


def percent(share: float) -> str:
    """A share as a percentage. A small share above 0 is not shown as 0."""
    if 0 < share < 0.0005:
        return "<0.1%"
    return f"{share:.1%}" if share < 0.9995 else "100%"
