"""Singular values and principal components of matrices of any size: exact where that is quick, else by iteration.

A [n, m] has singular values s_1 >= s_2 >= ... and right singular vectors v_i, A^T A v_i = s_i^2 v_i.

Randomised subspace iteration (Halko, Martinsson & Tropp 2011, "Finding Structure with Randomness", algorithm 4.4):
begin with k + 10 random directions Q, repeat Q <- orthonormalised A^T A Q, then solve the small problem within Q.
An error of the i-th value shrinks with each round by (s_{k+11} / s_i)^4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from llmlab.core.progress import Progress, quiet

# Multiplications that an exact answer may take: some seconds on two cores.
_EXACT = 2e11
_WIDEST = 2048  # an eigenproblem of this size takes some seconds
_ROUNDS, _SPARE = 8, 10
_ROWS = 8192  # read at once, in float64


@dataclass(frozen=True)
class Principal:
    """Principal components of rows x_1 .. x_n in m dimensions, with c the mean row.

    components [k, m], orthonormal, by falling variance, each with its largest entry positive; mean [m];
    variance [k or m]: s_i^2 / n, all of them where `exact`, else the first k; total: the sum of all m, always exact.
    """

    components: Tensor
    mean: Tensor
    variance: Tensor
    total: float
    exact: bool


def principal_components(matrix: Tensor, count: int, progress: Progress = quiet) -> Principal:
    """PCA: the SVD of the rows [n, m] minus their mean row, in float64, by way of their covariance [m, m]."""
    rows, width = matrix.shape
    count = min(count, width)
    mean = sum((part.sum(0) for part in _parts(matrix)), torch.zeros(width, dtype=torch.float64)) / rows
    total = float(sum((part - mean).square().sum() for part in _parts(matrix)) / rows)
    exact = width <= _WIDEST and rows * width**2 <= _EXACT
    if exact:
        covariance = torch.zeros(width, width, dtype=torch.float64)
        for done, part in enumerate(_parts(matrix)):
            progress("Principal components", done * _ROWS, rows)
            centred = part - mean
            covariance += centred.T @ centred / rows
        variance, vectors = torch.linalg.eigh(covariance)
        variance, components = variance.flip(0).clamp_min(0), vectors.T.flip(0)[:count]
    else:
        values, components = _iterate(matrix, mean, count, progress)
        variance = values.square() / rows
    largest = components.abs().argmax(1, keepdim=True)
    return Principal(components * components.gather(1, largest).sign(), mean, variance, total, exact)


def singular_values(matrix: Tensor, count: int, progress: Progress = quiet) -> tuple[Tensor, bool]:
    """The largest singular values [k], falling, and whether all min(n, m) of them are there, which is exact."""
    rows, width = matrix.shape
    if rows * width * min(rows, width) <= _EXACT and min(rows, width) <= _WIDEST:
        return torch.linalg.svdvals(matrix.float()), True
    tall = matrix if rows >= width else matrix.T
    return _iterate(tall, torch.zeros(tall.shape[1], dtype=torch.float64), count, progress)[0], False


def _iterate(matrix: Tensor, mean: Tensor, count: int, progress: Progress) -> tuple[Tensor, Tensor]:
    """The first singular values [k] and right singular vectors [k, m] of the rows minus `mean`."""
    width = matrix.shape[1]
    generator = torch.Generator().manual_seed(0)  # of its own: a training run that is asked keeps its random numbers
    q = torch.randn(width, min(count + _SPARE, width), generator=generator, dtype=torch.float64)
    for done in range(_ROUNDS):
        progress("Principal directions", done, _ROUNDS)
        q = torch.linalg.qr(_gram_times(matrix, mean, torch.linalg.qr(q).Q)).Q
    values, turn = torch.linalg.eigh(q.T @ _gram_times(matrix, mean, q))
    return values.flip(0)[:count].clamp_min(0).sqrt(), (q @ turn).T.flip(0)[:count]


def _gram_times(matrix: Tensor, mean: Tensor, q: Tensor) -> Tensor:
    """(A - c)^T (A - c) Q, a few rows at a time."""
    product = torch.zeros_like(q)
    for part in _parts(matrix):
        centred = part - mean
        product += centred.T @ (centred @ q)
    return product


def _parts(matrix: Tensor) -> Iterator[Tensor]:
    for first in range(0, len(matrix), _ROWS):
        yield matrix[first : first + _ROWS].cpu().double()
