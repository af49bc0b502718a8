"""Generated text on stdout."""

from types import TracebackType
from typing import TYPE_CHECKING

from gpt2cli.cli.terminal import Console, visible

if TYPE_CHECKING:
    from gpt2cli.cli.word_wrap import WordWrap


class Prose:
    """Writes text to stdout, on a terminal with line breaks between words. Use it in a `with` statement."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._wrap = _wrap_for(console) if console.prints_on_terminal else None

    def __enter__(self) -> "Prose":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.flush()

    def write(self, text: str, style: str | None = None) -> None:
        """Write text. The last word waits until it is complete, except in a text with a style."""
        if self._wrap is None:
            self._console.write(text)
            return
        if style:
            self.flush()
        shown = self._wrap.feed(visible(text))
        self._console.write(shown + self._wrap.flush() if style else shown, style)

    def flush(self) -> None:
        """Write the last word."""
        if self._wrap and (held := self._wrap.flush()):
            self._console.write(held)


def _wrap_for(console: Console) -> "WordWrap":
    from gpt2cli.cli.word_wrap import WordWrap  # imports rich

    return WordWrap(lambda: console.columns)
