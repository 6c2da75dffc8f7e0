"""What a FakeModelHost answers to the questions of the inspection panels: random archives of known numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from fake_model import HEADS, LAYERS, WIDTH, FakeModelHost, Made, make_inspection

MODULES = [
    "model.layers.0.mlp.up_proj",
    "model.layers.0.self_attn.q_proj",
    "model.layers.1.self_attn.q_proj",
    "lm_head",
]
STEPS = [0, 50, 100, 150]
NAMES = ["wte.weight", "blocks.0.mlp.weight", "blocks.0.mlp.bias"]


def make_comparison(host: FakeModelHost, values: Mapping[str, Any], ids: list[int]) -> Made:
    dice, count = np.random.default_rng(8), len(ids)
    tensors: dict[str, np.ndarray] = {"kl": dice.uniform(size=count)}
    for layer in range(LAYERS):
        tensors[f"difference/attention/{layer}"] = dice.normal(size=(HEADS, count, count))
    for point in ("pre_attn", "post_attn", "post_ffn", "attn_out", "mlp_out"):
        tensors[f"difference/residual/{point}"] = dice.normal(size=(LAYERS, count, WIDTH))
        tensors[f"cosine/residual/{point}"] = dice.uniform(-1, 1, (LAYERS, count))
        tensors[f"cka/{point}"] = dice.uniform(size=LAYERS)
    tensors["cosine/residual/final"] = dice.uniform(size=count)
    for name in ("a", "b"):
        tensors[f"{name}/ids"] = dice.integers(0, 9, (count, 3)).astype(np.int32)
        tensors[f"{name}/probability"] = dice.uniform(size=(count, 3))
    texts = json.dumps({str(number): f" word{number}" for number in range(9)})
    return tensors, {"model_b": "b", "texts": texts, "texts_b": texts}


def make_evolution(host: FakeModelHost, values: Mapping[str, Any], ids: list[int]) -> Made:
    films: list[dict[str, np.ndarray]] = []
    more: dict[str, str] = {}
    for step in STEPS:
        tensors, more = make_inspection(host, {**values, "position": -1 - step}, ids)
        films.append(tensors)
    stacked = {name: np.stack([film[name] for film in films]) for name in films[0]}
    references = [f"fake@{step}" for step in STEPS]
    more |= {"steps": json.dumps(STEPS), "references": json.dumps(references), "val_loss": json.dumps([4, 3, 2, None])}
    return stacked, more


def make_geometry(host: FakeModelHost, values: Mapping[str, Any], ids: list[int]) -> Made:
    dice = np.random.default_rng(3)
    count = len(ids)
    shown = np.arange(count, dtype=np.int32)
    tensors = {
        "geometry/ids": shown,
        "geometry/points": dice.normal(size=(count, 3)),
        "geometry/explained": np.array([0.5, 0.25, 0.125]),
        "geometry/norm": dice.uniform(size=count),
    }
    more = {"matrix": values["matrix"]}
    if values["near"]:
        tensors["neighbours/ids"] = np.array([4, 9], np.int32)
        tensors["neighbours/cosine"] = np.array([0.875, 0.5])
        texts = json.dumps({"4": host.vocabulary[4], "9": host.vocabulary[9]})
        more |= {"near": values["near"], "near_id": str(host.vocabulary.index(values["near"])), "texts": texts}
    return tensors, more


def make_parameters(host: FakeModelHost, values: Mapping[str, Any], ids: list[int]) -> Made:
    dice = np.random.default_rng(4)
    tensors = {f"parameters/{name}": dice.uniform(size=3) for name in ("norm", "rms", "largest")}
    tensors["parameters/count"] = np.array([80, 32, 4])
    tensors |= {"layers/norm": dice.uniform(size=LAYERS), "neurons/dead": dice.uniform(size=LAYERS)}
    tensors["neurons/positive"] = dice.uniform(size=LAYERS)
    for name in values.get("singular", ()):
        tensors[f"singular/{name}"] = np.linspace(3, 0.5, WIDTH)
    shapes = json.dumps([[10, 8], [8, 4], [4]])
    return tensors, {"names": json.dumps(NAMES), "shapes": shapes, "dead": "never positive"}


def make_intervention(host: FakeModelHost, values: Mapping[str, Any], ids: list[int]) -> Made:
    dice = np.random.default_rng(5)
    tensors: dict[str, np.ndarray] = {"kl": dice.uniform(size=len(ids))}
    for name in ("before", "after"):
        tensors[f"{name}/ids"] = dice.integers(0, 300, (len(ids), 5)).astype(np.int32)
        tensors[f"{name}/probability"] = np.sort(dice.uniform(size=(len(ids), 5)) / 5)[:, ::-1]
        tensors[f"target/{name}"] = dice.normal(size=1)
    tensors["change/post_ffn"] = dice.uniform(size=(LAYERS, len(ids)))
    return tensors, {"position": str(values["position"]), "answer_text": " Paris", "against_text": " Rome"}


def make_sweep(host: FakeModelHost, values: Mapping[str, Any], ids: list[int]) -> Made:
    shape = (LAYERS, HEADS if values["over"] == "layer,head" else len(ids))
    effect = np.random.default_rng(6).normal(size=shape)
    tensors = {"sweep/effect": effect, "sweep/logit_difference": effect + 1, "sweep/before": np.ones(1)}
    return tensors, {"effect": "change", "position": "6", "answer_text": " Paris", "against_text": ""}


def make_pattern(host: FakeModelHost, values: Mapping[str, Any], ids: list[int]) -> Made:
    return {"pattern": np.random.default_rng(7).uniform(size=(len(ids), len(ids)))}, {}


def make_change(host: FakeModelHost, values: Mapping[str, Any], ids: list[int]) -> Made:
    """Four matrices of rank 3; layer 1 has no up_proj."""
    singular = np.array([[4.0, 3.0, 0.0], [12.0, 5.0, 0.0], [1.0, 1.0, 1.0], [2.0, np.nan, np.nan]])
    tensors = {
        "norm": np.sqrt(np.nansum(singular**2, axis=1)),
        "relative": np.array([0.5, 0.25, 0.125, np.nan]),
        "effective_rank": np.array([1.5, 2.0, 3.0, 1.0]),
        "singular": singular,
        "rank": np.array([3, 3, 3, 1], np.int32),
        "layer": np.array([0, 0, 1, -1], np.int32),
    }
    more = {
        "modules": json.dumps(MODULES),
        "parts": json.dumps(["mlp.up_proj", "self_attn.q_proj", "self_attn.q_proj", "lm_head"]),
        "base": "small@final",
        "method": "lora",
        "norm": "14.2",
        "total_relative": "0.03",
        "trained": "2048",
    }
    return tensors, more
