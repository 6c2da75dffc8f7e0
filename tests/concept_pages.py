"""Concept pages as their tests read them, and the toy that the pages compute with."""

from __future__ import annotations

import re

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from llmlab.core.paths import resources_dir
from llmlab.gpt.model import GPT
from llmlab.gpt.toy import WORDS

FOLDER = resources_dir() / "concepts"


def page(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def rows_of(name: str, first: str) -> list[list[str]]:
    """The cells of the table whose first head is `first`, without heads."""
    found = re.search(rf"^\| {re.escape(first)} \|.*\n\| ---.*\n((?:\|.*\n)+)", page(name), re.MULTILINE)
    assert found is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]


def written(value: float, as_in: str) -> str:
    """With as many decimals."""
    return f"{value:.{len(as_in.partition('.')[2])}f}"


def losses_of(toy: GPT, ids: Tensor, targets: Tensor) -> Tensor:
    """Loss by position, [B, T]."""
    return cross_entropy(toy(ids).transpose(1, 2), targets, reduction="none")


def ids_of(text: str) -> Tensor:
    return torch.tensor([[WORDS.index(word) for word in text.split()]])
