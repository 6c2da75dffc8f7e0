"""What the concept pages say of their trained runs beyond what a command prints: see `page_runs`."""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bases import CPU
from concept_pages import page
from torch import nn
from torch.nn.functional import cross_entropy

from llmlab.core.finetuning_settings import ExampleSettings
from llmlab.core.progress import quiet
from llmlab.core.settings import DataSettings, PretrainSettings
from llmlab.data.chat_formats import chat_format
from llmlab.data.dataset import load_dataset
from llmlab.data.examples import read_source
from llmlab.data.finetuning_data import load_finetuning_data
from llmlab.data.sequences import fixed_sequences, gather
from llmlab.data.stories import WORDS
from llmlab.gpt.model import GPT
from llmlab.inspection.answers import ask
from llmlab.inspection.archive import read_archive
from llmlab.inspection.geometry import matrix_of, nearest
from llmlab.models.available import packaged_ggufs
from llmlab.models.reference import parse
from llmlab.models.source import open_model
from llmlab.store.events import StepEvent
from llmlab.store.run_folder import RunFolder
from llmlab.store.run_log import read_events
from llmlab.training.finetuning.lora import LoraLinear
from llmlab.training.finetuning.quantise import full_weight, quantise
from llmlab.walk.adamw import training_of


@torch.inference_mode()
def needle(outputs: Path) -> dict[str, Any]:
    """The mean probability of the right colour over all ten, by the tokens of the prompt."""
    opened = open_model("far", outputs)
    prompt = re.findall(r'inspect far --prompt "(.*?)"', page("long-context"))[0]
    filler = re.findall(r'and again with "(.*?)" in front', page("long-context"))[0]
    found = {}
    for times in range(7):
        right = []
        for colour in WORDS["colour"]:
            text = prompt.replace("red", colour, 1).replace("At last", f"{filler} " * times + "At last")
            ids = opened.tokenizer.encode(text)
            (answer,) = opened.tokenizer.encode(f" {colour}")
            right.append(float(opened.model(torch.tensor([ids]))[0, -1].softmax(-1)[answer]))
        found[str(len(ids))] = round(float(np.mean(right)), 4)
    return found


def neighbours(outputs: Path) -> dict[str, Any]:
    """Of the rows of two embeddings: the nearest three of "e" with their cosines; the first component's share."""
    found: dict[str, Any] = {}
    for name in ("wide", "narrow"):
        opened = open_model(name, outputs)
        rows = matrix_of(opened, "tokens")
        (e,) = opened.tokenizer.encode("e")
        ids, cosines = nearest(rows, e, 3)
        variance = torch.linalg.svdvals((rows - rows.mean(0)).double()) ** 2
        found[name] = {
            "nearest": [opened.tokenizer.decode([int(id)]) for id in ids],
            "cosine": [round(float(one), 4) for one in cosines],
            "first": round(float(variance[0] / variance.sum()), 4),
        }
    return found


def copied(outputs: Path) -> dict[str, Any]:
    """Mean attention of each head of layer 1 to what followed the last occurrence of its token."""
    prompt = re.findall(r'inspect two --prompt "(.*?)"', page("induction-heads"))[0]
    half = len(prompt) // 2
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for reference in ("two@700", "two"):
            path = Path(folder) / "seen.safetensors"
            ask(reference, "inspect", {"text": prompt, "what": ["attention"]}, path, outputs)
            pattern = np.asarray(read_archive(path)["attention/1"])  # [H, T, T]
            found[reference] = [round(float(np.diagonal(one, 1 - half)[1:].mean()), 4) for one in pattern]
    return found


def positions(outputs: Path) -> dict[str, Any]:
    """The length of the gradient of the table of positions in the only step of two runs, by their number of blocks: the
    optimizer's first mean has a share 1 - beta1 of the clipped gradient."""
    found = {}
    for folder in sorted((outputs / "pretraining").iterdir()):
        run = RunFolder(folder)
        settings = run.info().settings
        if not isinstance(settings, PretrainSettings) or settings.train.steps != 1 or settings.model.n_embd != 128:
            continue
        (norm,) = (event.grad_norm for event in read_events(run) if isinstance(event, StepEvent))
        trained, train = training_of(parse(f"{run.id}@1", outputs)), settings.train
        mean = trained.moments["position_embedding.weight"]["exp_avg"]
        clipped = float(mean.norm()) / (1 - train.beta1)
        found[str(settings.model.n_layer)] = round(clipped * max(1.0, norm / train.grad_clip), 4)
    return found


