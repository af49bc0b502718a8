"""How fast models are trained in bf16, beside the Hugging Face Trainer.

Tokens a second count the records' own tokens and no padding, over the steps after those that warm up: from the end of
the last of these to the end of the last step, the device being waited for at both. The operations of a token are, as in
PaLM's appendix B with causal attention counted half,

    full  6 N + 6 L C T + 6 V C s        LoRA  4 N + 6 A + 6 L C T + 4 V C s

for blocks with N weights, an adapter with A, sequences of T tokens (12 L C T / 2), and a share s of tokens that are
predicted. T is the mean length weighted by the tokens: each token's share in the mean square of lengths. Gradients of
frozen matrices by themselves are not computed, so 2 N and 2 V C of the backward pass are left out. The same count holds
for the peer, whatever it computes besides.
"""

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from gpt2cli.config import DataConfig, GPTConfig, LoRAConfig, TrainConfig
from gpt2cli.data.dataset import TokenDataset, empty, from_sequences
from gpt2cli.data.open_data import load_data
from gpt2cli.data.splits import Splits
from gpt2cli.model.gpt import GPT
from gpt2cli.training import inputs, job
from gpt2cli.training.distributed import Ranks
from gpt2cli.training.engine import train
from gpt2cli.training.events import Step
from gpt2cli.training.settings import Settings
from tests.gpu.card import DATASHEET_BF16, matmul_rate
from tests.gpu.common import Context, random_ids, write_records
from tests.gpu.speed_decode import hf_model

STEPS, WARM_UP = 15, 5
RANK = 16
BATCHES = {
    ("text", "124m"): (16, 32),
    ("text", "1.5b"): (8,),
    ("records", "124m"): (8, 64),
    ("records", "1.5b"): (8,),
}


def ours(context: Context, size: str, data: str, lora: bool, compiled: bool) -> None:
    """The engine over a few steps, for each batch size, as it comes or with `--compile`."""
    rate = matmul_rate(context)
    config = context.shape(size)
    splits = text_splits(context, config) if data == "text" else record_splits(context, config)
    sizes = batches(context, data, size)
    model = make_model(context, make_settings(config, sizes[0], lora))
    for batch in sizes:
        with context.each(f"ours-{batch}"):
            model.zero_grad(set_to_none=True)  # of a step that did not fit
            context.reset_peak()
            settings = make_settings(config, batch, lora)
            timed = time_steps(context, events(settings, model, splits, compiled))
            report(context, f"ours-{batch}", timed, config, splits.train, rate, lora)


def batches(context: Context, data: str, size: str) -> tuple[int, ...]:
    return context.pick(BATCHES[data, size], (2, 4))


def make_settings(config: GPTConfig, batch: int, lora: bool) -> Settings:
    """A run that does nothing but take steps, with the defaults otherwise."""
    never = {"eval_every": 0, "sample_every": 0, "save_every": 0}
    run = TrainConfig(max_steps=STEPS, batch_size=batch, **never)
    return Settings(
        model=None,
        ckpt=None,
        data="generated",
        train=run,
        records=DataConfig(val_fraction=0, test_fraction=0),
        lora=LoRAConfig(RANK) if lora else None,
        from_scratch=replace(config, dropout=run.dropout),
        precision="bf16",
    )


def make_model(context: Context, settings: Settings) -> GPT:
    """The model that the command would train, with weights drawn on the device."""
    with torch.device(context.device):
        return inputs.load_model(settings, context.device.type)


def events(settings: Settings, model: GPT, splits: Splits, compiled: bool) -> Iterator[Step]:
    """The steps of a run, as the command makes it."""
    job.checksum = lambda tensors: 0  # would bring gigabytes to the CPU
    made = job.make_job(
        settings,
        model,
        splits,
        Ranks(),
        model.wte.weight.device,
        compiled=compiled,
    )
    return (event for event in train(made) if isinstance(event, Step))


def time_steps(context: Context, steps: Iterator[Step]) -> dict[str, float]:
    """Seconds and tokens of the steps after those that warm up. Waiting at every step would take overlap away."""
    tokens, times, losses = [], [context.clock()], []
    for number, step in enumerate(steps, start=1):
        times.append(context.clock() if number in (WARM_UP, STEPS) else time.perf_counter())
        tokens.append(step.tokens)
        losses.append(step.loss)
    return timing(times, tokens) | {"loss": losses[-1]}


def timing(times: list[float], tokens: list[int]) -> dict[str, float]:
    """Of `times`, the first is before the first step, and each other behind one."""
    seconds = times[-1] - times[WARM_UP]
    counted = sum(tokens[WARM_UP:])
    intervals = [after - before for before, after in zip(times[WARM_UP:], times[WARM_UP + 1 :], strict=False)]
    return {
        "tok_s": counted / seconds,
        "ms_a_step": seconds / (len(times) - 1 - WARM_UP) * 1e3,
        "median_ms": statistics.median(intervals) * 1e3,
        "tokens_a_step": counted / (len(tokens) - WARM_UP),
        "first_step_s": times[1] - times[0],
        "warm_up_s": times[WARM_UP] - times[0],
    }


