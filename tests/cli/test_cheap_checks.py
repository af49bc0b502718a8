"""Wrong commands are refused at once: before torch and other libraries that take long to import."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runner import PATIENCE, Completed, clean_environment, run_here

SLOW = ("torch", "llvmlite", "numpy", "huggingface_hub", "pydantic", "safetensors", "tiktoken", "starlette")
ALL_IN_ONE_PROCESS = f"""
import json, sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {SLOW!r}:
            raise ImportError(f"{{name}} is imported")

sys.meta_path.insert(0, Refused())
import io, os
from gpt2cli.cli.main import main
from gpt2cli.cli.environment import Environment

results = []
for arguments in json.load(sys.stdin):
    streams = [io.StringIO(), io.StringIO(), io.StringIO()]
    streams[0].isatty = lambda: True
    code = main(arguments, Environment(*streams, os.environ))
    results.append([code, streams[2].getvalue()])
json.dump(results, sys.stdout)
"""
WRONG = {
    # models
    "generate x --model tinny": "'tinny' is not a model: did you mean tiny?",
    "generate x --model ./nowhere": "there is no directory ./nowhere",
    "generate x --model empty": "empty holds no config.json",
    "generate x --model bert": "bert/config.json: model_type is 'bert', and only 'gpt2' is GPT-2",
    "generate x --model pickled": "pickled has its weights in a pickle only",
    "generate x --model peft": "peft holds an adapter: give it as --ckpt",
    "generate x --model text.pt": "text.pt is a file: give it as --ckpt",
    "chat --model GPT-2": "did you mean gpt2?",
    "bench --model gpt2xl": "did you mean gpt2-xl?",
    "info --model tinny": "'tinny' is not a model: did you mean tiny?",
    "info --model peft": "peft holds an adapter: give it as --ckpt",
    "info --bench": "--bench measures a model: name it with --model or --ckpt",
    "download-weights tinny": "did you mean tiny?",
    "download-weights gpt2 --revision ..": "'..' is not a revision",
    "download-weights --remove gpt2": "gpt2 is not on disk",
    # checkpoints
    "generate x --ckpt nope.pt": "nope.pt is not there: check the name",
    "generate x --ckpt tex.pt": "tex.pt is not there: did you mean text.pt?",
    "chat --ckpt text.pt": "text.pt is not a checkpoint; looks like text",
    "bench --ckpt picture.pt": "picture.pt is not a checkpoint; looks like unknown binary data",
    "info --ckpt nope.pt": "nope.pt is not there: check the name",
    "info --ckpt cut.safetensors": "cut.safetensors is truncated",
    "evaluate --ckpt cut.safetensors": "cut.safetensors is truncated",
    "finetune --ckpt empty": "empty is a directory: give it as --model",
    "finetune --ckpt peft": "peft holds no adapter_model.safetensors",
    "quantize --ckpt nope.pt --bits 8 --out q.safetensors": "nope.pt is not there",
    "export --ckpt nope.pt --format hf --out out": "nope.pt is not there",
    "evaluate --model tiny --ckpt nope.pt": "nope.pt is not there",
    "generate x --model tiny --ckpt text.pt": "--model goes with --ckpt only if",
    # data
    "finetune --model tiny --data lesson": "did you mean lessons?",
    "finetune --model tiny --data text.pt": "text.pt is not a known data format",
    "finetune --model tiny --data empty": "holds neither a prepared dataset nor .txt files",
    "finetune --model tiny --data hf:quiz/train.csv": "names no file of a dataset: write hf:owner/name",
    "finetune --model tiny --data https://example.org/a.json?key=1": "is given with a query",
    "evaluate --model tiny --data hf://owner/quiz/a.csv": "did you mean hf:owner/quiz/a.csv?",
    "evaluate --model tiny --data hf:owner/quiz/a.parquet": "does not name a file of data",
    "prepare-alpaca --source hf:owner/quiz": "names no file of a dataset",
    "prepare-alpaca --source empty": "empty is not an ordinary file: give cleaned, original, hf:owner",
    "evaluate --model tiny --data nope.json": "nope.json is not there",
    "evaluate --answers-from nope.json": "nope.json is not there: give --answers-from",
    "prepare-alpaca --source nope.json": "nope.json is not there",
    "prepare-alpaca --source http://example.org/x.json": "only https is allowed",
    "generate --model tiny --prompt-file nope.txt": "cannot read nope.txt",
    # places
    "finetune --model tiny --data lessons --out x.bin": "x.bin is no name for a checkpoint: let it end in .pt",
    "finetune --model tiny --data lessons --out no/x.pt": "make it first",
    "finetune --model tiny --data lessons --run-dir run": "run holds a run already",
    "finetune --resume": "there is no run to resume",
    "finetune --resume empty": "empty holds no run",
    "quantize --model tiny --bits 8 --out q.pt": "let it end in .safetensors",
    "quantize --model tiny --bits 8 --out cut.safetensors": "use --force to replace it",
    "quantize --ckpt cut.safetensors --bits 8 --out cut.safetensors --force": "is the model to quantize",
    "export --model tiny --format gguf --out out.pt": "let it end in .gguf",
    "export --model tiny --format hf --out empty/../text.pt": "is a file, and hf is a directory",
    "evaluate --model tiny --out report.txt": "let it end in .html or .json",
    "prepare-alpaca --out text.pt": "text.pt is a file: give --out a directory",
    # settings
    "finetune --config setting.json": "setting.json is not there: did you mean settings.json?",
    "finetune --config empty": "empty holds no run: it has no config.json",
    "finetune --config text.pt": "text.pt holds no settings (invalid at line 1, column 1)",
    "finetune --config settings.json": "settings.json: there is no setting train.learning_rat: did you mean "
    "train.learning_rate?",
    "finetune --config rate.json": "rate.json: train.learning_rate must be a finite number above 0, not -1",
    "finetune --config typo.json": "did you mean lessons?",
    "finetune --config typo.json --data lessons --model tinny": "did you mean tiny?",
    "finetune --config settings.json --resume": "--config is for a new run",
    # values
    "quantize --model tiny --bits 5 --out q.safetensors": "--bits must be 8 or 4, not 5",
    "export --model tiny --format onnx --out out": "did you mean hf, which Optimum converts to ONNX?",
    "export --model tiny --format llama.cpp --out out": "did you mean gguf?",
    "export --model tiny --format peft --dtype f16 --out out": "--dtype f16 is not for --format peft",
    "generate x --model tiny --device gpu": "did you mean cuda?",
    "chat --model tiny --template alpca": "there is no template 'alpca': did you mean alpaca?",
    "generate x --precision 8bit": "did you mean int8?",
    "generate x --threads 0": "--threads must be a whole number from 1 to 1,024, not '0'",
    "chat --turns -1": "--turns must be a whole number, 0 or more, not '-1'",
    "generate x --top-p high": "--top-p must be a number, not 'high'",
    "evaluate --split dev": "did you mean val?",
    "finetune --schedule cos": "did you mean cosine?",
    "finetune --optimizer adam": "did you mean adamw?",
    "finetune --cooldown 0.2": "--cooldown has no effect on another schedule: add --schedule wsd",
    "finetune --schedule wsd --cooldown 0": "--cooldown must be above 0 and at most 1, not 0",
    "generate x --model tiny --ablate 9.6,mlp": "'mlp' names no part of a model: write 9.6 (layer.head), attn.9",
    "generate x --model tiny --ablate ,": "an empty name names no part of a model",
    "generate x --model tiny --logprobs 5": "--logprobs needs --json, which prints them: add --json",
    "generate x --model tiny --json --logprobs -1": "--logprobs must be a whole number from 0 to 100, not '-1'",
    "explain x --model tiny --parts lense": "--parts has no 'lense': did you mean lens?",
    "explain x --parts patching": "patching needs --against TEXT",
    "explain x --against y --parts lens": "--against is for patching",
    "explain x --model tinny": "did you mean tiny?",
    "explain x --model tiny --ckpt nope.pt": "nope.pt is not there",
    "explain x --model tiny --ckpt text.pt --ckpt text.pt": "explain compares two models, and 3 are given",
    "explain x --model tiny --out page.txt": "let it end in .html or .json",
    "explain x --model tiny --out rate.json": "use --force to replace it",
    "explain x --model tiny --prompt-file rate.json": "give the prompt as an argument or as --prompt-file, not both",
    "explain x --ablate 9,6": "'9' names no part of a model",
    "explain x --top 0": "--top must be from 1 to 1,000, not 0",
    "explain x --ablation noise": "--ablation must be zero or mean, not 'noise'",
    "explain x --precision int8": "there is no option --precision",
    "serve --host 0.0.0.0": "set a key with --api-key-file or GPT2CLI_API_KEY",
    "serve --host ::": "set a key with --api-key-file",
    "serve --port -1": "--port must be from 0 to 65,535, not -1",
    "serve --slots 2000": "--slots must be from 1 to 1,024, not 2000",
    "serve --cors-origin *": "name the origin of each page",
    "serve --cors-origin localhost:3000": "is not an origin",
    "serve --api-key-file nope.txt": "nope.txt",
    "serve --api-key-file blank.txt": "blank.txt holds no key",
    "serve --model tinny": "did you mean tiny?",
    "serve --ckpt nope.pt": "nope.pt is not there",
    "serve --model tiny --device gpu": "did you mean cuda?",
    "serve --top-k 3": "there is no option --top-k",
    "generate x --temperature 1": "there is no option --temperature: did you mean --temp?",
    "chat": "there is no finetuned.pt here",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with files and directories of the wrong kinds."""
    here = tmp_path_factory.mktemp("wrong")
    for name in ("empty", "bert", "pickled", "peft", "run"):
        (here / name).mkdir()
    (here / "text.pt").write_text("once upon a time")
    (here / "picture.pt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(128, 256)))
    header = json.dumps({"wte.weight": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}}).encode()
    (here / "cut.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(32))
    (here / "bert" / "config.json").write_text('{"model_type": "bert"}')
    (here / "pickled" / "config.json").write_text('{"model_type": "gpt2"}')
    (here / "pickled" / "pytorch_model.bin").touch()
    (here / "peft" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8, "lora_alpha": 8}')
    (here / "run" / "config.json").write_text("{}")
    (here / "settings.json").write_text('{"train": {"learning_rat": 1e-4}}')
    (here / "rate.json").write_text('{"train": {"learning_rate": -1}}')
    (here / "blank.txt").write_text(" \n")
    (here / "typo.json").write_text('{"data": "lesson"}')
    return here


@pytest.fixture(scope="module")
def refused(place: Path) -> dict[str, Completed]:
    """What each wrong command prints, in a process that cannot import the slow libraries."""
    done = subprocess.run(
        [sys.executable, "-c", ALL_IN_ONE_PROCESS],
        input=json.dumps([line.split() for line in WRONG]),
        capture_output=True,
        text=True,
        cwd=place,
        env=clean_environment() | {"GPT2CLI_HOME": str(place / "home")},
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    return {line: Completed(line, code, "", said) for line, (code, said) in zip(WRONG, results, strict=True)}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_is_refused_without_torch(
    line: str, place: Path, refused: dict[str, Completed], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = refused[line]
    assert WRONG[line] in at_once.stderr
    assert at_once.stderr.startswith("error: ") and at_once.stderr.count("\n") == 1
    assert at_once.returncode in (2, 3, 4, 6)
    monkeypatch.chdir(place)
    monkeypatch.setenv("GPT2CLI_HOME", str(place / "home"))
    if line != "chat" and not line.startswith("evaluate --answers-from"):  # whose stdin is a terminal above
        usual = run_here(*line.split())
        assert (usual.returncode, usual.stderr) == (at_once.returncode, at_once.stderr)


def test_a_file_that_is_refused_is_not_changed(place: Path, refused: dict[str, Completed]) -> None:
    assert refused and (place / "text.pt").read_text() == "once upon a time"
    assert not {path.name for path in place.iterdir()} & {"out", "q.safetensors", "no", "x.bin", "report.txt"}


NAME_IMPORTED = """
import io, json, os, sys
from gpt2cli.cli.environment import Environment
from gpt2cli.cli.main import main

code = main(sys.argv[1:], Environment(io.StringIO(), io.StringIO(), io.StringIO(), os.environ))
json.dump([code, sorted(sys.modules)], sys.stdout)
"""


def imported_by(line: str) -> set[str]:
    """The modules that a process has imported after this command line, which must succeed."""
    arguments = [sys.executable, "-c", NAME_IMPORTED, *line.split()]
    done = subprocess.run(arguments, capture_output=True, text=True, env=clean_environment(), timeout=PATIENCE)
    code, modules = json.loads(done.stdout)
    assert code == 0, done.stderr
    return set(modules)


def test_the_version_is_printed_without_a_command_line_library() -> None:
    assert not {"typer", "rich", "gpt2cli.config"} & imported_by("--version")


@pytest.mark.parametrize("line", ["--help", "help", "generate --help"])
def test_a_help_page_imports_no_other_command(line: str) -> None:
    modules = imported_by(line)
    commands = {name for name in modules if name.startswith("gpt2cli.cli.commands.")}
    assert commands == ({"gpt2cli.cli.commands.generate"} if line.startswith("generate") else set())
    assert not {"rich.console", *SLOW} & modules


RUNS = ("generate Once --model tiny -n 2 --seed 1", "chat --quiet --prompt Hi --model tiny -n 2 --seed 1")


@pytest.mark.parametrize("line", RUNS)
def test_a_run_imports_only_what_it_needs(line: str, home: Path) -> None:
    unneeded = {"rich.console", "rich.progress", "prompt_toolkit", "pydantic", "huggingface_hub", "wandb"}
    assert unneeded & imported_by(line) == set()


@pytest.mark.parametrize("line", [*RUNS, "bench --model tiny --prompt-tokens 2 -n 2 --repeats 1 --json"])
def test_a_run_on_a_cpu_does_not_import_torch(line: str, home: Path) -> None:
    first, second = (imported_by(f"{line} --device cpu") for _ in range(2))
    assert {"torch", "safetensors", "asyncio"} & first == set()
    assert {"torch", "safetensors", "asyncio", "filelock"} & second == set()  # the weights are packed already