@torch.inference_mode()
def quantised(outputs: Path) -> dict[str, Any]:
    """The base's loss on the windows of its own evaluation, exact and with all matrices of its blocks in 4 bits, and
    how far these are off, relative to their length."""
    opened = open_model("base@final", outputs)
    run = RunFolder(outputs / "pretraining" / "base")
    settings = run.info().settings_as(PretrainSettings)
    block = settings.model.block_size
    text = load_dataset(settings.data, block, quiet)
    sequences = gather(text.val, fixed_sequences(text.val, block, settings.train.eval_sequences), block)
    ids, targets = (torch.from_numpy(part) for part in sequences)
    model = opened.model
    assert isinstance(model, GPT)
    found = {"exact": round(float(model.loss(ids, targets)), 5)}
    off = whole = 0.0
    for layer in model.blocks.modules():
        if isinstance(layer, torch.nn.Linear):
            read = full_weight(quantise(layer, CPU))
            off, whole = off + float((read - layer.weight).norm() ** 2), whole + float(layer.weight.norm() ** 2)
            layer.weight.copy_(read)
    return found | {"quantised": round(float(model.loss(ids, targets)), 5), "off": round((off / whole) ** 0.5, 5)}


@torch.inference_mode()
def on(outputs: Path) -> dict[str, Any]:
    """How many neurons of each layer are not zero at the last token."""
    opened = open_model("sparse", outputs)
    model, found = opened.model, []
    assert isinstance(model, GPT)
    for block in model.blocks:
        down = block.get_submodule("feed_forward.down")
        down.register_forward_pre_hook(lambda _, args: found.append(int(args[0][0, -1].count_nonzero())))
    model(torch.tensor([opened.tokenizer.encode("The king said")]))
    return {"on": found}


@torch.inference_mode()
def tasks(outputs: Path) -> dict[str, Any]:
    """The built-in examples in SmolLM2's template: the share of tokens in the loss; the mean losses of the first 60
    outside of answers and in them; those of the page's example from its answer on; the share of padding."""
    opened = open_model(str(packaged_ggufs()[0]), outputs)
    chat = chat_format(opened.tokenizer)
    examples = read_source("tasks", quiet).examples
    encoded = [chat.encode(example, 256, "answers") for example in examples]
    losses: dict[bool, list[float]] = {False: [], True: []}
    answer: list[float] = []
    for place, (example, one) in enumerate(zip(examples, encoded, strict=True)):
        asked = "letter fire rain" in example.question
        if place >= 60 and not asked:
            continue
        ids = torch.tensor([one.ids])
        of_tokens = cross_entropy(opened.model(ids).logits[0, :-1].float(), ids[0, 1:], reduction="none").tolist()
        trained = one.trained[1:]
        if asked:
            answer = [round(loss, 4) for loss, is_answer in zip(of_tokens, trained, strict=True) if is_answer]
        if place < 60:
            for loss, is_answer in zip(of_tokens, trained, strict=True):
                losses[is_answer].append(loss)
    padding = {}
    for name, settings in {
        "16": ExampleSettings(batch_size=16),
        "4": ExampleSettings(batch_size=4),
        "packed": ExampleSettings(packing=True, max_length=128),
    }.items():
        data = load_finetuning_data(settings, 1337, opened.tokenizer, 0, quiet)
        filled = sum(len(one.ids) for one in data.train)
        padding[name] = round(1 - filled / (128 * len(data.rows)) if settings.packing else data.padding, 4)
    return {
        "tokens": sum(len(one.ids) for one in encoded),
        "in_answers": sum(sum(one.trained) for one in encoded),
        "counts": [len(losses[False]), len(losses[True])],
        "means": [round(float(np.mean(losses[part])), 4) for part in (False, True)],
        "answer": answer,
        "padding": padding,
    }


def answers(outputs: Path) -> dict[str, Any]:
    """What only knowing how often each token occurs in the answers costs on those held out."""
    tokenizer = load_dataset(DataSettings(corpus="shakespeare", tokenizer="bpe"), 64, quiet).tokenizer
    data = load_finetuning_data(ExampleSettings(), 1337, tokenizer, 64, quiet)
    train, held_out = (
        np.array([id for one in part for id, trained in zip(one.ids, one.trained, strict=True) if trained])
        for part in (data.train, data.held_out)
    )
    counts = np.bincount(train, minlength=tokenizer.vocab_size) + 1
    loss = float(-np.log(counts[held_out] / counts.sum()).mean())
    return {"examples": len(data.train), "frequencies": round(loss, 4)}


