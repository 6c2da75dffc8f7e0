"""What the probe found, kept in the cache folder, so that a model that is opened again is not probed again.

A probe takes about four short passes; knowing a model again takes one reading of its weights. It is known by what
the verdict can depend on: the modules it is made of, their code and their settings, its weights, the lab's code that
reads them, and the versions of the libraries. Weights count by the sum of their bits as whole numbers: exact in any
order, as fast as memory, and another one as soon as a file is replaced. It is no proof against someone who wants it to
be equal; a cryptographic digest would take longer than the probe itself.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from llmlab.anatomy.anatomy import Anatomy, Refusals
from llmlab.anatomy.modules import base_model
from llmlab.anatomy.probe import probe
from llmlab.core.files import write_json
from llmlab.core.paths import cache_dir
from llmlab.core.records import read_record

_LIBRARIES = ("torch", "transformers")
_KEPT = 500  # verdicts, the last used ones: each checkpoint that was looked into has one, of some hundred bytes


@dataclass(frozen=True)
class _Verdict:
    """All that a probe adds to an anatomy."""

    refusals: Refusals
    n_kv_head: int
    head_dim: int


def probed_once(model: nn.Module, anatomy: Anatomy) -> Anatomy:
    """`llmlab.anatomy.probe.probe`, or what it found when this very model was opened before. Errors are not kept."""
    file = cache_dir() / "probes" / f"{_fingerprint(model, anatomy)}.json"
    known = read_record(_Verdict, file)
    if known is not None and known.n_kv_head > 0 and known.head_dim > 0:
        with contextlib.suppress(OSError):
            os.utime(file)  # it was used: others go before it
        return replace(anatomy, refusals=known.refusals, n_kv_head=known.n_kv_head, head_dim=known.head_dim)
    found = probe(model, anatomy)
    with contextlib.suppress(OSError):  # a cache that cannot be written: the next one probes again
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, asdict(_Verdict(found.refusals, found.n_kv_head, found.head_dim)), durable=False)
        by_age = sorted(file.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for old in by_age[:-_KEPT]:
            old.unlink(missing_ok=True)
    return found


@torch.no_grad()
def _fingerprint(model: nn.Module, anatomy: Anatomy) -> str:
    """Hex digest of all that the verdict can depend on."""
    digest = hashlib.sha256()
    codes = {getattr(sys.modules.get(type(module).__module__), "__file__", None) for module in model.modules()}
    written = {Path(code) for code in codes if code is not None and Path(code).is_file()}
    for path in sorted(written.union(Path(__file__).parent.glob("*.py"))):
        digest.update(path.read_bytes())
    config = getattr(base_model(model), "config", None)
    digest.update(f"{_versions()} {anatomy.family} {config} {getattr(model, 'peft_config', None)}\n".encode())
    for name, module in model.named_modules():
        kind = type(module)
        digest.update(f"{name} {kind.__module__}.{kind.__qualname__} {module.extra_repr()}\n".encode())
    for name, weight in chain(model.named_parameters(), model.named_buffers()):
        about = f"{name} {tuple(weight.shape)} {weight.dtype} {weight.device.type}"
        digest.update(f"{about} {_sum_of_bits(weight)}\n".encode())
    return digest.hexdigest()[:32]


@functools.cache
def _versions() -> list[str]:
    """To look for one in all installed packages takes milliseconds."""
    return [metadata.version(name) for name in _LIBRARIES]


def _sum_of_bits(weight: Tensor) -> int:
    """The bytes of a weight, eight at a time, as whole numbers added up with what overflows left out.

    A part of a larger tensor may begin between two such eights: then each byte is a number.
    """
    if weight.is_meta or not weight.numel():
        return 0
    flat = weight.detach().contiguous()
    raw = flat.as_strided((flat.numel(),), (1,)).view(torch.uint8)  # the stride of a single number may be 0
    whole = len(raw) // 8 * 8 if raw.storage_offset() % 8 == 0 else 0
    eights = int(raw[:whole].view(torch.int64).sum()) if whole else 0
    return eights + int(raw[whole:].sum(dtype=torch.int64))
