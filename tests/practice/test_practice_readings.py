"""Questions that are read off a model: everything is computed again, from the model's own parts."""

from __future__ import annotations

import math
import re
from itertools import product
from pathlib import Path
from random import Random

import pytest
import torch
import torch.nn.functional as F
from asked import ask, middle
from torch import Tensor

from llmlab.core.signs import quoted
from llmlab.gpt.model import GPT
from llmlab.practice import readings
from llmlab.practice.kinds import NothingToAsk
from llmlab.practice.subject import Subject, subject_of

SEEDS = (0, 1, 2)


class Pass:
    """A forward pass of the lab's GPT, written out: patterns by layer, streams, what each part adds."""

    @torch.no_grad()
    def __init__(self, model: GPT, ids: Tensor) -> None:
        time = len(ids)
        x = model.token_embedding(ids)[None]
        if model.settings.position == "learned":
            x = x + model.position_embedding.weight[:time]
        self.patterns, self.added, self.streams, self.by_head = [], [("embedding", x[0, -1])], [x[0]], {}
        future = torch.ones(time, time).triu(1).bool()
        self.norms: dict[str, float] = {}
        for layer, block in enumerate(model.blocks):
            attention = block.attention
            q, k, v = attention.heads(attention.qkv(block.attention_norm(x)))
            pattern = (q @ k.transpose(2, 3) * attention.scale).masked_fill(future, -math.inf).softmax(-1)
            self.patterns.append(pattern[0])
            z = (pattern @ v).transpose(1, 2).flatten(2)
            dim = attention.head_dim
            for head in range(attention.n_head):
                part = slice(head * dim, (head + 1) * dim)
                self.by_head[layer, head] = z[0, -1, part] @ attention.out.weight[:, part].T
            add = attention.out(z)
            self.added.append((f"attention of layer {layer}", add[0, -1]))
            x = x + add
            self.streams.append(x[0])
            add = block.feed_forward(block.feed_forward_norm(x))
            self.added.append((f"feed-forward of layer {layer}", add[0, -1]))
            x = x + add
            self.streams.append(x[0])
        self.logits = model.logits(model.final_norm(x))[0, :, : model.vocab_size]
        self.model = model

    @torch.no_grad()
    def read(self, row: int) -> Tensor:
        """Logits of the lens at the last position: streams 0, after layer 0, 1 ..."""
        return self.model.logits(self.model.final_norm(self.streams[2 * row][-1:]))[0, : self.model.vocab_size]

    @torch.no_grad()
    def bar(self, added: Tensor, id: int) -> float:
        """How much a vector at the last position adds to a token's logit, with the last norm's size frozen."""
        last, norm = self.streams[-1][-1], self.model.final_norm
        size = (
            (last - last.mean()).pow(2).mean().add(norm.EPS).sqrt()
            if norm.kind == "layernorm"
            else last.pow(2).mean().add(norm.EPS).sqrt()
        )
        centred = added - added.mean() if norm.kind == "layernorm" else added
        return float((centred / size * norm.weight) @ self.model.unembedding[id])