def tokenized(outputs: Path) -> dict[str, Any]:
    """Shakespeare with each tokenizer: the vocabulary, tokens, and what knowing only their frequencies costs."""
    found = {}
    for tokenizer in ("char", "bpe", "compact", "gpt2"):
        text = load_dataset(DataSettings(corpus="shakespeare", tokenizer=tokenizer), 64, quiet)
        found[tokenizer] = {
            "vocabulary": text.tokenizer.vocab_size,
            "tokens": len(text.train) + len(text.val),
            "unigram": round(text.unigram_loss, 4),
        }
    return found


def counted(outputs: Path) -> dict[str, Any]:
    """The losses that the page's code prints for the letters of Shakespeare."""
    code = re.findall(r"^```python\n(.*?)^```", page("n-grams"), re.DOTALL | re.MULTILINE)[0]
    code = code.replace('corpus="stories", tokenizer="compact"', 'corpus="shakespeare", tokenizer="char"')
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code.replace("range(1, 8)", "range(1, 7)"), {})
    return {"losses": [float(line.split()[1]) for line in printed.getvalue().splitlines()[1:]]}


def adapted(outputs: Path) -> dict[str, Any]:
    """The page's change of rank 4: the loss that an adapter of each rank leaves and the least possible one, the
    change that rank 16 learned, and what one first step gains, with a fixed alpha and with one that grows."""
    torch.manual_seed(0)
    frozen, change = torch.randn(128, 128), torch.randn(128, 4) @ torch.randn(4, 128) / 128
    x = torch.randn(512, 128)
    targets = x @ (frozen + change).T

    def learned(rank: int, alpha: float, rate: float, steps: int) -> tuple[float, LoraLinear]:
        layer = nn.Linear(128, 128, bias=False)
        layer.weight.data = frozen
        adapter = LoraLinear(layer, (128, 128), rank, alpha, dropout=0)
        optimizer = torch.optim.Adam([adapter.lora_A.weight, adapter.lora_B.weight], rate)
        for _ in range(steps):
            optimizer.zero_grad()
            (adapter(x) - targets).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            return float((adapter(x) - targets).square().mean()), adapter

    start = float((x @ change.T).square().mean())
    adapters = {rank: learned(rank, 16, 0.003, 3000) for rank in (1, 2, 3, 4, 16)}
    left = torch.linalg.svdvals(change).square()
    of_16 = torch.linalg.svdvals(adapters[16][1].change())
    gains = {
        name: [
            round(float(np.mean([start - learned(rank, alpha or 2 * rank, 0.001, 1)[0] for _ in range(20)])), 7)
            for rank in (1, 4, 16, 64)
        ]
        for name, alpha in (("fixed", 16), ("growing", 0))
    }
    return {
        "losses": {0: round(start, 5)} | {rank: round(loss, 5) for rank, (loss, _) in adapters.items()},
        "best": [round(float(left[rank:].sum()) / 128, 5) for rank in (0, *adapters)],
        "values": [round(value, 4) for value in of_16[:5].tolist()],
        "gains": gains,
    }


def reached(outputs: Path) -> dict[str, Any]:
    """The least loss on the answers held out, and on the end of a text, if the stream before the final norm could be
    anything: of the base, of all of it fine-tuned, and of another base. Also how long the unembedding's rows are."""
    tokenizer = load_dataset(DataSettings(corpus="shakespeare", tokenizer="bpe"), 64, quiet).tokenizer
    examples = load_finetuning_data(ExampleSettings(), 1337, tokenizer, 64, quiet).held_out
    ids = [id for one in examples for id, trained in zip(one.ids, one.trained, strict=True) if trained]
    tokens, counts = torch.tensor(ids).unique(return_counts=True)
    found = {}
    for reference in ("base@final", "whole@final", "ground@final"):
        model = open_model(reference, outputs).model
        torch.manual_seed(0)
        stream = torch.randn(len(tokens), model.unembedding.shape[1]).requires_grad_()
        optimizer = torch.optim.Adam([stream], 0.1)
        for _ in range(600):
            losses = cross_entropy(model.final_norm(stream) @ model.unembedding.T, tokens, reduction="none")
            optimizer.zero_grad()
            losses.sum().backward()
            optimizer.step()
        found[reference.partition("@")[0]] = {
            "loss": round(float((losses * counts).sum() / len(ids)), 4),
            "end": round(float(losses[tokens == ids[-1]]), 4),
            "rows": round(float(model.unembedding.norm(dim=1).mean()), 4),
        }
    return found


MEASURES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "backpropagation": positions,
    "chat-templates": tasks,
    "fine-tuning": answers,
    "induction-heads": copied,
    "long-context": needle,
    "lora": adapted,
    "lora, any stream": reached,
    "mixtures-of-experts": on,
    "n-grams": counted,
    "quantisation": quantised,
    "superposition": neighbours,
    "tokens": tokenized,
}
