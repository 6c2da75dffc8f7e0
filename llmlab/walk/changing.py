"""Where in the model the numbers of a change are set."""

from __future__ import annotations

from collections.abc import Iterator

from llmlab.core.errors import UsageError
from llmlab.walk.attending import normed_query, projected
from llmlab.walk.changes import Changes
from llmlab.walk.place import Place
from llmlab.walk.watched import Setting


def settings_of(place: Place, changes: Changes) -> Iterator[Setting]:
    """Those that modules get or give; what is changed in the stream or in attention is none. place: without changes.

    UsageError for a number that this family has nowhere by itself.
    """
    parts, seen, anatomy, p = place.parts, place.seen, place.anatomy, place.position
    modules = {
        "embedding": anatomy.embedding,
        "norm": seen.norm,
        "output_projection": parts.out,
        "feed_forward_norm": seen.feed_forward_norm,
        "up": parts.up,
        "gate": parts.up if parts.gated_up else parts.gate,
        "neurons": parts.down,
        "down": parts.down,
        "rest": anatomy.final_norm,
        "final_norm": anatomy.final_norm,
    }
    for name, (component, number) in changes.vectors.items():
        if name in ("query", "key", "value"):
            one = projected(place).get(name)
            if one is None:
                raise _nowhere(name)
            at = p if name == "query" else place.key
            yield Setting(one.module, (at, int(one.rows[component])), number)
        elif name == "query_norm":
            where = normed_query(place, projected(place))
            if where is None:
                raise _nowhere(name)
            yield Setting(parts.query_norms[0], (*where, component), number)
        elif name == "value_mix":
            kv_head = place.head // (anatomy.n_head // anatomy.n_kv_head)
            yield Setting(parts.attention, (kv_head, place.key, component), number, "values")
        elif name in modules:
            module = modules[name]
            if module is None:
                raise _nowhere(name)
            if name == "up" and parts.gated_up:  # the gate's half stands first
                component += seen.outputs[module].shape[-1] // 2
            yield Setting(module, (p, component), number, "gets" if name in ("neurons", "rest") else "gives")


def _nowhere(name: str) -> UsageError:
    return UsageError(f"{name} of this layer cannot be changed.", "This family has it nowhere by itself.")
