"""Example prompts, and what to look for in them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from llmlab_gui.host.about import ModelAbout


@dataclass(frozen=True)
class ExamplePrompt:
    """title: what it shows. look: where to look for it."""

    title: str
    text: str
    look: str


# For models that learned from many texts.
GENERAL = (
    ExamplePrompt(
        "Indirect object",
        "When Mary and John went to the store, John gave a drink to",
        "John is named twice, so the drink goes to Mary. Which heads attend from the end back to her name?",
    ),
    ExamplePrompt(
        "A fact",
        "The capital of France is",
        "Logit lens: at which layer does Paris appear? Attention: which heads attend to France?",
    ),
    ExamplePrompt(
        "Induction",
        " table seven orange window north piano table seven orange window north piano table seven",
        "Random words, repeated: induction heads attend to what followed the word the last time.",
    ),
    ExamplePrompt(
        "Code",
        "def area(width, height):\n    return width * height\n\ndef perimeter(width, height):\n    return 2 * (width +",
        "Which heads find the argument that is still missing? Which close brackets?",
    ),
    ExamplePrompt(
        "Two readings",
        "The bank of the river was steep. The bank on the corner was closed. The bank",
        "One word, two meanings: compare the residual stream of each bank, layer by layer.",
    ),
)
# For models that learned from the lab's own texts.
SCRATCH = (
    ExamplePrompt(
        "A verse",
        "The king said to the queen: my lord, the king is dead",
        "Which heads attend to the letter or word just before, and which to the first token?",
    ),
    ExamplePrompt(
        "A line repeated",
        "ROMEO:\nBut soft, what light?\nROMEO:\nBut soft, what",
        "The second time, an induction head knows what follows: it attends to what came next the first time.",
    ),
    ExamplePrompt(
        "Letters repeated",
        "kdo wmr pxe kdo wmr pxe kdo wmr",
        "No text looks like this: only the prompt itself helps to predict what follows.",
    ),
    ExamplePrompt(
        "A speaker's name",
        "First Citizen:\nSpeak, speak.\n\nSecond",
        "Logit lens: at which layer does the model know that the name continues?",
    ),
)


def examples_for(about: ModelAbout | None) -> tuple[ExamplePrompt, ...]:
    """Those that a model can read whole, however it tokenizes them; those first that suit its kind.

    One that reads hardly anything gets the beginning of the first.
    """
    ours = about is not None and about.kind in ("scratch", "live")
    found = (*SCRATCH, *GENERAL) if ours else (*GENERAL, *SCRATCH)
    if about is None or not about.context:
        return found
    # They are ASCII, and no tokenizer makes more tokens than a text has bytes, but some put one before it.
    room = max(about.context - 1, 1)
    return tuple(example for example in found if len(example.text) <= room) or (
        replace(found[0], text=found[0].text[:room]),
    )
