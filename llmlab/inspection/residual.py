"""The residual stream of a prompt, whole or in a few numbers for each layer and token.

With x_pre, x_mid, x_post the stream before a block, between its halves and after it (pre_attn, post_attn, post_ffn;
[C] for each token), a and m what attention and feed-forward add (attn_out, mlp_out), e the stream before the first
block and f the one after the last:

    norm                  |x_pre|, |a|, |x_mid|, |m|, |x_post|
    cosine attention      <x_pre, x_mid> / (|x_pre| |x_mid|): 1 where attention turns the stream not at all
    cosine feed_forward   of x_mid and x_post;   cosine block: of x_pre and x_post
    share                 <c, f> / <f, f> of a contribution c: its projection on what becomes of the token. Negative
                          where a contribution is undone later. f = e + sum of all a and m, so shares sum to 1
                          (as decompositions of the residual stream go; Elhage et al. 2021)
    heads                 |z_h W_O[h]|, what one head adds; see `into_stream` for norms and multipliers behind it

Cost: f is known only after the last block, and contributions may be too many to keep (L x 2 x T x C). They are put
aside meanwhile (`spill`), which is exact: in memory as many as logits will take, or 32 MB, the others in a file.
Shares are computed before logits are made, which then find that memory free. A head's norm is had from
z^T (W_O W_O^T) z, D x D numbers a head instead of D x C a token.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from llmlab.anatomy.anatomy import Anatomy
from llmlab.anatomy.capture import POINTS, Observer, Point
from llmlab.anatomy.into_stream import heads_into_stream
from llmlab.inspection.spill import Spill

_STREAM: tuple[Point, ...] = ("pre_attn", "post_attn", "post_ffn")
_CONTRIBUTIONS: dict[str, Point] = {"attention": "attn_out", "feed_forward": "mlp_out"}
# Bytes of contributions that stay in memory where logits take less, as those of one position do: with 72 MB, looking
# took 84 MB more than a plain pass that makes the last logits alone; the bar is 60.
_IN_MEMORY = 32_000_000


class ResidualStream(Observer):
    """Gives every point of every layer to `write` as it comes: residual/{point} [L, T, C], residual/final [T, C]."""

    def __init__(self, write: Callable[..., None]) -> None:
        """write: archive name, x [T, C] in float32 on the CPU, layer (not for residual/final)."""
        self._write = write

    def residual(self, layer: int, point: Point, x: Tensor) -> None:
        self._write(f"residual/{point}", x.float().cpu(), layer)

    def final(self, x: Tensor) -> None:
        self._write("residual/final", x.float().cpu())


class Contributions(Observer):
    """Norms, cosines, shares and head norms of a pass; see the module for what they are."""

    def __init__(self, anatomy: Anatomy, time: int, folder: Path | None = None, *, logits: int = 1) -> None:
        """time: tokens of the prompt. folder: for the temporary file: what of 4 x 2 L x T x C bytes is too much.

        logits: positions whose logits the pass makes.
        """
        self._anatomy = anatomy
        device = anatomy.unembedding.device
        self._norms = {point: torch.zeros(anatomy.n_layer, time, device=device) for point in _CONTRIBUTIONS.values()}
        self._stream = torch.zeros(3, time, anatomy.n_embd, device=device)  # of one block: x_pre, x_mid, x_post
        self._products = torch.zeros(anatomy.n_layer, time, 3, 3, device=device)  # of these with each other
        self._heads = torch.full((anatomy.n_layer, anatomy.n_head, time), torch.nan, device=device)
        self._embedding = torch.zeros(0)
        self._shares: dict[str, Tensor] = {}
        self._spill = Spill(folder, max(4 * logits * anatomy.vocab_size, _IN_MEMORY))
        self._places: dict[tuple[Point, int], int] = {}  # numbers in the spill

    def residual(self, layer: int, point: Point, x: Tensor) -> None:
        """Measures a point; keeps it until its block's end, a contribution until the last one."""
        x = x.float()
        if point in self._norms:
            self._norms[point][layer] = torch.linalg.vector_norm(x, dim=-1)
            self._places[point, layer] = self._spill.put(x)
            return
        self._stream[_STREAM.index(point)] = x
        if layer == 0 and point == "pre_attn":
            self._embedding = x.clone()
        elif point == "post_ffn":
            stream = self._stream.transpose(0, 1)  # [T, 3, C]
            self._products[layer] = stream @ stream.mT

    def heads(self, layer: int, z: Tensor) -> None:
        """Measures what each head of z [T, H, D] adds to the stream, where a family's heads can be trusted."""
        if self._anatomy.refusals.heads is None:
            self._heads[layer] = head_norms(self._anatomy, layer, z)

    def final(self, x: Tensor) -> None:
        """Measures the shares of the last stream."""
        final = x.float()
        whole, products = final.square().sum(-1), torch.empty_like(final)  # [T], [T, C]

        def share(contribution: Tensor) -> Tensor:
            return torch.mul(contribution, final, out=products).sum(-1) / whole

        self._shares["embedding"] = share(self._embedding)
        for name, point in _CONTRIBUTIONS.items():
            places = (self._places[point, layer] for layer in range(self._anatomy.n_layer))
            self._shares[name] = torch.stack([share(self._spill.get(place)) for place in places])
        self._spill.close()

    def results(self) -> dict[str, Tensor]:
        """contributions/norm/{point} [L, T], /cosine/{attention|feed_forward|block} [L, T],
        /share/{attention|feed_forward} [L, T], /share/embedding [T], /heads [L, H, T],
        which is NaN where there are no heads to trust.
        """
        norms = self._products.diagonal(dim1=2, dim2=3).sqrt().unbind(-1)
        points = self._norms | dict(zip(_STREAM, norms, strict=True))
        found = {f"contributions/norm/{point}": points[point] for point in POINTS}
        for name, one, other in (("attention", 0, 1), ("feed_forward", 1, 2), ("block", 0, 2)):
            found[f"contributions/cosine/{name}"] = self._products[..., one, other] / (norms[one] * norms[other])
        found |= {f"contributions/share/{name}": share for name, share in self._shares.items()}
        return found | {"contributions/heads": self._heads}


def head_norms(anatomy: Anatomy, layer: int, z: Tensor) -> Tensor:
    """Norm of what each head adds to the stream: z [T, H, D] -> [H, T]."""
    into = heads_into_stream(anatomy.blocks[layer])
    weight = into.weight.unflatten(0, (z.shape[1], -1))  # [H, D, C]
    gram = weight @ weight.transpose(1, 2)  # [H, D, D]
    answers = z.transpose(0, 1).to(weight.dtype)  # [H, T, D]
    squares = (answers @ gram).mul_(answers).sum(-1).clamp_min_(0)  # rounding may leave a zero below zero
    return squares.sqrt_() * into.frozen(z.flatten(-2))[:, 0]