def report(
    context: Context, case: str, timed: dict[str, float], config: GPTConfig, data: TokenDataset, rate: float, lora: bool
) -> None:
    each = operations(config, data, lora)
    done = timed["tok_s"] * each
    figures = {"tflop_s": done / 1e12, "share_of_datasheet": done / DATASHEET_BF16, "share_of_matmul": done / rate}
    context.report(case, True, **timed, **figures, gflop_a_token=each / 1e9, peak_mb=context.peak_mb())


def operations(config: GPTConfig, data: TokenDataset, lora: bool) -> float:
    """Operations of a token: see above."""
    lengths = data.lengths.double()
    length = float((lengths**2).sum() / lengths.sum())
    predicted = data.n_targets / data.n_tokens
    width, layers = config.n_embd, config.n_layer
    weights, head = 12 * layers * width**2, config.vocab_size * width * predicted
    attention = 6 * layers * width * length
    if not lora:
        return 6 * weights + attention + 6 * head
    adapter = layers * RANK * (2 + 4 + 5 + 5) * width  # in + out of c_attn, attn.c_proj (2), c_fc and mlp.c_proj
    return 4 * weights + 6 * adapter + attention + 4 * head


def text_splits(context: Context, config: GPTConfig) -> Splits:
    """Blocks of text as long as the window, of random tokens."""
    count = context.pick(160, 20)
    ids = torch.tensor(random_ids(count * (config.block_size + 1), 0)).to(torch.uint16)
    train = from_sequences(ids.split(config.block_size + 1), [1] * count)
    return Splits(train, empty(), empty(), None, {})


def record_splits(context: Context, config: GPTConfig) -> Splits:
    """Records in Alpaca's template, with lengths like those of Alpaca."""
    file = write_records(context.work / "records.json", context.pick(1000, 40))
    return load_data(file, TrainConfig(), DataConfig(val_fraction=0, test_fraction=0), config.block_size)


def peer(context: Context, size: str, data: str, lora: bool) -> None:
    """The Trainer with bf16 and its defaults otherwise, over the same records, padded to the longest of a batch."""
    rate = matmul_rate(context)
    config = context.shape(size)
    splits = text_splits(context, config) if data == "text" else record_splits(context, config)
    model = hf_model(config, context.device)
    if lora:
        from peft import LoraConfig, get_peft_model

        targets = ["c_attn", "c_proj", "c_fc"]
        adapter = LoraConfig(
            r=RANK, lora_alpha=RANK, target_modules=targets, fan_in_fan_out=True, task_type="CAUSAL_LM"
        )
        model = get_peft_model(model, adapter)
    for batch in batches(context, data, size):
        with context.each(f"trainer-{batch}", may_not_fit=True):
            context.reset_peak()
            timed = time_trainer(context, model, peer_rows(splits.train, config.block_size), batch)
            report(context, f"trainer-{batch}", timed, config, splits.train, rate, lora)
        model.zero_grad(set_to_none=True)


def time_trainer(context: Context, model: torch.nn.Module, rows: list[dict], batch: int) -> dict[str, float]:
    """Seconds and tokens of the Trainer's steps after those that warm up."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    times: list[float] = []
    tokens: list[int] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, args, state, control, **rest):
            if not times:
                times.append(context.clock())

        def on_step_end(self, args, state, control, **rest):
            times.append(context.clock() if state.global_step in (WARM_UP, STEPS) else time.perf_counter())

    def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
        tokens.append(sum(len(row["input_ids"]) for row in rows))
        return pad(rows)

    arguments = TrainingArguments(
        output_dir=str(context.work / "trainer"),
        per_device_train_batch_size=batch,
        max_steps=STEPS,
        bf16=True,
        use_cpu=not context.cuda,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[Clock()])
    trainer.train()
    return timing(times, tokens[:STEPS])  # it collates a batch ahead


def peer_rows(data: TokenDataset, window: int) -> list[dict]:
    """The same sequences with -100 where nothing is to be predicted.

    The model shifts the labels and reads all tokens, so that the last one of a whole block has to be left out.
    """
    rows = []
    for ids, is_target in (data[i] for i in range(len(data))):
        labels = torch.where(is_target, ids, -100)
        rows.append({"input_ids": ids[:window].tolist(), "labels": labels[:window].tolist()})
    return rows


def pad(rows: list[dict]) -> dict[str, torch.Tensor]:
    longest = max(len(row["input_ids"]) for row in rows)

    def column(name: str, value: int) -> torch.Tensor:
        return torch.tensor([row[name] + [value] * (longest - len(row[name])) for row in rows])

    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    mask = (torch.arange(longest) < lengths[:, None]).long()
    return {"input_ids": column("input_ids", 50256), "labels": column("labels", -100), "attention_mask": mask}
