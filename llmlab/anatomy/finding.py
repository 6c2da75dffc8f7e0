"""Finds the parts of an open model: of the lab's own GPT here, of others in `llmlab.anatomy.families`."""

from __future__ import annotations

from torch import nn

from llmlab.anatomy.anatomy import Anatomy, BlockAnatomy, FinalNorm, HookPoint
from llmlab.gpt.model import GPT, Block, Norm
from llmlab.gpt.shapes import width_ratio


def anatomy_of(model: nn.Module) -> Anatomy:
    """The anatomy of an open model. LabError, with the reason, when nothing of it could be trusted."""
    if isinstance(model, GPT):
        return scratch_anatomy(model)
    from llmlab.anatomy.families import transformers_anatomy  # loads transformers, which takes seconds

    return transformers_anatomy(model)


def scratch_anatomy(model: GPT) -> Anatomy:
    """The lab's own GPT, in all its settings: sequential and pre-norm."""
    described = [block for block in model.blocks if isinstance(block, Block)]
    first = described[0].attention
    blocks = tuple(
        BlockAnatomy(
            block=block,
            attn=HookPoint(block.attention),
            mlp=HookPoint(block.feed_forward),
            attention=block.attention,
            projection=block.attention.out,
            mid=block.feed_forward_norm,
            neurons=getattr(block.feed_forward, "down", None),  # none in a model that is attention alone
        )
        for block in described
    )
    return Anatomy(
        family="scratch GPT",
        blocks=blocks,
        embedding=model.token_embedding,
        final_norm=model.final_norm,
        norm=FinalNorm(model.final_norm.kind, model.final_norm.weight, model.final_norm.bias, Norm.EPS),
        unembedding=model.unembedding,
        n_head=first.n_head,
        n_kv_head=first.n_kv_head,
        head_dim=first.head_dim,
        context=model.settings.block_size,
        logit_scale=1 / width_ratio(model.settings),
        logit_softcap=model.settings.logit_softcap or None,
        attention_path="recomputed from the queries and keys of the pass",
    )
