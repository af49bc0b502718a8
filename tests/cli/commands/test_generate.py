"""`gpt2 generate`: its streams, exit codes and JSON, in pipes and on a terminal."""

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest
import torch

from gpt2cli import tokenizer
from gpt2cli.cli.environment import Environment, NotesStream
from gpt2cli.cli.main import main
from gpt2cli.cli.read_text import decode, read_prompt
from gpt2cli.config import GPTConfig
from gpt2cli.errors import DataError, UsageError
from tests import models
from tests.runner import PATIENCE, Pipe, clean_environment, screen, signal_when


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A model that writes gibberish, but different gibberish for every seed."""
    return str(models.save_hub_directory(models.small_model(), tmp_path_factory.mktemp("small")))


def parrot(directory, token: int) -> str:
    """A model that says one token for ever."""
    model = models.small_model()
    with torch.no_grad():
        model.ln_f.weight.zero_()
        model.ln_f.bias.copy_(model.wte.weight[token] * 1000)
    return str(models.save_hub_directory(model, directory))


def terminal(*args: str, **env: str) -> pexpect.spawn:
    environment = clean_environment() | {"TERM": "xterm-256color", "COLUMNS": "80"} | env
    return pexpect.spawn(
        sys.executable, ["-m", "gpt2cli", *args], env=environment, timeout=PATIENCE, dimensions=(24, 80)
    )


def assert_one_error(done: "subprocess.CompletedProcess[str]", code: int, *says: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    for words in says:
        assert words in done.stderr


def test_text_goes_to_stdout_and_all_else_to_stderr(run, directory):
    once = run("generate", "One day", "--model", directory, "-n", "12", "--seed", "0", "--stats")
    assert once.returncode == 0
    assert once.stdout.startswith("One day")
    assert "12 new tokens" in once.stderr
    assert "seed 0" in once.stderr
    again = run("generate", "One day", "--model", directory, "-n", "12", "--seed", "0", "--quiet", "--no-stream")
    assert (again.stdout, again.stderr) == (once.stdout, "")
    alone = run("generate", "-", "--model", directory, "-n", "12", "--seed", "0", "--no-echo", input="One day\n")
    assert "One day" + alone.stdout == once.stdout


def test_json_has_the_fields_of_the_contract(run, directory):
    done = run(
        "generate", "--model", directory, "-n", "9", "--seed", "4", "--num-samples", "2", "--json", input="One day"
    )
    samples = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(sample) for sample in samples] == [["prompt", "text", "tokens", "finish_reason", "seed", "stats"]] * 2
    stats = ["prompt_tokens", "new_tokens", "prefill_tok_s", "decode_tok_s", "load_s"]
    for number, sample in enumerate(samples):
        assert list(sample["stats"]) == stats
        assert all(value > 0 for value in sample["stats"].values())
        assert sample["prompt"] == "One day"
        assert tokenizer.decode(sample["tokens"]) == sample["text"]
        assert (len(sample["tokens"]), sample["finish_reason"], sample["seed"]) == (9, "length", 4 + number)


def test_parts_are_taken_out(run, directory):
    args = ("generate", "One day", "--model", directory, "-n", "9", "--seed", "4")
    whole = run(*args)
    without = run(*args, "--ablate", "1.2,mlp.0", "--ablate", "attn.1, mlp.0")
    assert without.stdout != whole.stdout
    assert without.stderr == "taken out of the model: 1.2, mlp.0, attn.1\n"
    told = json.loads(run(*args, "--ablate", "1.2,attn.1,mlp.0", "--json").stdout)
    assert told["ablated"] == ["1.2", "attn.1", "mlp.0"]
    assert "One day" + told["text"] + "\n" == without.stdout
    for names, says in (("2.0", "this model has layers 0 to 1"), ("1.3", "heads 0 to 2"), ("mlp.9", "layers 0 to 1")):
        assert_one_error(run(*args, "--ablate", names), 2, f"{names} is not there: ", says)
    for empty in ("", ",", "0.0,"):
        assert_one_error(run(*args, "--ablate", empty), 2, "empty")


def test_json_with_log_probabilities(run, directory):
    args = ("generate", "One day", "--model", directory, "-n", "9", "--seed", "4", "--num-samples", "2", "--json")
    plain, found, chosen = (run(*args, *more) for more in ((), ("--logprobs", "3"), ("--logprobs", "0")))
    for lines in zip(*(done.stdout.splitlines() for done in (plain, found, chosen)), strict=True):
        without, sample, alone = map(json.loads, lines)
        assert "logprobs" not in without
        assert (sample["text"], sample["tokens"]) == (without["text"], without["tokens"])
        assert [list(entry) for entry in sample["logprobs"]] == [["token", "id", "logprob", "top"]] * 9
        assert [entry["id"] for entry in sample["logprobs"]] == sample["tokens"]
        for entry, same in zip(sample["logprobs"], alone["logprobs"], strict=True):
            assert same == entry | {"top": []}
            assert tokenizer.show(entry["id"]) == entry["token"]
            assert entry["logprob"] < 0 and len(entry["top"]) == 3
            text, token, largest = entry["top"][0]
            assert text == tokenizer.show(token) and largest >= entry["logprob"]
    assert_one_error(run(*args[:-1], "--logprobs", "3"), 2, "--logprobs needs --json")
    assert_one_error(run(*args, "--logprobs", "101"), 2, "from 0 to 100")


def test_several_samples_are_told_apart(run, directory):
    done = run("generate", "One day", "--model", directory, "-n", "5", "--seed", "4", "--num-samples", "2")
    first, second = done.stdout.split("--- sample 2 of 2 ---\n")
    assert first.startswith("--- sample 1 of 2 ---\nOne day")
    assert second.startswith("One day")
    assert first.removeprefix("--- sample 1 of 2 ---\n") != second


def test_prompt_files_and_stop_texts(run, directory, tmp_path):
    (tmp_path / "prompt.txt").write_text("One day\n")
    args = ("generate", "--prompt-file", str(tmp_path / "prompt.txt"), "--model", directory, "--temp", "0", "--json")
    free = json.loads(run(*args, "-n", "20").stdout)
    stop = free["text"][10:15]
    stopped = json.loads(run(*args, "-n", "20", "--stop", "never there", "--stop", stop).stdout)
    assert stopped["finish_reason"] == "stop"
    assert stopped["text"] == free["text"][: free["text"].index(stop)]
    both = run("generate", "x", "--prompt-file", str(tmp_path / "prompt.txt"))
    assert_one_error(both, 2, "not both")


def test_a_stop_text_may_be_typed_with_escapes(run, tmp_path):
    directory = parrot(tmp_path, tokenizer.encode("\n")[0])
    for stop, reason in ((r"\n", "stop"), ("\n", "stop"), (r"\\n", "length"), (r"\t", "length")):
        done = run("generate", "x", "--model", directory, "-n", "3", "--stop", stop, "--json")
        assert json.loads(done.stdout)["finish_reason"] == reason


def test_json_is_ascii_in_any_locale_and_on_a_terminal(run, directory):
    args = ("generate", "caf\u00e9 \u009b \U0001f30d", "--model", directory, "-n", "2", "--seed", "0", "--json")
    for done in (run(*args), run(*args, encoding="ascii")):
        assert done.stdout.isascii()
        assert json.loads(done.stdout)["prompt"] == args[1]
    shown = screen(*args)
    assert shown.isascii()
    assert "\x1b" not in shown


@pytest.mark.slow
def test_json_is_ascii_in_a_process_without_unicode(run_process, directory):
    env = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    args = ("generate", "caf\u00e9 \u009b \U0001f30d", "--model", directory, "-n", "2", "--seed", "0", "--json")
    done = run_process(*args, env=env)
    assert done.stdout.isascii()
    assert json.loads(done.stdout)["prompt"] == args[1]


@pytest.mark.parametrize(
    "args",
    [
        *("--help >&-", "--help 2>&-", "--help <&-"),
        *(pytest.param(f"generate x {closing}", marks=pytest.mark.slow) for closing in (">&-", "2>&-", "<&-")),
        "generate x <&- >&- 2>&-",
    ],
)
def test_closed_streams_are_no_bug(home, directory, args):
    done = in_shell(args.replace("generate x", f"generate x --model {directory} -n 3 --stats"))
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's disk that is always full")
def test_a_full_disk_behind_a_stream(home, directory):
    for args, code in (
        ("download-weights --list 2>/dev/full", 0),
        ("generate x --temp=-1 2>/dev/full", 2),
        ("generate x --temp=-1 --debug 2>/dev/full", 2),
        ("generate x --temp=-1 2>&-", 2),
        ("--help >/dev/full", 6),
    ):
        done = in_shell(args)
        assert (args, done.returncode) == (args, code)
        assert "Traceback" not in done.stderr
    args, stderr = ("generate", "x", "--model", directory, "-n", "3", "--stats"), Pipe()
    with Path("/dev/full").open("wb", buffering=0) as full:
        notes = NotesStream(full, write_through=True)
        assert main(args, Environment(Pipe(), Pipe(), notes, os.environ)) == 0
        results = io.TextIOWrapper(full, write_through=True)
        assert main(args, Environment(Pipe(), results, stderr, os.environ)) == 6
    assert stderr.written() == "error: No space left on device: the standard output\n"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's disk that is always full")
@pytest.mark.parametrize(("stream", "code"), [("--stats 2>/dev/full", 0), (">/dev/full", 6)])
def test_a_process_on_a_full_disk(home, directory, stream, code):
    done = in_shell(f"generate x --model {directory} -n 3 {stream}")
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)


def in_shell(args):
    command = f"exec {sys.executable} -m gpt2cli {args}"
    return subprocess.run(
        command, shell=True, capture_output=True, text=True, env=clean_environment(), timeout=PATIENCE
    )


def test_ctrl_c_while_it_starts_is_quiet(tmp_path):
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    env = clean_environment() | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "gpt2cli", "--help"], capture_output=True, env=env, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_an_error_in_mid_text_has_a_line_of_its_own(home, tmp_path):
    model = models.small_model()
    with torch.no_grad():
        model.ln_f.weight.fill_(3e38)
    models.save_hub_directory(model, tmp_path)
    assert "One day\nerror: " in screen("generate", "One day", "--model", str(tmp_path), NO_COLOR="1")


def test_a_prompt_longer_than_the_window_keeps_its_end_and_generation_goes_on(run, directory):
    done = run("generate", "--model", directory, "-n", "50", "--json", input=" word" * 100)
    sample = json.loads(done.stdout)
    n_tokens = len(tokenizer.encode(" word" * 100))
    assert sample["stats"]["prompt_tokens"] == 37
    assert sample["stats"]["new_tokens"] == 50
    assert done.stderr.count("\n") == 1
    assert f"left out {n_tokens - 37} tokens at its beginning, kept the last 37" in done.stderr


def test_an_empty_prompt_starts_from_end_of_text(run, directory):
    args = ("--model", directory, "-n", "8", "--seed", "0", "--json")
    empty, special = (run("generate", prompt, *args) for prompt in ("", "<|endoftext|>"))
    assert json.loads(empty.stdout)["tokens"] == json.loads(special.stdout)["tokens"]
    assert json.loads(empty.stdout)["stats"]["prompt_tokens"] == 1
    assert (empty.stderr, special.stderr) == ("the prompt is empty: the text starts from <|endoftext|>\n", "")


@pytest.mark.parametrize(("raw", "offset"), [(b"abc\xff", 3), (b"\xed\xa0\x80", 0), ("é".encode() + b"\xc3", 2)])
def test_prompts_that_are_no_utf8_are_refused_with_the_byte(run, raw, offset, directory):
    piped = run("generate", "--model", directory, input=raw)
    assert_one_error(piped, 3, f"stdin is not valid UTF-8 at byte {offset}")
    assert_one_error(run("generate", "--model", directory, os.fsdecode(raw)), 3, f"at byte {offset}")


@pytest.mark.parametrize(
    ("raw", "offset"),
    [
        (b"abc\xff", 3),
        pytest.param(b"\xed\xa0\x80", 0, marks=pytest.mark.slow),
        pytest.param("\u00e9".encode() + b"\xc3", 2, marks=pytest.mark.slow),
    ],
)
def test_a_process_decodes_its_arguments_and_its_stdin(home, directory, raw, offset):
    command = [sys.executable, "-m", "gpt2cli", "generate", "--model", directory]
    piped = subprocess.run(command, input=raw, capture_output=True, env=clean_environment())
    typed = subprocess.run([*command, raw], capture_output=True, env=clean_environment())
    assert f"stdin is not valid UTF-8 at byte {offset}".encode() in piped.stderr
    for done in (piped, typed):
        assert (done.returncode, done.stdout) == (3, b"")
        assert f"at byte {offset}".encode() in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        *("--temp nan", "--temp -1", "--top-p 0", "--top-p 1.1", "--top-k -1", "-n -1", "--temp hot", "--wrong"),
        *("--threads 100000000", "--num-samples 100001", "--repetition-penalty 0"),
    ],
)
def test_options_out_of_range_are_usage_errors(run, wrong):
    done = run("generate", "x", *wrong.split())
    assert_one_error(done, 2, wrong.split()[0], "generate --help`")


@pytest.mark.parametrize("model", ["", "./nosuch", "/nosuch/model", "~nosuch/model", "nosuch"])
def test_models_that_are_not_there_are_usage_errors(run, home, model):
    assert_one_error(run("generate", "x", "--model", model), 2)
    assert not home.exists()


def test_a_prompt_that_looks_like_an_option(run, directory):
    assert_one_error(run("generate", "--wrong", "--model", directory), 2, "put `--` before a prompt")
    done = run("generate", "--model", directory, "-n", "2", "--", "--debug")
    assert done.stdout.startswith("--debug")
    failed = run("generate", "--device", "abacus", "--", "--debug")
    assert_one_error(failed, 2, "abacus")


def test_logits_that_are_not_finite_end_with_7(run, tmp_path):
    model = models.small_model()
    with torch.no_grad():
        model.ln_f.weight.fill_(3e38)
    models.save_hub_directory(model, tmp_path)
    done = run("generate", "One day", "--model", str(tmp_path), "--no-echo")
    assert_one_error(done, 7, "not finite at token 2")


@pytest.mark.parametrize("what", ["\x1b", "\r", "\x85", "\u202e", "\u2066"])
def test_controls_are_shown_on_a_terminal_and_raw_in_a_pipe(run, tmp_path, what):
    token = tokenizer.encode(what)[-1] if what < "\x80" else None
    shown = f"\\x{ord(what):02x}" if what < "\x80" or what == "\x85" else f"\\u{ord(what):04x}"
    if token is None:  # these are several tokens: they come with the prompt
        directory, prompt = parrot(tmp_path, tokenizer.encode("a")[0]), what
    else:
        directory, prompt = parrot(tmp_path, token), "x"
    args = ("generate", prompt, "--model", directory, "-n", "2")
    assert what in run(*args).stdout
    on_screen = screen(*args)
    assert shown in on_screen
    assert what not in on_screen.replace("\x1b[1m", "").replace("\x1b[0m", "")


def test_words_stay_whole_on_a_terminal_and_a_pipe_gets_the_text_as_it_is(run, tmp_path):
    directory = parrot(tmp_path, tokenizer.encode(" anyway")[0])
    args = ("generate", "So", "--model", directory, "-n", "30")
    text = "So" + " anyway" * 30
    assert run(*args).stdout == text + "\n"
    lines = screen(*args, NO_COLOR="1", COLUMNS="40").split("\n")
    assert {word for line in lines for word in line.split()} == {"So", "anyway"} and max(map(len, lines)) <= 40
    assert "".join(lines) == text


@pytest.mark.parametrize(
    ("says", "options", "reason"),
    [(tokenizer.END_OF_TEXT, (), "the model ended the text at once"), ("a", ("--stop", "a"), "a stop text came first")],
)
def test_a_text_that_is_empty_has_a_note_that_says_why(run, tmp_path, says, options, reason):
    directory = parrot(tmp_path, tokenizer.encode(says)[0])
    done = run("generate", "x", "--model", directory, "-n", "3", *options)
    assert (done.stdout, done.stderr) == ("x\n", f"nothing was generated: {reason}\n")
    assert run("generate", "x", "--model", directory, "-n", "3", "--json", *options).stderr == ""


def test_a_dangling_character_is_one_replacement_character(run, tmp_path):
    first_byte = tokenizer.encode("🌍")[0]
    directory = parrot(tmp_path, first_byte)
    done = run("generate", "x", "--model", directory, "-n", "1", "--no-echo")
    assert done.stdout.strip() == "\ufffd"


def test_a_locale_without_unicode_is_no_error(run_process, directory):
    env = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = run_process("generate", "café 🌍", "--model", directory, "-n", "9", env=env)
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert done.stdout.startswith("caf\\xe9 \\U0001f30d")


def test_markup_is_printed_as_it_is(run, directory):
    prompt = "[bold]x[/bold] [/x] :smile: [link=a]b"
    args = ("generate", prompt, "--model", directory, "-n", "1", "--seed", "0")
    assert run(*args).stdout.startswith(prompt)
    child = terminal(*args)
    child.expect_exact(prompt)
    child.read()
    assert child.wait() == 0
    assert screen(*args, NO_COLOR="1").startswith(prompt)


def start_long_generation(directory: str) -> "subprocess.Popen[bytes]":
    """A process that has begun to write a long text."""
    command = [sys.executable, "-m", "gpt2cli", "generate", "x", "--model", directory, "-n", "1000000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment())
    assert process.stdout and process.stdout.read(30)
    return process


def test_a_closed_pipe_ends_it_quietly(directory):
    process = start_long_generation(directory)
    process.stdout.close()
    assert process.wait(timeout=PATIENCE) == 141
    assert process.stderr.read() == b""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_quietly(home, directory, number, code):
    stdout, stderr = Pipe(), Pipe()
    with signal_when(lambda: len(stdout.written()) > 30, number):
        args = ("generate", "x", "--model", directory, "-n", "1000000")
        assert main(args, Environment(Pipe(), stdout, stderr, os.environ)) == code
    assert stderr.written() == ""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_process_quietly(directory, number, code):
    process = start_long_generation(directory)
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (code, b"")


def test_text_is_streamed(directory):
    child = terminal("generate", "Hello", "--model", directory, "-n", "2000000")
    child.expect_exact("Hello")
    size = len(child.read_nonblocking(100_000, timeout=PATIENCE))
    assert size > 0
    time.sleep(0.5)
    assert len(child.read_nonblocking(100_000, timeout=PATIENCE)) > 0
    child.sendintr()
    child.read()
    child.wait()
    assert child.exitstatus == 130


def test_a_device_that_is_not_there_is_refused(run, directory):
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    done = run("generate", "x", "--model", directory, "--device", missing)
    assert_one_error(done, 2, f"device '{missing}' is not there", "this machine has:", "cpu")


def test_out_of_memory_is_6(home, tmp_path):
    directory = models.save_hub_directory(models.small_model(GPTConfig(1, 1, 8, 8)), tmp_path)  # of a small cache
    command = [sys.executable, "-m", "gpt2cli", "generate", "x", "--model", str(directory), "--num-samples", "30000"]
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (5 * 2**30, 5 * 2**30))  # noqa: E731
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), preexec_fn=limit)
    assert (done.returncode, done.stderr.count("\n")) == (6, 1)
    assert "error: out of memory" in done.stderr


def test_a_file_that_is_no_checkpoint_is_4(run, tmp_path):
    (tmp_path / "a\x1b[2J.safetensors").write_bytes(b"<html>")
    assert_one_error(run("generate", "x", "--ckpt", str(tmp_path / "a\x1b[2J.safetensors")), 4, "HTML", "\\x1b[2J")
    assert_one_error(run("generate", "x", "--ckpt", str(tmp_path / "missing.pt")), 4, "is not there")


def test_a_checkpoint_file_gives_the_text_of_its_model(run, directory, tmp_path):
    torch.save(models.our_checkpoint(models.small_model()), tmp_path / "a.pt")
    args = ("generate", "One day", "-n", "9", "--temp", "0")
    by_file = run(*args, "--ckpt", str(tmp_path / "a.pt"))
    assert by_file.returncode == 0
    assert by_file.stdout == run(*args, "--model", directory).stdout
    assert_one_error(run(*args, "--ckpt", str(tmp_path / "a.pt"), "--model", directory), 2, "only if --ckpt is")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precisions_write_too(run, directory, precision):
    done = run(
        "generate", "One day", "--model", directory, "-n", "9", "--precision", precision, "--threads", "1", "--json"
    )
    assert len(json.loads(done.stdout)["tokens"]) == 9


def test_a_prompt_file_that_is_not_there_is_3(run, directory, tmp_path):
    for file in (tmp_path / "missing.txt", tmp_path):
        done = run("generate", "--prompt-file", str(file), "--model", directory)
        assert_one_error(done, 3, f"cannot read {file}", "--prompt-file")


def test_line_ends_of_windows_and_byte_order_marks_are_no_part_of_a_prompt(directory, tmp_path):
    plain = b"One day\nor two"
    for content in (plain, plain + b"\n", b"\xef\xbb\xbfOne day\r\nor two\r\n"):
        (tmp_path / "prompt.txt").write_bytes(content)
        assert read_prompt(None, tmp_path / "prompt.txt") == plain.decode()
        assert decode(content, "stdin") == plain.decode()
    assert decode(b"a\r\n\r\n\n", "stdin") == "a\n\n"  # one line end of several
    assert decode(b"\xef\xbb\xbf\xef\xbb\xbfa\rb", "stdin") == "\ufeffa\rb"
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        with pytest.raises(DataError, match="stdin looks like UTF-16"):
            decode("Once upon".encode(encoding), "stdin")
    assert decode(b"a\0b\0\0", "stdin") == "a\0b\0\0"
    with pytest.raises(DataError, match="at byte 4"):
        decode(b"\xef\xbb\xbfa\xff", "stdin")


def test_a_prompt_from_a_pipe_has_no_line_ends_of_windows(run, directory):
    done = run("generate", "--model", directory, "-n", "1", "--json", input="\ufeffOne\r\nday\r\n")
    assert json.loads(done.stdout)["prompt"] == "One\nday"


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a file without an end")
def test_a_file_without_an_end_is_no_prompt(directory, run):
    assert_one_error(run("generate", "--prompt-file", "/dev/zero", "--model", directory), 3, "longer than 64 MB")
    assert_one_error(in_shell(f"generate --model {directory} </dev/zero"), 3, "stdin is longer than 64 MB")


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000, "two\nlines", "esc\x1b[31m", "a\x00b", "\ud800"])
def test_names_that_no_file_has_are_usage_errors(name, tmp_path):
    with pytest.raises(UsageError, match="cannot be the name of a file") as caught:
        read_prompt(None, tmp_path / name)
    assert len(str(caught.value)) < 300


def test_a_prompt_of_a_million_blanks(run, directory):
    done = run("generate", "--model", directory, "-n", "1", "--no-echo", input=" " * 1_100_000 + "x")
    assert done.returncode == 0 and "the prompt is too long" in done.stderr


def test_an_error_shows_its_traceback_with_debug_and_keeps_its_code(run):
    done = run("generate", "x", "--device", "abacus", "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: device 'abacus' is not there")


def test_help_and_version_import_no_torch():
    code = (
        "import sys; sys.argv = ['gpt2', {!r}]; from gpt2cli.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert {!r}.isdisjoint(sys.modules)"
    )
    needless = {"torch", "huggingface_hub"}
    for option, modules in (("--help", needless), ("--version", needless | {"rich.markdown"})):
        done = subprocess.run([sys.executable, "-c", code.format(option, modules)], capture_output=True)
        assert done.returncode == 0, done.stderr


def test_help_is_grouped_and_has_examples(run):
    top = run("--help")
    assert "download-weights" in top.stdout
    page = run("generate", "--help").stdout
    for group in ("Sampling", "Output", "Model", "Machine", "Examples"):
        assert group in page
    assert run().stdout == top.stdout
    assert "\x1b" in screen("--help")
    assert "\x1b" not in screen("--help", NO_COLOR="1")


@pytest.mark.parametrize("command", [("generate", "x"), ("finetune", "--data", "lessons")])
def test_a_name_that_no_file_can_have_is_2(run, command):
    for option in ("--ckpt", "--model"):
        done = run(*command, option, "a" * 300)
        assert_one_error(done, 2, "error: 'aaa", "cannot be the name of a file")
        assert len(done.stderr) < 500
    assert_one_error(run(*command, "--ckpt", "/dev/zero"), 4, "is not an ordinary file")
