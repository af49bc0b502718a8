"""`gpt2 chat` as a process: on a pseudo-terminal, as a person sees it, and in a pipe."""

import dataclasses
import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
import torch

from gpt2cli import tokenizer
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.save import save_checkpoint
from gpt2cli.cli import line_editor
from gpt2cli.cli.chat_commands import COMMANDS
from gpt2cli.cli.chat_session import Session, converse
from gpt2cli.cli.commands.chat import read_template
from gpt2cli.cli.terminal import Console
from gpt2cli.config import GPTConfig, SamplingConfig
from gpt2cli.data.records import read_records
from gpt2cli.errors import CheckpointError
from gpt2cli.exchanges import Exchange, prompt_ids
from gpt2cli.generation.text import TextGeneration
from gpt2cli.model.gpt import GPT
from gpt2cli.prompts import ALPACA, SEED, PromptTemplate
from tests import models
from tests.conftest import Run
from tests.runner import PATIENCE, clean_environment

HOSTILE, HARMLESS = " [bold]x[/y\x1b[2J\rcr\x9d52;c\x07 end", r"[bold]x[/y\x1b[2J\x0dcr\x9d52;c\x07 end"
ANSWERS = {  # after an instruction's last token
    " hostile": tokenizer.encode(HOSTILE),
    " invent": tokenizer.encode(" Paris\n### Asked:"),
    " long": tokenizer.encode(" la la"),  # and so for ever
    " silent": [],
    " torn": tokenizer.encode("🌍")[:1],
}
TEMPLATE = {"with_input": "### Asked:\n{instruction}\n{input}", "without_input": "### Asked:\n{instruction}"}
UP, TAB, ALT_ENTER, CTRL_C, CTRL_D = "\x1b[A", "\t", "\x1b\r", "\x03", "\x04"
PASTE = "\x1b[200~{}\x1b[201~"
LINE_BEGINS, LINE_ENDS = "\x1b[?2004h", "\x1b[?2004l"  # the editor turns on the terminal's marking of pastes, and off


def speaker() -> GPT:
    """A model that looks at the last token only, and gives ANSWERS."""
    follower: dict[int, int] = {}
    for asked, answer in ANSWERS.items():
        said = [*tokenizer.encode(asked), *answer, tokenizer.END_OF_TEXT_ID]
        for token, after in itertools.pairwise(said):
            assert follower.setdefault(token, after) == after or token == answer[-1]
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=64, block_size=48, tied=False))
    with torch.no_grad():
        model.wpe.weight.zero_()
        model.lm_head.weight.zero_()
        model.h[0].attn.c_proj.weight.zero_()
        model.h[0].mlp.c_proj.weight.zero_()
        for token, after in follower.items():
            model.lm_head.weight[after] += model.ln_f(model.wte.weight[token])
    return model.eval()


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the speaker as finetuned.pt."""
    directory = tmp_path_factory.mktemp("tuned")
    save_checkpoint(speaker(), directory / "finetuned.pt", template=TEMPLATE)
    return directory


class Person:
    """Somebody at a terminal. stdout may be elsewhere."""

    def __init__(self, *args: str, cwd: Path, stdout: str | Path = "/dev/tty", **env: str) -> None:
        environment = clean_environment() | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "NO_COLOR": "1"} | env
        command = ["-c", 'exec > "$0" "$@"', str(stdout), sys.executable, "-m", "gpt2cli", "chat", *args]
        self.child = pexpect.spawn(
            "/bin/sh", command, env=environment, cwd=str(cwd), timeout=PATIENCE, dimensions=(30, 100)
        )
        self.greeting = self.sees(LINE_BEGINS)

    def sees(self, text: str) -> str:
        """What came before this text, for which it waits."""
        self.child.expect_exact(text)
        return self.child.before.decode(errors="backslashreplace").replace("\r\n", "\n")

    def types(self, keys: str | bytes) -> None:
        self.child.send(keys)

    def asks(self, line: str | bytes) -> str:
        """What comes between a line and the next prompt."""
        self.types(line)
        self.types("\r")
        self.sees(LINE_ENDS)
        return self.sees(LINE_BEGINS)

    def leaves(self, keys: str) -> int | None:
        """The exit code after these keys."""
        self.types(keys)
        self.child.expect(pexpect.EOF)
        self.child.close()
        return self.child.exitstatus


@pytest.fixture(scope="module")
def storyteller(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of the speaker that says that it was trained on plain text."""
    file = tmp_path_factory.mktemp("told") / "tales.pt"
    save_checkpoint(speaker(), file, provenance={"data": {"kind": "text"}})
    return str(file)


