"""The panels and workspaces that pages lead to, and which pages explain a panel: one table for both directions."""

from __future__ import annotations

from dataclasses import replace

from llmlab_gui.pages.page import CONCEPTS, Page

TRAIN, LOOK_INSIDE, FINE_TUNE, EXPERIMENTS = "Train", "Look inside", "Fine-tune", "Experiments"
PAPER, COMPARE, WRITE, LEARN = "Paper", "Compare runs", "Write", "Learn"
WALK = "Walk"
DIAGNOSE = "Diagnose"
REBUILD = "Rebuild"
PRACTICE = "Practice"
WORKSPACES = (
    TRAIN,
    LOOK_INSIDE,
    FINE_TUNE,
    EXPERIMENTS,
    PAPER,
    COMPARE,
    WRITE,
    LEARN,
    WALK,
    DIAGNOSE,
    REBUILD,
    PRACTICE,
)
# By dock: its title, and the concept pages that its caption leads to, the chief one first.
DOCK_PAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "runs": ("Runs", ("loss-curves", "checkpoints", "experiments", "tokens", "many-processes", "data-quality")),
    "setup": (
        "Set-up",
        (
            "optimisation",
            "tokens",
            "embeddings",
            "feed-forward",
            "attention",
            "scaling-laws",
            "many-processes",
            "mixed-precision",
            "data-quality",
            "long-context",
            "notation",
        ),
    ),
    "loss": (
        "Loss",
        (
            "loss-curves",
            "loss",
            "n-grams",
            "evaluation",
            "optimisation",
            "tokens",
            "checkpoints",
            "feed-forward",
            "residual-stream",
            "forgetting",
            "grokking",
            "edge-of-stability",
            "double-descent",
            "data-quality",
            "distillation",
        ),
    ),
    "learning_rate": (
        "Learning rate & gradient norm",
        (
            "optimisation",
            "learning-rate",
            "backpropagation",
            "critical-batch-size",
            "edge-of-stability",
            "loss-curves",
            "residual-stream",
        ),
    ),
    "throughput": (
        "Throughput",
        ("optimisation", "scaling-laws", "many-processes", "mixed-precision", "flash-attention"),
    ),
    "samples": ("Samples", ("loss-curves", "sampling", "fine-tuning", "loss", "attention")),
    "checkpoints": ("Checkpoints", ("checkpoints",)),
    "write": ("Write", ("sampling", "loss", "n-grams", "tokens", "checkpoints", "loss-curves", "distillation")),
    "log": ("Log", ("checkpoints",)),
    "prompt": ("Prompt", ("tokens", "embeddings", "attention-patterns", "residual-stream", "long-context")),
    "attention": (
        "Attention",
        (
            "attention-patterns",
            "attention",
            "qk-and-ov",
            "induction-heads",
            "flash-attention",
            "in-context-learning",
            "long-context",
        ),
    ),
    "contributions": (
        "Layer contributions",
        ("residual-stream", "direct-attribution", "feed-forward", "attention-patterns", "qk-and-ov"),
    ),
    "residual": ("Residual stream", ("residual-stream", "probes-and-steering")),
    "lens": ("Logit lens", ("logit-lens", "in-context-learning")),
    "interventions": ("Interventions", ("ablation-and-patching", "bayesian-reasoning", "probes-and-steering")),
    "compare": ("Compare", ("comparing-models",)),
    "evolution": (
        "Evolution",
        ("induction-heads", "attention-patterns", "logit-lens", "direct-attribution", "comparing-models"),
    ),
    "geometry": ("Embedding geometry", ("embeddings", "superposition")),
    "parameters": ("Parameters", ("optimisation", "feed-forward", "superposition", "mixtures-of-experts")),
    "walk": (
        "Walk",
        (
            "forward-pass",
            "notation",
            "attention",
            "tokens",
            "embeddings",
            "residual-stream",
            "feed-forward",
            "loss",
            "backpropagation",
            "sampling",
            "mixtures-of-experts",
        ),
    ),
    "rebuild": (
        "Rebuild",
        (
            "attention",
            "feed-forward",
            "forward-pass",
            "loss",
            "backpropagation",
            "optimisation",
            "tokens",
            "sampling",
            "lora",
            "logit-lens",
            "flash-attention",
        ),
    ),
    "finetune_setup": ("Fine-tune set-up", ("fine-tuning", "lora", "quantisation", "learning-rate")),
    "data": ("Data", ("chat-templates", "fine-tuning")),
    "adapter": ("Adapter", ("lora", "fine-tuning", "quantisation")),
    "queue": ("Queue", ("experiments",)),
    "experiment": (
        "Experiment",
        (
            "experiments",
            "learning-rate",
            "forgetting",
            "scaling-laws",
            "critical-batch-size",
            "double-descent",
            "data-quality",
        ),
    ),
    "experiment_losses": ("Losses of the runs", ("experiments",)),
    "experiment_result": ("Result", ("experiments", "scaling-laws", "forgetting", "double-descent")),
    "experiment_report": ("Report", ("experiments",)),
    "experiments": ("Experiments", ("experiments",)),
    "notebook": ("Notebook", ("predicting", "experiments", "bayesian-reasoning")),
    "practice": ("Practice", ("predicting", "in-context-learning")),
    "paper": (
        "Paper",
        ("experiments", "predicting", "bayesian-reasoning", "grokking", "induction-heads", "statistics-of-claims"),
    ),
    "check": (
        "Check",
        (
            "experiments",
            "predicting",
            "statistics-of-claims",
            "bayesian-reasoning",
            "grokking",
            "qk-and-ov",
            "probes-and-steering",
        ),
    ),
    "claims": ("Claims", ("predicting", "statistics-of-claims", "experiments")),
    "evidence": (
        "Evidence",
        ("experiments", "statistics-of-claims", "predicting", "bayesian-reasoning", "grokking", "induction-heads"),
    ),
    "diagnose": ("Diagnose", ("loss-curves", "optimisation", "attention-patterns", "predicting")),
    "check_report": ("Check report", ("statistics-of-claims", "experiments")),
}
DOCK_IDS = (*DOCK_PAGES, "learn")


def pages_of(dock_id: str) -> tuple[str, ...]:
    """The concept pages of a dock, the chief one first; none of Learn, which shows them all."""
    return DOCK_PAGES.get(dock_id, ("", ()))[1]


def panels_of(page: str) -> list[tuple[str, str]]:
    """Id and title of each dock in which a concept page's idea is seen; those that it is chiefly about first."""
    ranked = [(pages.index(page), dock, title) for dock, (title, pages) in DOCK_PAGES.items() if page in pages]
    return [(dock, title) for _, dock, title in sorted(ranked, key=lambda row: row[0])]


def with_panels(page: Page) -> Page:
    """A concept page with the way to its panels at the end; any other page as it is."""
    panels = panels_of(page.name) if page.group == CONCEPTS else []
    if not panels:
        return page
    links = " · ".join(f"[{title}](dock:{dock})" for dock, title in panels)
    return replace(page, text=f"{page.text.rstrip()}\n\n## Where to see it\n\n{links}\n")
