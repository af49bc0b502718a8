"""What `explain` is asked: a prompt, the token to explain, and the token to compare it with."""

from collections.abc import Sequence
from dataclasses import dataclass

from gpt2cli import tokenizer
from gpt2cli.counted import counted
from gpt2cli.errors import UsageError
from gpt2cli.progress import Note
from gpt2cli.tokenizer import END_OF_TEXT_ID, show
from gpt2cli.untrusted import shown


@dataclass(frozen=True)
class Question:
    """The input of all parts of an explanation. Token ids throughout.

    prompt   at least one token
    target   the next token that is explained; None: the likeliest one
    foil     a token that the target is compared with; None: with none
    against  another prompt with as many tokens, for patching

    Raises UsageError for an empty prompt, and for prompts of different lengths.
    """

    prompt: tuple[int, ...]
    target: int | None = None
    foil: int | None = None
    against: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.prompt:
            raise UsageError("the prompt is empty: give a text, or <|endoftext|>")
        if self.against is not None and len(self.against) != len(self.prompt):
            theirs, ours = counted(len(self.against), "token"), f"{len(self.prompt):,}"
            raise UsageError(f"--against has {theirs} and the prompt has {ours}: they must have the same number")


def ask(
    prompt: str,
    *,
    target: str | None = None,
    foil: str | None = None,
    against: str | None = None,
    bos: bool = False,
    read: Sequence[int] | None = None,
) -> tuple[Question, list[Note]]:
    """The question in token ids, and notes about texts of which only the first token counts.

    With `bos`, `<|endoftext|>` comes before both prompts. An empty prompt is `<|endoftext|>`, as in `generate`.
    `read` takes the place of the prompt's tokens, such as those of an instruction in its template.
    Raises UsageError for what is not a text, for an empty target or foil, for prompts that are the same, and as
    `Question`; DataError for text that is not valid Unicode.
    """
    for name, given in {"prompt": prompt, "target": target, "foil": foil, "against": against}.items():
        if not isinstance(given, str) and (given is not None or name == "prompt"):
            advice = "gpt2cli.decode makes a text of token ids"
            raise UsageError(f"the {name} must be a text, not {shown(given)}: {advice}")
    if against == prompt:
        raise UsageError("--against is the prompt itself: give another text with as many tokens")
    notes: list[Note] = []

    def first_token(name: str, text: str | None) -> int | None:
        if text is None:
            return None
        ids = tokenizer.encode(text)
        if not ids:
            raise UsageError(f"--{name} is empty: give the text that could come next, such as ' Paris'")
        if len(ids) > 1:
            notes.append(Note(f"--{name} {text!r} has {len(ids)} tokens: only the first counts, {show(ids[0])!r}"))
        if read is None and text[0].isalnum() and prompt[-1:].isalnum():
            notes.append(Note(f"--{name} {text!r} continues the prompt's last word: {' ' + text!r} begins a new one"))
        return ids[0]

    def prompt_ids(text: str) -> tuple[int, ...]:
        front = (END_OF_TEXT_ID,) if bos else ()
        return front + tuple(tokenizer.encode(text)) or (END_OF_TEXT_ID,)

    return (
        Question(
            prompt_ids(prompt) if read is None else tuple(read),
            first_token("target", target),
            first_token("foil", foil),
            None if against is None else prompt_ids(against),
        ),
        notes,
    )
