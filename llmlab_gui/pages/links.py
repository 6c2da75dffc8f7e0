"""Where a link of a page leads: read once, for whoever follows it and for whoever checks it.

    concept:attention   concept:results/learnings           a page, by its name; loss#floor is a term on it
    glossary:head-output                                    a term's entry in the glossary
    dock:loss                                               a panel
    workspace:look-inside?model=first-gpt@final&prompt=...  a workspace; in it a model, and what it reads
    lab:run?preset=baby&steps=300&model.n_layer=2           a run's set-up, filled in
    lab:finetune?base=first-gpt@final&method=full           the same, of fine-tuning
    lab:experiment?kind=learning-rate                       the same, of an experiment
    paper:grokking   paper:grokking/fourier                 a paper, a claim, in the workspace Paper
    paper:attention-sinks/sink?model=first-gpt@final        the same, with a check of it on that model set up
    report.md   ../fine-tuning.md   results.json            a page or another file, by its way from the page
    https://...                                             the web

A set-up link can name the run (`name=...`) and the workspace it is filled in (`workspace=learn`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from llmlab.core.config import with_values
from llmlab.core.errors import UsageError
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.presets import DEFAULT_PRESET, FINETUNE_PRESET, of_preset
from llmlab.core.settings import PretrainSettings
from llmlab.data.papers import read_paper
from llmlab.studies.experiments.kinds import find_kind
from llmlab_gui.pages.places import DOCK_IDS, WORKSPACES

PAGE, FILE, DOCK, WORKSPACE, RUN, FINETUNE, EXPERIMENT, PAPER, WEB = (
    "page",
    "file",
    "dock",
    "workspace",
    "run",
    "finetune",
    "experiment",
    "paper",
    "web",
)
# The short words of a set-up link, as on the command line.
_OF_RUNS = {"corpus": "data.corpus", "steps": "train.steps", "seed": "train.seed"}
_OF_FINETUNING = {"base": "model.base", "method": "model.method", "steps": "train.steps", "seed": "train.seed"}


@dataclass(frozen=True)
class Link:
    """kind: one of those above. target: a name, `glossary#token` of a term, "" for a set-up. values: what it is opened
    or filled with.

    workspace: the one to arrange first, "" to leave the panels where they are.
    """

    kind: str
    target: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    workspace: str = ""


def workspace_slug(workspace: str) -> str:
    """As links write it: `Look inside` is look-inside."""
    return workspace.lower().replace(" ", "-")


def read_link(url: str) -> Link:
    """What a link asks for. UsageError when it leads nowhere: an unknown panel, a setting that cannot be."""
    parts = urlsplit(url)
    values = dict(parse_qsl(parts.query, keep_blank_values=True))
    name = unquote(parts.path)
    if parts.scheme in ("http", "https"):
        return Link(WEB, url)
    if parts.scheme == "concept":
        return Link(PAGE, f"{name}#{parts.fragment}" if parts.fragment else name)
    if parts.scheme == "glossary":
        return Link(PAGE, f"glossary#{name}")
    if parts.scheme == "dock":
        if name not in DOCK_IDS:
            raise UsageError(f"{url} names no dock.", f"There are: {', '.join(DOCK_IDS)}.")
        return Link(DOCK, name)
    if parts.scheme == "workspace":
        return _workspace_link(name, values)
    if parts.scheme == "paper":
        return _paper_link(name, values)
    if parts.scheme == "lab":
        return _setup_link(url, name, values)
    if not parts.scheme and not parts.netloc and name and not name.startswith("/"):
        return Link(FILE, name)
    raise UsageError(f"{url!r} leads nowhere.", "A run is written lab:run?preset=baby&steps=300.")


def _paper_link(name: str, values: dict[str, str]) -> Link:
    paper, _, claim = name.partition("/")
    found = read_paper(paper)
    if claim:
        claim = found.claim(claim).id
    if values and (not claim or set(values) != {"model"}):
        raise UsageError(f"{name} cannot be set up like that.", "A claim's link can have model=... and nothing else.")
    return Link(PAPER, paper, {"claim": claim, **values})


def _workspace_link(slug: str, values: dict[str, str]) -> Link:
    if wrong := sorted(set(values) - {"model", "prompt"}):
        raise UsageError(f"A workspace is not opened with {wrong[0]!r}.", "It can have model=... and prompt=....")
    return Link(WORKSPACE, _workspace_of(slug), values)


def _workspace_of(slug: str) -> str:
    known = {workspace_slug(workspace): workspace for workspace in WORKSPACES}
    if slug not in known:
        raise UsageError(f"workspace:{slug} names no workspace.", f"There are: {', '.join(known)}.")
    return known[slug]


def _setup_link(url: str, kind: str, values: dict[str, str]) -> Link:
    slug = values.pop("workspace", "")
    workspace = _workspace_of(slug) if slug else ""
    if kind == RUN:
        filled = _settings(values, _OF_RUNS, DEFAULT_PRESET)
        with_values(of_preset(PretrainSettings, filled["preset"]), _overrides(filled))
    elif kind == FINETUNE:
        filled = _settings(values, _OF_FINETUNING, FINETUNE_PRESET)
        with_values(of_preset(FinetuneSettings, filled["preset"]), _overrides(filled))
    elif kind == EXPERIMENT:
        filled = {"kind": find_kind(values.get("kind", "")).name}
    else:
        raise UsageError(f"{url!r} leads nowhere.", "A run is written lab:run?preset=baby&steps=300.")
    return Link(kind, "", filled, workspace)


def _settings(values: Mapping[str, str], short: Mapping[str, str], preset: str) -> dict[str, str]:
    return {"preset": preset, **{short.get(key, key): value for key, value in values.items()}}


def _overrides(filled: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in filled.items() if key not in ("preset", "name")}
