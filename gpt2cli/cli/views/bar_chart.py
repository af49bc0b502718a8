"""The bars of a chart in a terminal."""

EIGHTHS = " ▏▎▍▌▋▊▉"


def bar(share: float, width: int, blocks: bool) -> str:
    """A bar for `share` of `width` columns. A share above 0 always shows a bar.

    blocks  whether the terminal can show block characters, which are accurate to an eighth of a column
    """
    if not blocks:
        return "#" * max(round(share * width), int(share > 0))
    whole, eighths = divmod(max(round(share * width * 8), int(share > 0)), 8)
    return "█" * whole + EIGHTHS[eighths].strip()
