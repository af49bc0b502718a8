"""Line breaks between words, for text that appears on a terminal while it is generated."""

from collections.abc import Callable, Iterator

from rich.cells import get_character_cell_size

TAB_STOP = 8
"""Columns between the tab stops of a terminal."""
NEVER_FIRST = "、。，．・：；！？」』）］｝〉》】〕ー々,.;:!?)]}"
"""Characters that begin no line after a wide character."""
NEVER_LAST = "「『（［｛〈《【〔\u200d"
"""Characters that end no line before a wide character: brackets, and the joiner of emoji."""


class WordWrap:
    """Inserts line breaks into a text that comes in pieces. Without the inserted breaks, the output is the text.

    A word is held back until it ends, because it may still cross the edge. The output does not depend on where the
    pieces begin and end. The last column is left for the space after a word. Lines can also break beside wide
    characters, which belong to scripts without spaces. A word that is wider than a line begins a line, and the terminal
    breaks it.

    width  returns the columns of the terminal; it is called for every piece, because the window can change its size
    """

    def __init__(self, width: Callable[[], int]) -> None:
        self._measure = width
        self._width = 0
        self._column = 0  # of the cursor, which does not count the held word
        self._held = ""
        self._held_width = 0
        self._is_begun = False  # whether the beginning of the word has been returned already
        self._last = ""

    def feed(self, text: str) -> str:
        """Add text. Returns what can be printed now."""
        self._set_width(max(2, self._measure()))
        return "".join(part for character in text for part in self._add(character))

    def flush(self) -> str:
        """Returns the word that is held back. If the text continues it, the word stays in its line."""
        held, self._held = self._held, ""
        self._column, self._held_width = self._column + self._held_width, 0
        self._is_begun = self._is_begun or bool(held)
        return held

    def _set_width(self, width: int) -> None:
        if width < self._width:  # most terminals move the end of a line that has become too long into the next one
            self._column %= width
        self._width = width

    def _add(self, character: str) -> Iterator[str]:
        size = get_character_cell_size(character)
        if character in "\n\t " or self._may_break_before(character, size):
            yield self.flush()
            self._is_begun = False
        if character == "\n":
            self._column = 0
            yield character
        elif character in "\t ":
            yield from self._add_space(character)
        else:
            yield from self._add_letter(character, size)
        self._last = character

    def _may_break_before(self, character: str, size: int) -> bool:
        """Whether a line may end between the last character, which is no space, and this one."""
        if not self._last or not size or self._last in NEVER_LAST or character in NEVER_FIRST:
            return False
        return size == 2 or get_character_cell_size(self._last) == 2

    def _add_space(self, character: str) -> Iterator[str]:
        if character == "\t":  # at the edge, a tab does not move the cursor
            self._column = min((self._column // TAB_STOP + 1) * TAB_STOP, max(self._column, self._width - 1))
        elif self._column < self._width:
            self._column += 1
        else:
            self._column = 1
            yield "\n"
        yield character

    def _add_letter(self, character: str, size: int) -> Iterator[str]:
        self._held += character
        self._held_width += size
        if not self._is_begun and self._column and self._column + self._held_width > self._width - 1:
            self._column = 0
            yield "\n"
        if self._is_begun or not self._column:  # the word cannot move to another line
            if self._column + self._held_width > self._width:  # the terminal breaks the word here
                self._column = 0
            yield self.flush()
