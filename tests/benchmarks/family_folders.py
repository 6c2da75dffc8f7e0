"""A folder of each model family, through the command line, against transformers' own outputs.

    python tests/benchmarks/family_folders.py [--families NAME ...]

Each folder holds a tiny random model with a tokenizer, as `save_pretrained` writes them. `llmlab-run inspect` opens
it and asks for everything; the archive is compared with what the same folder, loaded anew, returns: the stream with
`output_hidden_states`, the probabilities of the most likely tokens with the lens' last row, the patterns with
`output_attentions` in eager mode. A row a family: which panels are refused, and the largest deviations, also that of
the attribution's sum from the logit. (Falcon with ALiBi computes something else in eager mode than it does
otherwise, so its patterns differ here; what is shown is what the model computes when nobody asks for patterns.)
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from family_models import KINDS, VOCAB, family_model

from llmlab.cli.main import main as llmlab_run
from llmlab.inspection.archive import Archive, read_archive

WHAT = "attention,heads,residual,contributions,attribution,lens"
PROMPT = "b c d e f g h i j k"


@dataclass(frozen=True)
class Row:
    """What came out for one family; None where there is nothing to compare."""

    name: str
    refused: str
    pattern: float | None
    stream: float | None
    logits: float | None
    attribution: float | None


def save_folder(name: str, folder: Path) -> None:
    """The family's tiny model with a tokenizer of single letters."""
    words = {chr(97 + place) if place < 26 else f"<{place}>": place for place in range(VOCAB)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.Fuse()
    family_model(name).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)


def inspect_folder(name: str, folder: Path) -> Row:
    """The row of a family, or why the command refused it."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = llmlab_run(
            ["inspect", str(folder), "--prompt", PROMPT, "--what", WHAT, "--out", str(folder / "seen"), "--json"]
        )
    if code:
        return Row(name, said.getvalue().strip(), None, None, None, None)
    return compare(name, folder, read_archive(folder / "seen" / "inspection.safetensors"))


@torch.inference_mode()
def compare(name: str, folder: Path, archive: Archive) -> Row:
    """The archive against transformers' own outputs, loaded anew."""
    ids = torch.tensor([archive.metadata.token_ids])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    out = model(ids, output_hidden_states=True, use_cache=False)
    eager = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    patterns = iter(eager(ids, output_attentions=True, use_cache=False).attentions)  # of the layers that have one
    pattern = [
        deviation(archive[f"attention/{layer}"], next(patterns)[0].numpy())
        for layer in range(len(out.hidden_states) - 1)
        if f"attention/{layer}" in archive
    ]
    stream = [
        deviation(archive["residual/pre_attn"][layer], hidden[0].numpy())
        for layer, hidden in enumerate(out.hidden_states[:-1])
        if "residual/pre_attn" in archive
    ]
    logits = attribution = None
    if "lens/probability" in archive:
        likely = out.logits[0].float().softmax(-1).gather(1, torch.tensor(archive["lens/ids"][-1]).long())
        logits = deviation(archive["lens/probability"][-1], likely.numpy())
    if "attribution/sum" in archive:
        attribution = deviation(archive["attribution/sum"], archive["attribution/logit"])
    refused = " ".join(note for note in archive.metadata.notes if note.startswith("No "))
    return Row(name, refused, max(pattern, default=None), max(stream, default=None), logits, attribution)


def deviation(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest absolute difference."""
    return float(np.abs(np.asarray(ours, np.float64) - theirs).max())


def main() -> None:
    """Prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=list(KINDS), default=list(KINDS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    print("| family | patterns | stream | probabilities | attribution | refused |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in arguments.families:
        with tempfile.TemporaryDirectory() as folder:
            save_folder(name, Path(folder))
            row = inspect_folder(name, Path(folder))
        numbers = (row.pattern, row.stream, row.logits, row.attribution)
        cells = " | ".join("-" if number is None else f"{number:.1e}" for number in numbers)
        print(f"| {row.name} | {cells} | {row.refused or 'nothing'} |", flush=True)


if __name__ == "__main__":
    main()