def test_readings_are_those_of_a_pass_written_out(
    subject: Subject, model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    passages = {seed: subject.ids(Random(seed), 12) for seed in SEEDS}
    monkeypatch.setattr(Subject, "passage", property(lambda self: passages[self.seed]))  # one for all kinds
    for seed in SEEDS:
        ask(subject, "how-many-tokens", seed)
        ids = torch.tensor(subject.seen.metadata.token_ids)
        made, tokens = Pass(model, ids), subject.seen.metadata.tokens
        pairs = list(product(range(2), range(2)))
        by_row = {pair: made.patterns[pair[0]][pair[1]][1:] for pair in pairs}
        places = torch.arange(len(ids))
        behind = places[1:, None] - places
        entropies = {pair: float(-(rows * (rows + 1e-30).log()).sum(1).mean()) for pair, rows in by_row.items()}
        scores = {
            "previous-token-head": {pair: float(rows.diagonal().mean()) for pair, rows in by_row.items()},
            "first-token-head": {pair: float(rows[:, 0].mean()) for pair, rows in by_row.items()},
            "farthest-head": {pair: float((rows * behind).sum(1).mean()) for pair, rows in by_row.items()},
            "sharpest-head": {pair: -entropy for pair, entropy in entropies.items()},
            "widest-head": entropies,
        }
        answer = int(made.logits[-1].argmax())
        scores["carried-by-head"] = {pair: made.bar(added, answer) for pair, added in made.by_head.items()}
        for name, of_heads in scores.items():
            best = max(of_heads, key=lambda pair: of_heads[pair])
            assert f"{best[0]}.{best[1]}" in ask(subject, name, seed).right, name

        def text(id: int | Tensor) -> str:
            return quoted(subject.opened.tokenizer.token_text(int(id)))

        reads = [int(made.read(row).argmax()) for row in range(3)]
        settled = next(row for row in range(3) if all(read == reads[-1] for read in reads[row:]))
        losses = F.cross_entropy(made.logits[:-1], ids[1:], reduction="none")
        worst = int(losses.argmax()) + 1
        chances = made.logits[-1].softmax(-1)
        bars = {name: made.bar(added, answer) for name, added in made.added}
        longest = max(made.added[1:], key=lambda pair: float(pair[1].norm()))[0]
        turns = [
            float(F.cosine_similarity(made.streams[2 * n][-1], made.streams[2 * n + 2][-1], dim=0)) for n in range(2)
        ]
        answers = {
            "settled-after": ("before layer 0", "after layer 0", "after layer 1")[settled],
            "lens-before-blocks": text(reads[0]),
            "most-likely-next": text(answer),
            "worst-predicted": f"{worst}: {quoted(tokens[worst])}",
            "carried-by": max(bars, key=lambda name: bars[name]),
            "loudest-part": longest,
            "turned-most": f"layer {turns.index(min(turns))}",
        }
        for name, expected in answers.items():
            assert ask(subject, name, seed).answer == expected, name
        growth = made.streams[-1].norm(dim=1).mean() / made.streams[0].norm(dim=1).mean()
        values = {
            "surest-share": 100 * float(chances.max()),
            "passage-loss": float(losses.mean()),
            "uncertainty": float((-(chances * chances.log()).sum()).exp()),
            "stream-growth": float(growth),
        }
        for name, number in values.items():
            assert middle(ask(subject, name, seed)) == pytest.approx(number, rel=1e-3), name
        for name in ("looked-at", "weight-on-first", "effective-tokens"):
            question = ask(subject, name, seed)
            layer, head = re.findall(r"head (\d+)\.(\d+)", question.text)[0]
            row = made.patterns[int(layer)][int(head)][-1]
            if name == "looked-at":
                assert question.answer == f"{int(row.argmax())}: {quoted(tokens[int(row.argmax())])}"
            else:
                number = float(row[0]) if name == "weight-on-first" else float((-(row * row.log()).sum()).exp())
                assert middle(question) == pytest.approx(number, rel=1e-3)
        early = ask(subject, "ranked-early", seed)
        row = 0 if "before layer 0" in early.text else 1
        rank = int((made.read(row) > made.read(row)[answer]).sum()) + 1
        assert early.how == f"The lens gives it rank {rank:,} there."
        assert early.choices[-1] == f"11 to {model.vocab_size}"  # no rank is behind the last token
        low, _, high = early.answer.partition(" to ")
        assert int(low) <= rank <= int(high or low)
        made_of = ask(subject, "how-many-tokens", seed)
        words = eval(made_of.text.split(" make of ")[1].rsplit(" (", 1)[0])
        assert str(len(subject.opened.tokenizer.encode(words))) == made_of.answer


def test_readings_of_one_day_are_of_different_passages(subject: Subject) -> None:
    names = ("most-likely-next", "passage-loss", "carried-by", "previous-token-head", "without-a-head")
    prompts = [ask(subject, name, 3).prompt for name in names]
    assert len(set(prompts)) == len(names)
    assert [ask(subject, name, 3).prompt for name in names] == prompts


def test_where_no_head_finds_repeats_none_is_asked_for(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "_FOUND", 0.1)
    assert float(subject.seen["heads/induction"].max()) < 0.1  # of a model that was trained for a few steps
    with pytest.raises(NothingToAsk):
        ask(subject, "induction-head")


def test_a_passage_is_no_row_of_spaces(practised: Path) -> None:
    indented = subject_of("run", practised)
    indented.__dict__["text"] = ("the king of the ring " + 30 * " ") * 40
    for seed in range(20):
        assert indented.opened.tokenizer.decode(indented.ids(Random(seed), 12)).strip()


def test_heads_that_find_repeats_are_found_on_repeats(subject: Subject, model: GPT) -> None:
    for name, shift in (("induction-head", 1), ("duplicate-head", 0)):
        scores = subject.seen[f"heads/{name.removesuffix('-head')}"]
        layer, head = divmod(int(scores.argmax()), 2)
        assert f"{layer}.{head}" in ask(subject, name).right, (name, shift)


def test_a_line_break_of_the_prompt_is_the_sign_that_panels_have_for_it(subject: Subject) -> None:
    with subject.reading("To be\n\nor"):
        question = ask(subject, "first-token-head", 1)
        assert quoted(subject.prompt) in question.text
        assert "⏎⏎" in question.text
        assert "\n" in question.prompt  # which its panel reads
    assert "\\n" not in question.text
