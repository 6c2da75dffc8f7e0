"""Letting an open model write, token by token, whatever it was opened from."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import nn

from llmlab.anatomy.modules import base_model
from llmlab.core.progress import Progress, quiet
from llmlab.core.settings import Sampling
from llmlab.data.chat_formats import chat_format
from llmlab.data.examples import Example, Message
from llmlab.data.hf_tokenizer import HuggingFaceTokenizer
from llmlab.data.tokenizers import TextTokenizer
from llmlab.gpt.generate import NextToken, choose, generate
from llmlab.gpt.model import GPT
from llmlab.models.bigrams import Bigrams
from llmlab.models.model import OpenModel, context_limit_of
from llmlab.models.replies import Chances, Expected, SamplingStep, WrittenToken

_UNLIMITED = 1 << 20  # tokens of a model that nothing limits but time and memory


def write(
    opened: OpenModel, prompt: str, tokens: int, how: Sampling, *, seed: int, top: int = 0, chat: bool = False
) -> Iterator[WrittenToken]:
    """Continues `prompt`, token by token; where the model writes an end of text, that is the last one.

    Of a long prompt the model sees the end alone (`unread`).

    chat: the prompt is what a user says, and the model answers it, until its turn ends (`llmlab.data.chat`).
    LabError where the vocabulary lacks the prompt's characters.
    """
    ids, ends = _asked(opened, prompt, chat)
    drawn = continued(opened.model, ids, tokens, how, seed=seed)
    for token, text in _spoken(opened.tokenizer, ids, _until_over(opened, drawn, ends)):
        steps = tuple(_steps(opened, token, top)) if top else ()
        yield WrittenToken(text, token.probability, _named(opened, token, top), steps)


def text_after(tokenizer: TextTokenizer, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """The text that `ids` add to a prompt. By themselves they may read otherwise: many tokenizers drop the space that
    a text begins with."""
    return tokenizer.decode([*prompt, *ids])[len(tokenizer.decode(prompt)) :]


def _until_over(opened: OpenModel, drawn: Iterator[NextToken], ends: tuple[int, ...]) -> Iterator[NextToken]:
    """The tokens of an answer: before what ends a turn, and with what ends a text."""
    for token in drawn:
        if token.id in ends:
            return
        yield token
        # Models of transformers know their ends; to one trained here it is the id between documents.
        if isinstance(opened.model, GPT) and token.id == opened.tokenizer.beginning:
            return


def _spoken(
    tokenizer: TextTokenizer, prompt: Sequence[int], drawn: Iterator[NextToken]
) -> Iterator[tuple[NextToken, str]]:
    """Each token with the text that it adds: the texts join to `text_after`, and none is changed by a later token.

    A token whose text could still change waits for the next: bytes of a character that is not whole, which read as
    U+FFFD, and single bytes, which a tokenizer that spells by them reads a whole run at a time.

    Only a window of the ids is decoded: from before the last token whose text was certain, so that what a tokenizer
    does to the beginning of a text is done to text that was already given out. Beyond neighbours no token's text
    depends on others.
    """
    window = list(prompt)
    before = tokenizer.decode(window)
    shown, start = len(before), len(window)  # characters given out, and tokens to which they belong
    waiting: NextToken | None = None
    for token in drawn:
        window.append(token.id)
        text = tokenizer.decode(window)
        certain = max(shown, _certain(tokenizer, token.id, text))
        if waiting is not None:
            same = takewhile(lambda pair: pair[0] == pair[1], zip(before[shown:], text[shown:certain], strict=False))
            agreed = shown + len(list(same))
            yield waiting, text[shown:agreed]
            shown, waiting = agreed, None
        before = text
        if certain != len(text):
            waiting = token
            continue
        yield token, text[shown:]
        shown = len(text)
        if last := tokenizer.decode(window[start:]):
            window, before, shown = window[start:], last, len(last)
        start = len(window)
    if waiting is not None:
        yield waiting, before[shown:]


def _certain(tokenizer: TextTokenizer, last: int, text: str) -> int:
    """How many characters of a text that ends with the token `last` no later token can change, at least."""
    if isinstance(tokenizer, HuggingFaceTokenizer) and tokenizer.is_byte(last):
        return 0
    return len(text) - text.endswith("\ufffd")


def unread(opened: OpenModel, prompt: str, *, chat: bool = False) -> int:
    """How many tokens at the beginning of a prompt are more than the model's context holds, so that it misses them."""
    return _unread(opened, _asked(opened, prompt, chat)[0])


def _unread(opened: OpenModel, ids: Sequence[int]) -> int:
    return max(0, len(ids) - (context_limit_of(opened.model) or _UNLIMITED))