@pytest.fixture(scope="module")
def person(tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> Person:
    """Somebody who chats with the speaker through several tests, each of which begins anew."""
    return Person("--stats", cwd=tuned, GPT2CLI_HOME=str(tmp_path_factory.mktemp("home")))


def begin(person: Person, max_new_tokens: int = 20) -> None:
    person.asks("/clear")
    person.asks(f"/set max-new-tokens {max_new_tokens}")


def test_answers_are_shown_as_they_are_and_move_no_cursor(person: Person) -> None:
    begin(person)
    assert "finetuned.pt" in person.greeting and "tuned on instructions" not in person.greeting
    said = person.asks("Say [bold]this[/z] hostile")
    assert HARMLESS in said and not [what for what in ("\x1b[2J", "\x9d", "\x07") if what in said]
    assert "[bold]this[/z]" in person.asks("/[bold]this[/z]")
    assert "\ufffd\n" in person.asks("go torn")
    assert "error: the text is not valid Unicode" in person.asks(b"\xff invent")


def test_an_answer_ends_at_the_next_heading_or_at_the_limit_which_is_said(person: Person) -> None:
    begin(person)
    said = person.asks("Please invent")
    assert "Paris\n6 prompt tokens" in said and "Asked" not in said and "limit" not in said
    said = person.asks("so long")
    assert " la" * 19 + "\nended at the limit of 20 tokens: /set max-new-tokens raises it\n" in said
    assert re.search(r"6 prompt tokens at \d+ tokens/s · 20 new tokens at [\d.]+ tokens/s · seed\s+\d+", said)
    assert "the answer is empty" in person.asks("be silent")


def test_settings(person: Person) -> None:
    begin(person, 3)
    assert "did you mean temp?" in person.asks("/set tmp 1")
    assert "error: temp must be a finite number, 0 or more, not nan" in person.asks("/set temp nan")
    assert "error: set what? As in: /set temp 0.9" in person.asks("/set")
    assert "error: set top-k to what? As in: /set temp 0.9" in person.asks("/set top-k")
    assert "error: top-k must be a whole number, not '1.5'" in person.asks("/set top-k 1.5")
    assert "temp is 0.9" in person.asks("/set temperature 0.9")
    person.asks("/set seed 5")
    person.asks("so long")
    assert "ended at the limit of 3 tokens" in person.asks("/regen")
    person.asks(r"/set stop la\n")
    settings = dict(re.findall(r"(\S+) +(.*\S) *\n", person.asks("/show")))
    wanted = {"temp": "0.9", "stop": r"'la\n'", "seed": "7", "turns": "0", "conversation": "1 exchange"}
    assert wanted.items() <= settings.items()
    for typed, means in (('"."', "'.'"), ('"the end" \\n', r"'the end' '\n'"), ("the end", "'the end'"), ("'", '"\'"')):
        assert f"stop is {means}" in person.asks(f"/set stop {typed}"), typed
    person.asks("/set stop none")
    assert "seed is random" in person.asks("/set seed random")


def test_commands_are_listed_and_the_nearest_is_named(person: Person) -> None:
    page = person.asks("/help")
    assert all(command.usage in page for command in COMMANDS.values())
    assert "error: there is no command /hlep: did you mean /help?" in person.asks("/hlep")
    assert "did you mean /exit?" in person.asks("/ex")
    begin(person)
    assert "nothing was asked yet" in person.asks("/regen")


def test_pasted_and_typed_lines_make_one_instruction_and_files_its_input(person: Person, tmp_path: Path) -> None:
    begin(person)
    person.asks(PASTE.format("one\ntwo\r\n three") + "\\\rfour" + ALT_ENTER + "be silent")
    (tmp_path / "asked.txt").write_text("Rome? invent\n")
    assert "cannot read nowhere" in person.asks("/read nowhere")
    person.types(f"/read {tmp_path}/as" + TAB)
    person.sees("ked.txt")
    assert "read 12 characters" in person.asks("")
    person.asks("Where is")
    person.asks("Say [bold]this[/z] hostile")
    person.asks(" /so long")  # the space makes an instruction of it
    assert "is there already" in person.asks(f"/save {tmp_path}/asked.txt")
    assert "there is no directory" in person.asks(f"/save {tmp_path}/nowhere/said.txt")
    person.types("/sav" + TAB)
    person.sees("/save")
    person.asks(f"{tmp_path}/said.json")
    assert [list(record.values()) for record in json.loads((tmp_path / "said.json").read_text())] == [
        ["one\ntwo\n three\nfour\nbe silent", "", ""],
        ["Where is", "Rome? invent", "Paris"],
        ["Say [bold]this[/z] hostile", "", HOSTILE.strip()],
        ["/so long", "", "la" + " la" * 19],
    ]
    person.asks("/set max-new-tokens 2")
    person.asks("/regen")
    person.asks(f"/save {tmp_path}/said.json")  # which is this chat's own
    assert json.loads((tmp_path / "said.json").read_text())[-1]["output"] == "la la"


def test_a_file_that_was_saved_is_replaced_which_is_said(person: Person, tmp_path: Path) -> None:
    begin(person, 2)
    person.asks("so long")
    assert f"wrote 1 exchange to {tmp_path}/said.txt" in person.asks(f"/save {tmp_path}/said.txt").replace("\n", "")
    assert f"replaced {tmp_path}/said.txt with 1 exchange" in person.asks(f"/save {tmp_path}/said.txt")


def test_words_that_people_type_for_commands(tuned: Path, home: Path) -> None:
    person = Person("-n", "3", cwd=tuned)
    said = person.asks("help")
    assert "this word is the command /help" in said and "/regen" in said
    assert "this word is" not in person.asks(" help")  # the space makes an instruction of it
    assert "this word is" not in person.asks("help me, it took so long")
    assert person.leaves("quit\r") == 0
    assert b"this word is the command /exit" in person.child.before
    assert Person(cwd=tuned).leaves("exit\r") == 0


@pytest.mark.parametrize(
    "name", ["x" * 300, "a/" * 3000, "a\x00b", "nobody\x02there"], ids=["long", "deep", "nul", "odd"]
)
def test_names_that_no_file_has_are_one_line(person: Person, tmp_path: Path, name: str) -> None:
    begin(person, 2)
    person.asks("so long")
    for command in ("/read", "/save"):
        # Ctrl-Q takes the next key as it is
        said = person.asks(f"{command} {tmp_path}/" + re.sub("([\x00-\x1f])", "\x11\\1", name))
        assert said.count("error: ") == 1 or (command, name[0]) == ("/save", "n"), said
    assert "1 exchange" in person.asks("/show")


def test_what_terminals_send_is_no_line(person: Person, tmp_path: Path) -> None:
    begin(person, 3)
    for sequence in ("\x1b[<0;1M", "\x1b[31m", "\x1b[?25h", "\x1b]0;title\x07"):
        person.types(f"so{sequence} long\r")
        person.sees(LINE_ENDS)
        said = person.sees(LINE_BEGINS)
        assert "la la la" in said and "Unhandled" not in said
    person.asks(f"/save {tmp_path}/said.json")
    assert {record["instruction"] for record in json.loads((tmp_path / "said.json").read_text())} == {"so long"}


def test_a_text_of_a_million_blanks_is_read(person: Person, tmp_path: Path) -> None:
    begin(person, 3)
    (tmp_path / "blanks.txt").write_text(" " * 1_100_000 + "x\n")
    person.asks(f"/read {tmp_path}/blanks.txt")
    said = person.asks("so long")
    assert "error" not in said and "the prompt is too long" in said
    assert "1 exchange" in person.asks("/show")


def test_earlier_exchanges_are_taken_along_as_far_as_they_fit(person: Person) -> None:
    begin(person, 40)
    prompt_tokens = lambda said: int(re.search(r"(\d+) prompt tokens", said)[1])  # noqa: E731
    alone = [prompt_tokens(person.asks("Please invent")) for _ in range(2)]
    assert "each prompt includes up to 9 earlier exchanges, as many as fit" in person.asks("/turns 9")
    with_two = person.asks("Please invent")
    assert alone[0] == alone[1] < prompt_tokens(with_two) <= 24 and "no room" not in with_two
    said = person.asks("Please invent")
    assert "the window has no room for 1 older exchange; included 2" in said
    assert prompt_tokens(said) == prompt_tokens(with_two)
    assert "no room" not in person.asks("Please invent")  # it is said once
    for wrong in ("some", "-1", "9" * 5000):
        assert "whole number" in person.asks(f"/turns {wrong}")
    assert "each prompt includes no earlier exchange" in person.asks("/turns 0")
    assert prompt_tokens(person.asks("Please invent")) == alone[0]


def test_ctrl_c_stops_the_answer_then_drops_the_line_then_leaves(tuned: Path, home: Path, tmp_path: Path) -> None:
    person = Person("-n", "1000000", cwd=tuned)
    person.types("so long\r")
    person.sees("la la la la")  # while it is written: a million tokens would take an hour
    person.child.setwinsize(12, 30)
    person.sees("la la la la")  # and a window that changes its size does not stop it
    person.types("typed too early")
    person.types(CTRL_C)
    said = person.sees(LINE_BEGINS)
    assert "la\nstopped\n" in said and "typed" not in said and "again leaves" not in said
    person.types("typed and dropped")
    person.sees("dropped")
    person.types(CTRL_C)
    person.asks(f"/save {tmp_path}/said.txt")
    text = (tmp_path / "said.txt").read_text()
    assert text.startswith("> so long\n\nla la la la") and "typed" not in text
    person.types("so long\r")
    person.sees("la la")
    person.types(CTRL_C)
    person.sees("stopped")
    person.sees(LINE_BEGINS)
    person.types(CTRL_C)  # the first has stopped the answer, so that this one does not leave
    assert "Ctrl-C again leaves" in person.sees(LINE_BEGINS)
    assert person.leaves(CTRL_C) == 130


def test_one_ctrl_c_at_an_empty_prompt_does_not_leave(tuned: Path, home: Path) -> None:
    person = Person("-n", "5", cwd=tuned)
    person.asks("so long")
    person.types(CTRL_C)
    assert "Ctrl-C again leaves" in person.sees(LINE_BEGINS)
    assert "Paris" in person.asks("Please invent")  # after which the count begins anew
    person.types(CTRL_C)
    assert "Ctrl-C again leaves" in person.sees(LINE_BEGINS)
    assert person.leaves(CTRL_C) == 130
    assert b"Traceback" not in person.child.before


def test_what_was_typed_comes_back_in_the_next_run(tuned: Path, home: Path, tmp_path: Path) -> None:
    person = Person(cwd=tuned, stdout=tmp_path / "answers.txt")
    person.asks("/show")
    person.asks("Please\\\rinvent invent")
    assert person.leaves("/exit\r") == 0
    assert (tmp_path / "answers.txt").read_text() == "Paris\n"  # nothing else is on stdout
    person = Person(cwd=tuned, LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    person.child.setwinsize(12, 30)
    person.types(UP + UP)
    person.sees("invent invent")
    assert "Paris\n" in person.asks("")
    person.child.setwinsize(50, 200)
    person.sees(LINE_BEGINS)  # drawn anew
    assert HARMLESS in person.asks("say hostile")
    assert person.leaves(CTRL_D) == 0
    assert b"Aborted" not in person.child.before and b"error" not in person.child.before


def test_lines_of_windows_and_a_byte_order_mark_are_no_part_of_a_text(
    run: Run, tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tuned)
    done = run("chat", "--json", "-n", "2", input="\ufeffOne\r\nso long\r\n")
    assert json.loads(done.stdout)["prompt"] == "One\nso long"


def test_end_of_text_is_plain_text_in_a_chat(run: Run, tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tuned)
    text = "<|endoftext|> so long"
    done = run("chat", "--json", "-n", "2", "--prompt", text)
    prompt = TEMPLATE["without_input"].replace("{instruction}", text)
    n_tokens = len(tokenizer.encode(prompt, allow_special=False))
    assert json.loads(done.stdout)["stats"]["prompt_tokens"] == n_tokens > len(tokenizer.encode(prompt))


def test_a_pipe_and_a_prompt_are_answered_once(run: Run, tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tuned)  # where finetuned.pt is taken without being named
    piped = run("chat", input="Say [bold]this[/z] hostile\n")
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, HOSTILE.strip() + "\n", "")
    done = run("chat", "--prompt", "so long", "-n", "2", "--json", "--stats", "--seed", "7")
    answer = json.loads(done.stdout)
    assert list(answer) == ["prompt", "text", "tokens", "finish_reason", "seed", "stats"]
    assert list(answer["stats"]) == ["prompt_tokens", "new_tokens", "prefill_tok_s", "decode_tok_s", "load_s"]
    assert list(answer.values())[:5] == ["so long", " la la", tokenizer.encode(" la la"), "length", 7]
    assert "ended at the limit of 2 tokens: -n raises it" in done.stderr and "2 new tokens at" in done.stderr


def test_a_base_model_is_asked_with_alpacas_template(run: Run, tmp_path: Path) -> None:
    shape = dataclasses.replace(models.SMALL, block_size=64)
    base = models.save_hub_directory(models.small_model(shape), tmp_path / "base")
    done = run("chat", "--model", str(base), "--json", "-n", "3", "--prompt", "Why?")
    n_tokens = len(tokenizer.encode(ALPACA.prompt("Why?")))
    assert json.loads(done.stdout)["stats"]["prompt_tokens"] == n_tokens
    assert done.stderr.count("base has no prompt template, so it may not be tuned on instructions: using Alpaca's") == 1


def test_tiny_is_asked_in_the_template_that_it_was_tuned_with(run: Run) -> None:
    done = run("chat", "--model", "tiny", "--json", "-n", "3", input="Why?")
    assert json.loads(done.stdout)["stats"]["prompt_tokens"] == len(tokenizer.encode(ALPACA.prompt("Why?")))
    assert "tuned on instructions" not in done.stderr


def test_a_prompt_longer_than_the_window_keeps_its_end(run: Run, tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tuned)
    done = run("chat", "--json", "-n", "60", input="word " * 100 + "so long")
    stats = json.loads(done.stdout)["stats"]
    assert (stats["prompt_tokens"], stats["new_tokens"]) == (48, 60)
    assert re.match(r"the prompt is too long: left out \d+ tokens at its beginning, kept the last 48\n", done.stderr)


def test_what_is_wrong_is_one_line_and_a_code(run: Run, tmp_path: Path) -> None:
    model = speaker()
    with torch.no_grad():
        model.ln_f.weight.fill_(3e38)
    save_checkpoint(model, tmp_path / "diverging.pt", template=TEMPLATE)
    for code, says, *args in (
        (2, "there is no finetuned.pt here"),
        (2, "--temp must be", "--temp", "nan", "--model", "tiny"),
        (2, "device 'abacus' is not there", "--device", "abacus", "--model", "tiny", "--prompt", "x"),
        (2, "the input holds no instruction", "--model", "tiny"),
        (2, "--prompt is empty", "--prompt", "", "--model", "tiny"),
        (3, "not valid UTF-8 at byte 1", "--prompt", "a\udcff", "--model", "tiny"),
        (7, "not finite at token 6", "--ckpt", str(tmp_path / "diverging.pt"), "--prompt", "so long"),
    ):
        done = run("chat", *args)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert done.stderr.startswith("error: ") and says in done.stderr and done.stderr.count("\n") == 1


def test_a_damaged_template_is_the_checkpoints_fault(tmp_path: Path) -> None:
    save_checkpoint(speaker(), tmp_path / "a.pt", template={"only": "this"})
    with pytest.raises(CheckpointError, match=r"a\.pt: the prompt template is damaged"):
        read_template(Console(), "a.pt", ModelSpec(ckpt=tmp_path / "a.pt").load())


class Scripted:
    """A line editor in which the lines, and what it raises, are given beforehand; then Ctrl-D."""

    def __init__(self, *lines: object) -> None:
        self.lines = iter(lines)

    def read(self) -> str:
        line = next(self.lines, EOFError())
        if isinstance(line, BaseException):
            raise line
        assert isinstance(line, str)
        return line


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Session:
    return Session(Console(), "x", speaker(), PromptTemplate(**TEMPLATE), SamplingConfig(3, temperature=0))


def converse_with(session: Session, monkeypatch: pytest.MonkeyPatch, *lines: object) -> None:
    monkeypatch.setattr(line_editor, "LineEditor", lambda arguments: Scripted(*lines))
    converse(session)


FAULTS = [
    ValueError("a"),
    RuntimeError("b"),
    EOFError("c"),
    MemoryError(),
    RecursionError("d"),
    OSError(5, "e"),
    KeyError("f"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_chat_survives_every_exception_and_keeps_what_was_said(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: Exception
) -> None:
    whole = TextGeneration.__iter__

    def torn(run: TextGeneration) -> Iterator[object]:
        for number, step in enumerate(whole(run)):
            if number == 1 and "fail" in tokenizer.decode(run.prompt_ids):
                raise fault
            yield step

    monkeypatch.setattr(TextGeneration, "__iter__", torn)
    of_editor = ValueError("of the editor")
    converse_with(session, monkeypatch, "so long", of_editor, "fail so long", "then so long")
    outputs = [(exchange.instruction, exchange.output) for exchange in session.exchanges]
    assert outputs == [("so long", "la la la"), ("fail so long", "la la"), ("then so long", "la la la")]
    assert sum(line.startswith("error: ") for line in capsys.readouterr().err.splitlines()) == 2


def test_a_fault_before_an_answer_keeps_what_was_read(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.input = "a text"
    monkeypatch.setattr(Session, "start", lambda self, prompt: 1 / 0)
    converse_with(session, monkeypatch, "so long", "/regen")
    assert (session.input, session.exchanges) == ("a text", [])


def test_an_editor_that_fails_twice_in_a_row_ends_the_chat(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="terminal"):
        converse_with(session, monkeypatch, OSError(5, "the terminal"), OSError(5, "the terminal"))


def test_a_reader_who_is_gone_ends_the_chat(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "start", lambda self, prompt: (_ for _ in ()).throw(BrokenPipeError()))
    with pytest.raises(BrokenPipeError):
        converse_with(session, monkeypatch, "so long")


def test_a_template_that_is_named_wins_over_the_checkpoints(run: Run, tuned: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"with_input": "{instruction}{input}", "without_input": "Q {instruction}"}')
    for template, prompt in (("seed", SEED.prompt("so long")), (f"{tmp_path}/mine.json", "Q so long")):
        done = run("chat", "--ckpt", f"{tuned}/finetuned.pt", "--template", template, "--prompt", "so long", "--json")
        n_tokens = min(48, len(tokenizer.encode(prompt)))
        assert json.loads(done.stdout)["stats"]["prompt_tokens"] == n_tokens
    done = run("chat", "--model", "tiny", "--template", "alpca", "--prompt", "x")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "there is no template 'alpca'" in done.stderr


def test_each_line_of_a_pipe_or_a_file_can_be_a_question(run: Run, tuned: Path, tmp_path: Path) -> None:
    lines = "so long\n\n  \nPlease invent\n"
    (tmp_path / "asked.txt").write_text(lines)
    args = ("chat", "--ckpt", f"{tuned}/finetuned.pt", "-n", "9", "--temp", "0", "--seed", "5")
    piped = run(*args, "--each-line", input=lines)
    assert (piped.returncode, piped.stdout) == (0, "la" + " la" * 8 + "\nParis\n")
    for source in ({"input": lines}, {}):
        options = () if source else ("--prompt-file", str(tmp_path / "asked.txt"))
        done = run(*args, *options, "--each-line", "--json", **source)
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert [(answer["prompt"], answer["seed"]) for answer in answers] == [("so long", 5), ("Please invent", 6)]
    once = run(*args, "--json", "--prompt-file", str(tmp_path / "asked.txt"))
    assert json.loads(once.stdout)["prompt"] == lines.removesuffix("\n")
    assert run(*args, "--each-line", input="\n \n").returncode == 2


def prompt_lengths(stdout: str) -> list[int]:
    return [json.loads(line)["stats"]["prompt_tokens"] for line in stdout.splitlines()]


def test_lines_are_one_conversation_only_with_turns(run: Run, tmp_path: Path) -> None:
    file, lines, template = tmp_path / "talk.pt", "so long\nPlease invent\n", PromptTemplate(**TEMPLATE)
    save_checkpoint(speaker(), file, template=TEMPLATE, provenance={"data": {"turns": 3}})
    args = ("chat", "--ckpt", str(file), "-n", "2", "--temp", "0", "--json", "--each-line")
    alone = [len(prompt_ids(template, [], Exchange(line))) for line in lines.splitlines()]
    together = len(prompt_ids(template, [Exchange("so long", "", "la la")], Exchange("Please invent")))
    for options, lengths in (((), alone), (("--turns", "0"), alone), (("--turns", "1"), [alone[0], together])):
        assert prompt_lengths(run(*args, *options, input=lines).stdout) == lengths
    assert run(*args, "--turns", "-1", input=lines).returncode == 2


def test_the_system_text_of_a_prompt(run: Run, tmp_path: Path) -> None:
    stored = ALPACA.with_system("Stored.")
    shape = dataclasses.replace(models.SMALL, block_size=128)
    save_checkpoint(models.small_model(shape), tmp_path / "a.pt", template=stored.to_dict())
    args = ("chat", "--ckpt", str(tmp_path / "a.pt"), "-n", "1", "--json", "--prompt", "Why?")
    for options, template in (
        ((), stored),
        (("--system", "You are a {input}.\n"), ALPACA.with_system("You are a {input}.")),
        (("--system", "A", "--template", "seed"), SEED.with_system("A")),
    ):
        done = run(*args, *options)
        assert prompt_lengths(done.stdout) == [len(prompt_ids(template, [], Exchange("Why?")))], done.stderr


def test_options_of_a_conversation_without_effect_are_refused(
    run: Run, tuned: Path, storyteller: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(TEMPLATE))
    placeless = "the prompt template has no preamble, which a system text replaces: leave it out"
    for code, says, *args in (
        (2, "--turns is for instructions", "--ckpt", storyteller, "--turns", "1"),
        (2, "--turns is for instructions", "--model", "tiny", "--template", "none", "--turns", "0"),
        (2, "a text that is continued has no system text", "--ckpt", storyteller, "--system", "A"),
        (2, placeless, "--ckpt", f"{tuned}/finetuned.pt", "--system", "A"),
        (2, placeless, "--model", "tiny", "--template", f"{tmp_path}/mine.json", "--system", "A"),
        (3, "--system is not valid UTF-8 at byte 1", "--model", "tiny", "--system", "a\udcff"),
    ):
        done = run("chat", "--prompt", "x", *args)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert says in done.stderr.splitlines()[-1]


def test_a_chat_with_a_model_of_conversations_includes_all_that_fits(tmp_path: Path, home: Path) -> None:
    save_checkpoint(speaker(), tmp_path / "talk.pt", template=TEMPLATE, provenance={"data": {"turns": 3}})
    person = Person("--ckpt", "talk.pt", "--stats", "-n", "3", cwd=tmp_path)
    assert re.search(r"turns +all that fit *\n", person.asks("/show"))
    person.asks("so long")
    together = len(prompt_ids(PromptTemplate(**TEMPLATE), [Exchange("so long", "", "la la la")], Exchange("so long")))
    assert f"{together} prompt tokens" in person.asks("so long")
    assert "no room" not in person.asks("so long") + person.asks("so long")
    assert "no room for 1 older exchange; included 3" in person.asks("so long")
    assert person.leaves(CTRL_D) == 0


def test_the_system_text_can_be_changed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    session = Session(Console(), "x", speaker(), PromptTemplate(**TEMPLATE), SamplingConfig(3, temperature=0))
    converse_with(session, monkeypatch, "/system You are a pirate.", "/show")
    shown = capsys.readouterr().err
    assert "error: the prompt template has no preamble" in shown and not re.search("^system ", shown, re.MULTILINE)
    session.template = ALPACA.with_system("Stored.")
    converse_with(
        session, monkeypatch, "/show", "/system You are a [b]{input}[/b].", "so long", "/show", "/system \ud800"
    )
    assert session.template == ALPACA.with_system("You are a [b]{input}[/b].")
    shown = capsys.readouterr().err
    assert "Stored." in shown and shown.count("You are a [b]{input}[/b].") == 2 and "not valid Unicode" in shown
    assert len(session.exchanges) == 1
    session.input = "kept"
    converse_with(session, monkeypatch, "/system")
    assert session.template == ALPACA and not session.exchanges and session.input == "kept"
    shown = capsys.readouterr().err
    assert "the system text is the template's preamble" in shown and "forgot 1 exchange" in shown
    session.exchanges = [Exchange("a", "", "b")]
    converse_with(session, monkeypatch, "/system")
    assert len(session.exchanges) == 1  # the same text as before


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".tsv"])
@pytest.mark.parametrize("format", [None, "instructions", "prompt", "messages", "sharegpt"])
def test_what_is_saved_is_read_again_as_the_same_exchanges(
    session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, suffix: str, format: str | None
) -> None:
    session.template = ALPACA.with_system("You are 'a', \"b\".")
    session.exchanges = [Exchange('One,\n"two"\tthree; x', "", "a\r\n, b"), Exchange("Why?", "", "🌍 | None")]
    whole = format in ("messages", "sharegpt")
    file = tmp_path / f"a chat{suffix}"
    converse_with(session, monkeypatch, f"/save {file}" + (f" {format}" if format else ""))
    if whole and suffix in (".csv", ".tsv"):
        assert not file.exists()
        return
    found = read_records(file).good
    assert {record.system for record in found} == {session.template.system}
    again = [Exchange(each.instruction, each.input, each.output) for record in found for each in record.exchanges]
    assert again == session.exchanges
    assert len(found) == (1 if whole else 2)


def test_a_model_of_plain_text_continues_what_is_given(run: Run, storyteller: str) -> None:
    done = run("chat", "--ckpt", storyteller, "--json", "-n", "2", "--prompt", "so long")
    assert json.loads(done.stdout)["stats"]["prompt_tokens"] == 2 and json.loads(done.stdout)["text"] == " la la"
    assert "tales.pt was trained on plain text: it continues what you type\n" in done.stderr
    asked = run("chat", "--ckpt", storyteller, "--json", "-n", "2", "--prompt", "so long", "--template", "alpaca")
    assert json.loads(asked.stdout)["stats"]["prompt_tokens"] == len(tokenizer.encode(ALPACA.prompt("so long")))
    assert "plain text" not in asked.stderr


def test_the_template_none_continues_text_with_any_model(run: Run, tuned: Path) -> None:
    done = run(
        "chat", "--ckpt", f"{tuned}/finetuned.pt", "--template", "none", "--json", "-n", "2", "--prompt", "so long"
    )
    assert json.loads(done.stdout)["stats"]["prompt_tokens"] == 2 and done.stderr.count("\n") == 1


def text_session(monkeypatch: pytest.MonkeyPatch, *lines: object) -> Session:
    """A session without a template, after these lines."""
    session = Session(Console(), "x", speaker(), None, SamplingConfig(3, temperature=0))
    converse_with(session, monkeypatch, *lines)
    return session


def test_a_text_grows_with_every_line_and_is_saved_as_text(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "tale.txt"
    lines = (
        "so long",
        "",
        "and so long",
        "/regen",
        f"/save {saved}",
        f"/save {tmp_path}/tale.json",
        "/turns 3",
        "/show",
    )
    session = text_session(monkeypatch, *lines)
    assert saved.read_text() == "so long la la la la la la\nand so long la la la\n"
    assert [exchange.instruction for exchange in session.exchanges] == ["so long", "", "and so long"]
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["la la la"] * 4
    assert "/save does not write .json: choose a name that ends in .txt (text), .md (text)" in shown.err
    assert "continued with all of it that fits" in shown.err and "all that fit" in shown.err


def test_an_empty_line_at_the_beginning_of_a_text_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert text_session(monkeypatch, "", " ").exchanges == []


@pytest.mark.parametrize("suffix", [".parquet", ".html", ".JSONS"])
def test_a_chat_is_not_saved_in_a_format_that_is_not_written(
    session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    converse_with(session, monkeypatch, "so long", f"/save {tmp_path}/talk{suffix}", f"/save {tmp_path}/talk")
    assert f"/save does not write {suffix.lower()}: choose a name that ends in .txt" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["talk"]


def test_a_ctrl_c_when_an_answer_has_just_ended_does_not_leave_nor_count(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Session.ask

    def interrupted(session: Session, line: str) -> None:
        whole(session, line)
        if line == "so long":
            raise KeyboardInterrupt

    monkeypatch.setattr(Session, "ask", interrupted)
    converse_with(session, monkeypatch, "so long", KeyboardInterrupt(), "Please invent")
    assert [exchange.instruction for exchange in session.exchanges] == ["so long", "Please invent"]
    with pytest.raises(KeyboardInterrupt):
        converse_with(session, monkeypatch, KeyboardInterrupt(), KeyboardInterrupt())
