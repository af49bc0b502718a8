"""Tasks for lm-evaluation-harness that need no network, its runs as processes, and the comparison of two runs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gpt2cli.paths import asset
from gpt2cli.prompts import PromptTemplate
from gpt2cli.tokenizer import END_OF_TEXT

ROOT = Path(__file__).parent.parent
BOUND = 1e-4
"""The largest difference of two log-likelihoods."""
SHORT, LONG = ["choices", "responses", "texts", "answers"], ["long_choices", "long_texts"]
"""Tasks. The contexts and texts of `LONG` are longer than the window of `tiny`."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PYTHONPATH": str(ROOT)}


class Comparison(NamedTuple):
    """So many numbers or texts, and the largest difference of them, or the number of those that differ."""

    name: str
    count: int
    difference: float
    bound: float = 0.0

    @property
    def fails(self) -> bool:
        return not self.count or not self.difference <= self.bound


@dataclass
class Run:
    """What lm-eval found: the answer to each request, by task, and the metrics of each task."""

    answers: dict[str, list[Any]]
    metrics: dict[str, dict[str, float]]

    def likelihoods(self, task: str) -> list[tuple[float, str]]:
        """The log-likelihoods, and whether they are of greedy decoding, which is empty for whole texts."""
        return [(float(a[0]), str(a[1])) if isinstance(a, list) else (float(a), "") for a in self.answers[task]]


def output_of(command: list[str], **variables: str) -> str:
    """The standard output of a command, which gets no network. Ends this script if the command fails."""
    environment = os.environ | OFFLINE | variables
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout


def run_lm_eval(directory: Path, name: str, model: str, arguments: str, tasks: list[str], *options: str) -> Run:
    """Run lm-eval on tasks in `directory`, which gets its results too."""
    module = "gpt2cli.evaluation.lm_harness" if model == "gpt2cli" else "lm_eval"
    out = directory / "out" / name
    chosen = ["--model", model, "--model_args", arguments, "--tasks", ",".join(tasks), *options]
    places = ["--include_path", str(directory), "--output_path", str(out), "--log_samples"]
    output_of([sys.executable, "-m", module, "run", *chosen, *places], HF_HOME=str(directory / "hf-home"))
    [results] = out.rglob("results_*.json")
    answers = {}
    for task in tasks:
        [samples] = out.rglob(f"samples_{task}_*.jsonl")
        found = sorted(map(json.loads, samples.read_text().splitlines()), key=lambda sample: sample["doc_id"])
        answers[task] = [answer[0] for sample in found for answer in sample["resps"]]
    return Run(answers, json.loads(results.read_text())["results"])


def compare(name: str, ours: Run, theirs: Run) -> Iterator[Comparison]:
    """Compare all answers and metrics of the tasks of `theirs`."""
    for task, answers in theirs.answers.items():
        if task == "answers":  # a server for chats strips them
            pairs = zip(ours.answers[task], answers, strict=True)
            yield Comparison(f"{name}, {task}", len(answers), sum(a.strip() != b.strip() for a, b in pairs))
            continue
        numbers = [*zip(ours.likelihoods(task), theirs.likelihoods(task), strict=True)]
        yield Comparison(f"{name}, {task}", len(numbers), max(abs(a - b) for (a, _), (b, _) in numbers), BOUND)
        yield Comparison(f"{name}, {task}: greedy or not", len(numbers), sum(a != b for (_, a), (_, b) in numbers))
        metrics = [key for key in ours.metrics[task] if key.endswith(",none") and "stderr" not in key]
        values = [(ours.metrics[task][key], theirs.metrics[task][key]) for key in metrics]
        differences = [abs(a - b) / max(1, abs(a)) for a, b in values]
        yield Comparison(
            f"{name}, {task}: {', '.join(metrics).replace(',none', '')}", len(metrics), max(differences), BOUND
        )


def write_tasks(directory: Path, template: PromptTemplate) -> None:
    """Write the tasks of lm-eval. The choices and the responses are in the template, the questions are not.

    The same responses and texts are in records.jsonl and plain/, for `gpt2 evaluate`. lm-eval takes the blank space at
    the end of a prompt for the beginning of the response. So the task `responses` has it as further responses.
    """
    lines = asset("lessons.jsonl").read_text(encoding="utf-8").splitlines()[::30]
    records = [{"input": ""} | json.loads(line) for line in lines]
    prompts = [template.prompt(record["instruction"], record["input"]) for record in records]
    outputs = [record["output"] for record in records]
    tale = " ".join(outputs)
    texts = [*(tale[start : start + 300].strip() for start in range(0, len(tale), 300)), "日本 “naïve” — é"]
    long = [tale * n for n in (4, 6)]

    choices = [
        {"context": prompt, "choices": [*outputs[i:], *outputs[:i]][:4], "gold": 0} for i, prompt in enumerate(prompts)
    ]
    choices += [
        {"context": "", "choices": ["Once upon a time", "The", "xyz 日本"], "gold": 0},
        {"context": "The answer is  ", "choices": ["yes", "no"], "gold": 1},
        {"context": "naïve “café”\n", "choices": ["a", "b", END_OF_TEXT], "gold": 2},
    ]
    long_choices = [{"context": text, "choices": outputs[:3], "gold": 0} for text in long]
    ends = [(prompt.rstrip(), prompt[len(prompt.rstrip()) :]) for prompt in prompts]
    responses = [{"context": a, "target": b + END_OF_TEXT} for a, b in zip(prompts, outputs, strict=True)]
    responses += [{"context": prompt, "target": blank} for prompt, blank in ends if blank]
    questions = [{"context": record["instruction"], "target": record["output"]} for record in records]
    chosen = {"doc_to_choice": "choices", "doc_to_target": "gold"}
    whole = {"doc_to_text": "", "doc_to_target": "{{text}}"}
    greedy = {"generation_kwargs": {"until": ["\n\n"], "do_sample": False, "max_gen_toks": 24}}
    for name, documents in {"choices": choices, "long_choices": long_choices}.items():
        _write_task(directory, name, "multiple_choice", documents, ["acc", "acc_norm"], chosen)
    for name, plain in {"texts": texts, "long_texts": long}.items():
        metrics = ["word_perplexity", "bits_per_byte"]
        _write_task(directory, name, "loglikelihood_rolling", [{"text": text} for text in plain], metrics, whole)
    _write_task(directory, "responses", "loglikelihood", responses, ["perplexity", "acc"], {})
    _write_task(directory, "answers", "generate_until", questions, ["exact_match"], greedy)
    (directory / "records.jsonl").write_text(_lines(records))
    (directory / "plain").mkdir()
    for i, text in enumerate(texts):
        (directory / "plain" / f"{i}.txt").write_text(text, encoding="utf-8")


def _write_task(
    directory: Path, name: str, kind: str, documents: list[dict[str, Any]], metrics: list[str], fields: dict[str, Any]
) -> None:
    data = directory / f"{name}.jsonl"
    data.write_text(_lines(documents))
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "output_type": kind,
        "test_split": "test",
        "doc_to_text": "{{context}}",
        "doc_to_target": "{{target}}",
        "target_delimiter": "",
        "metric_list": [{"metric": metric} for metric in metrics],
    }
    (directory / f"{name}.yaml").write_text(json.dumps(task | fields))  # JSON is YAML


def _lines(values: list[Any]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)