def continued(model: nn.Module, prompt: list[int], tokens: int, how: Sampling, *, seed: int) -> Iterator[NextToken]:
    """`llmlab.gpt.generate.generate` for any model; those that have an end of text may end before `tokens`."""
    if isinstance(model, GPT):
        return generate(model, prompt, tokens, how, seed=seed)
    return _continued(base_model(model), prompt, tokens, how, seed)


@torch.no_grad()
def next_tokens(
    opened: OpenModel,
    prompt: str,
    top: int,
    *,
    chat: bool = False,
    bigrams: Bigrams | None = None,
    progress: Progress = quiet,
) -> Expected:
    """The `top` most likely next tokens. chat: as above. bigrams: of its training text. progress: of counting them."""
    ids, _ = _asked(opened, prompt, chat)
    if isinstance(opened.model, GPT):
        logits = opened.model.next_token(torch.tensor([ids]))[0].float()
    else:
        window = torch.tensor([ids[-(context_limit_of(opened.model) or _UNLIMITED) :]])
        logits = opened.model(input_ids=window, use_cache=False, logits_to_keep=1).logits[0, -1].float()
    p = logits.softmax(-1)
    entropy = float(-(p * p.clamp_min(torch.finfo(p.dtype).tiny).log()).sum())
    following = NextToken(int(logits.argmax()), logits)
    beside = None
    if bigrams is not None:
        shown = [id for id, _ in following.top(top)]
        beside = bigrams.beside(p.numpy(), shown, ids[-1], opened.tokenizer.token_text, progress)
    return Expected(_named(opened, following, top), entropy, _unread(opened, ids), beside)


@torch.no_grad()
def _continued(model: nn.Module, prompt: list[int], tokens: int, how: Sampling, seed: int) -> Iterator[NextToken]:
    """For a model of transformers, which keeps keys and values of earlier tokens.

    Ends after the end of text. Beyond the model's context the oldest half of the text is forgotten.
    """
    generator, device = torch.Generator().manual_seed(seed), next(model.parameters()).device
    context, ends = context_limit_of(model) or _UNLIMITED, _ends(model)
    text = ids = list(prompt)[-context:]  # all of it, and what the model still sees
    # transformers 5.24 gave the argument and the field another name.
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    fresh, cache = ids, None  # what the cache lacks
    for _ in range(tokens):
        if len(ids) > context:
            ids = ids[-max(1, context // 2) :]
            fresh, cache = ids, None
        output = model(
            input_ids=torch.tensor([fresh], device=device), use_cache=True, logits_to_keep=1, **{name: cache}
        )
        cache = output[name]
        logits = output.logits[0, -1].float().cpu()  # [vocab_size]
        token = choose(logits, how, text, generator)
        yield token
        if token.id in ends:
            return
        fresh = [token.id]
        text, ids = text + fresh, ids + fresh


def _ends(model: nn.Module) -> set[int]:
    """Ids after which its text is over."""
    settings: Any = getattr(model, "generation_config", None)
    ends = getattr(settings, "eos_token_id", None)
    return {int(id) for id in (ends if isinstance(ends, list) else [ends]) if id is not None}


def _named(opened: OpenModel, token: NextToken, top: int) -> Chances:
    return tuple((opened.tokenizer.token_text(id), p) for id, p in token.top(top)) if top else ()


def _steps(opened: OpenModel, token: NextToken, top: int) -> Iterator[SamplingStep]:
    before, p = token.logits, token.logits.softmax(-1)
    for name, after in token.steps:
        # What softmax rounds to 0 can be drawn all the same.
        p_after = after.softmax(-1).clamp(min=torch.finfo(p.dtype).tiny).masked_fill(after == -torch.inf, 0.0)
        ids = before.topk(min(top, int((before > -torch.inf).sum()))).indices
        texts = (opened.tokenizer.token_text(id) for id in ids.tolist())
        rows = tuple(zip(texts, p[ids].tolist(), p_after[ids].tolist(), strict=True))
        yield SamplingStep(name, int((after > -torch.inf).sum()), rows)
        before, p = after, p_after


def _asked(opened: OpenModel, prompt: str, chat: bool) -> tuple[list[int], tuple[int, ...]]:
    """The ids that the model continues, and those that end its turn in a chat."""
    if not chat:
        return _ids(opened, prompt), ()
    spoken = Example(1, (Message("user", prompt.encode(errors="replace").decode()),))
    form = chat_format(opened.tokenizer)
    return form.prompt_ids(spoken), form.end_ids


def _ids(opened: OpenModel, prompt: str) -> list[int]:
    """At least one id: an empty prompt is the start of a text. Half of a surrogate pair reads as `?`."""
    ids = opened.tokenizer.encode(prompt.encode(errors="replace").decode())
    return ids or [opened.tokenizer.beginning or 0]
