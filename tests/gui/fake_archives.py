"""Archives with the names and shapes of the real ones, made of seeded random numbers: no model, no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmlab.inspection.archive import Metadata, write_archive

LAYERS, HEADS, WIDTH, CONTEXT = 3, 4, 16, 64
BEGINNING = 1
ABOUT = {
    "kind": "huggingface",
    "step": None,
    "parameters": 123_456,
    "bytes": 493_824,
    "family": "fake",
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_embd": WIDTH,
    "vocab_size": 1000,
    "context": CONTEXT,
    "refusals": {},
    "memory_bytes": 50_000_000,
}
POINTS = ("pre_attn", "attn_out", "post_attn", "mlp_out", "post_ffn")


def cut(text: str, beginning: bool = False) -> tuple[list[int], list[str]]:
    """Words with the space before them; ids are made of the letters."""
    words = re.findall(r"\s?[^\s]+|\s", text)
    ids = [2 + sum(word.encode()) % 990 for word in words]
    return ([BEGINNING, *ids], ["<s>", *words]) if beginning else (ids, words)


def pattern(seed: int, time: int) -> np.ndarray:
    """[T, T]: rows sum to one, nothing above the diagonal."""
    scores = 2 * np.random.default_rng(seed).normal(size=(time, time)).astype(np.float32)
    return masked_softmax(scores)


def masked_softmax(scores: np.ndarray) -> np.ndarray:
    scores = np.where(np.tri(len(scores), dtype=bool), scores, -np.inf)
    grown = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(grown / grown.sum(1, keepdims=True), np.float32)


def patterns(time: int) -> np.ndarray:
    """[L, H, T, T]."""
    heads = [[pattern(layer * HEADS + head, time) for head in range(HEADS)] for layer in range(LAYERS)]
    return np.array(heads, np.float32)


def thumbnails(whole: np.ndarray, size: int = 64) -> np.ndarray:
    """Each cell the maximum of the block that it covers."""
    side = min(size, whole.shape[-1])
    starts = np.arange(side) * whole.shape[-1] // side
    return np.maximum.reduceat(np.maximum.reduceat(whole, starts, axis=-1), starts, axis=-2)


def inspection(time: int, what: Sequence[str], top: int = 5) -> dict[str, np.ndarray]:
    """The tensors of an `inspect` answer."""
    dice = np.random.default_rng(7)
    whole = patterns(time)
    tensors: dict[str, np.ndarray] = {}
    if "attention" in what:
        tensors |= {f"attention/{layer}": whole[layer] for layer in range(LAYERS)}
    if "rollout" in what:
        tensors["attention/rollout"] = whole.mean(1)
    if "heads" in what:
        logs = np.where(whole > 0, np.log(np.maximum(whole, 1e-30)), 0)
        tensors["heads/entropy"] = -(whole * logs).sum(-1).mean(-1)
        tensors["heads/first"] = whole[..., 0].mean(-1)
        for name in ("previous", "distance", "duplicate", "induction"):
            tensors[f"heads/{name}"] = dice.random((LAYERS, HEADS), np.float32)
        tensors["heads/mosaic"] = thumbnails(whole)
    if "residual" in what:
        tensors |= {f"residual/{point}": dice.normal(size=(LAYERS, time, WIDTH)) for point in POINTS}
        tensors["residual/final"] = dice.normal(size=(time, WIDTH))
    if "contributions" in what:
        tensors |= {f"contributions/norm/{point}": dice.random((LAYERS, time)) for point in POINTS}
        for name in ("attention", "feed_forward", "block"):
            tensors[f"contributions/cosine/{name}"] = dice.random((LAYERS, time))
        shares = dice.normal(size=(2 * LAYERS + 1, time))
        shares /= shares.sum(0)
        tensors["contributions/share/embedding"] = shares[0]
        tensors["contributions/share/attention"] = shares[1 : 1 + LAYERS]
        tensors["contributions/share/feed_forward"] = shares[1 + LAYERS :]
        tensors["contributions/heads"] = dice.random((LAYERS, HEADS, time))
    if "attribution" in what:
        heads, bias, feed = dice.normal(size=(LAYERS, HEADS)), dice.normal(size=LAYERS), dice.normal(size=LAYERS)
        attention = heads.sum(1) + bias
        total = attention.sum() + feed.sum() + 1.5
        tensors |= {f"attribution/{n}": np.array([v]) for n, v in (("embedding", 1.0), ("bias", 0.5), ("sum", total))}
        tensors |= {"attribution/logit": np.array([total]), "attribution/attention_bias": bias}
        tensors |= {"attribution/heads": heads, "attribution/attention": attention, "attribution/feed_forward": feed}
    if "lens" in what:
        rows = 2 * LAYERS + 1
        tensors["lens/ids"] = dice.integers(0, 999, (rows, time, top)).astype(np.int32)
        tensors["lens/probability"] = np.sort(dice.random((rows, time, top)))[..., ::-1] / top
        tensors["lens/rank"] = dice.integers(0, 999, (rows, time)).astype(np.int32)
        for name in ("target_probability", "entropy", "kl"):
            tensors[f"lens/{name}"] = dice.random((rows, time))
    return tensors


def stages(seed: int, time: int, width: int = 4) -> dict[str, np.ndarray]:
    """One head's way to its pattern: all stages agree."""
    dice = np.random.default_rng(seed)
    query, key, value = (dice.normal(size=(time, width)) for _ in range(3))
    scores = query @ key.T
    scaled = scores / np.sqrt(width)
    masked = np.where(np.tri(time, dtype=bool), scaled, -np.inf)
    return {
        "stages/scores": scores,
        "stages/scaled": scaled,
        "stages/masked": masked,
        "stages/pattern": masked_softmax(scaled),
        "stages/query": query,
        "stages/key": key,
        "stages/value": value,
    }


def write(path: Path, model: str, question: str, values: Mapping[str, Any]) -> None:
    """Answers a question into a file."""
    ids, tokens = cut(str(values.get("text", "")), bool(values.get("beginning")))
    if values.get("ids"):
        ids = list(values["ids"])
        tokens = [f"t{number}" for number in ids]
    seed, more = int(values.get("layer", 0)) * HEADS + int(values.get("head", 0)), {}
    if question == "inspect":
        tensors = inspection(len(ids), values["what"], int(values.get("top", 5)))
        more = {"position": str(len(ids) - 1), "answer": "5", "against": "", "answer_text": " king"}
        if "lens" in values["what"]:
            texts = {str(number): f" w{number}" for number in range(999)}
            more["lens_tokens"] = json.dumps(texts)
    elif question == "pattern":
        tensors = {"pattern": pattern(seed, len(ids))}
    elif question == "stages":
        tensors, more = stages(seed, len(ids)), {"scale": "0.5", "softcap": ""}
    else:
        tensors = {"asked": np.zeros(1)}
    if model.endswith("@live"):
        more["step"] = "100"
    kind = "inspection" if question == "inspect" else question
    metadata = Metadata(
        kind=kind,
        model=model,
        weights_sha256="0" * 64,
        token_ids=ids,
        tokens=tokens,
        question={"question": question, **dict(values)},
        more=more,
    )
    write_archive(path, tensors, metadata)
