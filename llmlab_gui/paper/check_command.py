"""The command line that runs the same check as the form. Touches no Qt."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from llmlab.studies.papers.checks import CheckRequest


def command_line(request: CheckRequest, tested: Sequence[str]) -> str:
    """`llmlab-run paper run ...`. tested: all claims that could be asked for; asking for all needs no word."""
    words = ["llmlab-run", "paper", "run", request.paper.name, "--size", request.size]
    if request.claims and list(request.claims) != list(tested):
        words += ["--claims", ",".join(request.claims)]
    if request.seeds:
        words += ["--seeds", str(request.seeds)]
    for model in request.models:
        words += ["--model", model]
    if request.name:
        words += ["--name", request.name]
    return shlex.join(words)
