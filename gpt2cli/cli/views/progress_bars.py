"""Bars of a chart in a terminal."""

EIGHTHS = " ▏▎▍▌▋▊▉"


def bar(share: float, width: int, blocks: bool) -> str:
    """A bar for `share` of `width` signs, in whole signs only where `blocks` cannot be shown. It is there if not 0."""
    if not blocks:
        return "#" * max(round(share * width), int(share > 0))
    whole, eighths = divmod(max(round(share * width * 8), int(share > 0)), 8)
    return "█" * whole + EIGHTHS[eighths].strip()
