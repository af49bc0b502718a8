"""What fewer bits cost: the perplexity of a model on some texts, in every precision and out of quantized files.

    python tests/benchmarks/quality.py --texts FOLDER [--model tiny | --ckpt FILE] [--tokens 100000]

The texts should be none that the model was trained on. Prints one JSON object a line: what ran, its perplexity, and by
how many percent that is above fp32's.
"""

import argparse
import json
import math
import tempfile
from pathlib import Path

from gpt2cli.checkpoints.load import load, load_plain
from gpt2cli.checkpoints.model_spec import ModelSpec
from gpt2cli.checkpoints.quantized_file import STORED_BITS, quantize_model
from gpt2cli.data.kinds import text_files
from gpt2cli.data.text import join, read_documents, tokenize
from gpt2cli.evaluation.likelihood import TextSource, portions, score
from gpt2cli.inference.decoder import PRECISIONS, Decoder, as_decoder


def perplexity(model: Decoder, folder: Path, most: int) -> float:
    """Of `most` tokens of each text, each predicted with at least half of the window before it."""
    size = model.config.block_size
    texts = [join(tokenize(read_documents(file)))[:most] for file in text_files(folder).values()]
    source = TextSource(texts, size, size // 2)
    sums = [score(model, source, chosen, 1024) for chosen in portions(source.lengths, 1024)]
    loss = math.fsum(loss for part in sums for loss in part.losses)
    return math.exp(loss / sum(n for part in sums for n in part.tokens))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--ckpt")
    parser.add_argument("--tokens", type=int, default=100_000, help="of each text, at the most")
    args = parser.parse_args()
    name = "tiny" if args.ckpt is None and args.model is None else args.model
    plain = load_plain(name, ckpt=args.ckpt, device="cpu")
    exact = perplexity(as_decoder(plain), args.texts, args.tokens)

    def report(what: str, found: float) -> None:
        line = {"run": what, "perplexity": round(found, 4), "above_fp32_percent": round((found / exact - 1) * 100, 3)}
        print(json.dumps(line), flush=True)

    report("plain fp32", exact)
    for precision in PRECISIONS:
        model = load(name, ckpt=args.ckpt, device="cpu", precision=precision)
        report(f"packed {precision}", perplexity(model, args.texts, args.tokens))
    with tempfile.TemporaryDirectory() as directory:
        for bits in (bits for bits in (8, 4) if bits < STORED_BITS.get(plain.origin.precision, 32)):
            file = Path(directory) / f"{bits}.safetensors"
            quantize_model(ModelSpec(name, args.ckpt), bits, file)
            report(
                f"file of {bits} bits, fp32",
                perplexity(as_decoder(load_plain(ckpt=file, device="cpu")), args.texts, args.tokens),
            )
            report(f"file of {bits} bits, auto", perplexity(load(ckpt=file, device="cpu"), args.texts, args.tokens))


if __name__ == "__main__":
    main()
