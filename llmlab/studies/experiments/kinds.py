"""The experiments that the lab offers: question, hypothesis from the literature, what is varied. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from llmlab.core.charts import Axis
from llmlab.core.errors import unknown
from llmlab.studies.experiments.recipes import PARTS

# The tracks, as llmlab.store.run_folder names them.
PRETRAINING, FINETUNING = "pretraining", "finetuning"
_LOSS = Axis("validation loss", "nats per token")


@dataclass(frozen=True)
class Kind:
    """One experiment.

    varies: what changes, in words. setting: which one, "" where it is no single one. grids: its default values by
    track. quantities: names of what its results say and a prediction may (llmlab.notebook.quantities), the chief one
    first.
    metric: which loss of a run counts, its last or its best (of TrialResult). seeds: runs a value, where not said
    otherwise. groups: the curves that can be compared, where there are several. trains: false where a run that is
    there is looked at.
    """

    name: str
    title: str
    question: str
    hypothesis: str
    source: str
    varies: str
    setting: str
    grids: dict[str, tuple[float, ...]]
    x_axis: Axis
    quantities: tuple[str, ...]
    y_axis: Axis = _LOSS
    metric: str = "val_loss"
    seeds: int = 1
    groups: tuple[str, ...] = ()
    trains: bool = True

    @property
    def tracks(self) -> tuple[str, ...]:
        """Where it makes sense."""
        return tuple(self.grids)

    def groups_of(self, track: str) -> tuple[str, ...]:
        """What can be compared there: where a kind also trains from scratch, its groups are ways to fine-tune."""
        return () if track == PRETRAINING and FINETUNING in self.grids else self.groups


_KAPLAN = "Kaplan et al. 2020, Scaling Laws for Neural Language Models (arXiv:2001.08361)"
_REGRET = "Schulman et al. 2025, LoRA Without Regret (thinkingmachines.ai/blog/lora)"

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "learning-rate",
            "Learning rate",
            "Which learning rate learns most in the given steps, and how precisely must it be set?",
            "Against the logarithm of the learning rate, the loss has one minimum: it is flat around it, rises slowly "
            "on the left, where too little is learned, and steeply on the right, where training becomes unstable. In "
            "fine-tuning, the best rate for LoRA is about ten times that for full fine-tuning, and hardly depends on "
            "the rank.",
            f"{_REGRET}; Wortsman et al. 2023, Small-scale proxies for large-scale Transformer training "
            "instabilities (arXiv:2309.14322)",
            "train.learning_rate on a logarithmic grid; train.min_learning_rate keeps its share of it.",
            "train.learning_rate",
            {
                PRETRAINING: (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
                FINETUNING: (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
            },
            Axis("learning rate", log=True),
            ("best_lr", "best_loss", "diverged", "lora_to_full", "spread"),
            groups=("lora", "full"),
        ),
        Kind(
            "lora-rank",
            "LoRA rank",
            "How large must an adapter be, and which layers need one?",
            "All ranks learn alike at first; low ranks run out of capacity later, the sooner the more there is to "
            "learn. Adapters on attention alone do worse than adapters on the feed-forward layers, even with as many "
            "parameters.",
            f"{_REGRET}; Hu et al. 2021, LoRA (arXiv:2106.09685)",
            "lora.rank, for each choice of lora.targets; lora.alpha stays, so that the factor of an adapter's output, "
            "alpha / rank, falls as its rank grows.",
            "lora.rank",
            {FINETUNING: (1, 2, 4, 8, 16, 32, 64)},
            Axis("rank", log=True),
            ("best_rank", "best_loss", "spread"),
            groups=("attention", "feed_forward", "all"),
        ),
        Kind(
            "forgetting",
            "Forgetting",
            "How much of what a model knew is lost when it learns a task?",
            "Full fine-tuning learns the task better and forgets more; LoRA learns less and forgets less, and the "
            "lower its rank, the less of both. All of them lie near one curve of task loss against general loss.",
            "Biderman et al. 2024, LoRA Learns Less and Forgets Less (arXiv:2405.09673)",
            "lora.rank, and full fine-tuning at a tenth of the learning rate; the loss on held-out general text is "
            "measured at each checkpoint.",
            "lora.rank",
            {FINETUNING: (1, 4, 16)},
            Axis("validation loss of the task", "nats per token"),
            ("forgotten", "forgotten_full", "best_loss"),
            Axis("loss on general text", "nats per token"),
        ),
        Kind(
            "loss-curves",
            "Loss curves",
            "What happened in this run: spikes and their texts, overfitting, the learning rate's marks, noise?",
            "Most of the loss falls early. A spike needs a batch and a state of the model together: the same text "
            "seldom spikes a second time. Validation loss departs from training loss where the model begins to "
            "memorise its text.",
            "Chowdhery et al. 2022, PaLM (arXiv:2204.02311), section 5.1; McCandlish et al. 2018, An Empirical Model "
            "of Large-Batch Training (arXiv:1812.06162)",
            "Nothing: a run that is there is looked at.",
            "",
            {PRETRAINING: (), FINETUNING: ()},
            Axis("step", "steps"),
            ("spikes", "overfitting_step", "noise_scale"),
            Axis("loss", "nats per token"),
            trains=False,
        ),
        Kind(
            "width",
            "Width",
            "What does a wider model gain in the same number of steps?",
            "The loss falls as a power of the number of parameters: each doubling of the width gains about the same "
            "factor, so less and less in nats, until data or steps become the limit.",
            _KAPLAN,
            "model.n_embd; heads, layers, steps and learning rate stay.",
            "model.n_embd",
            {PRETRAINING: (16, 32, 64, 128)},
            Axis("width n_embd", "values per token", log=True),
            ("best", "best_loss", "spread"),
        ),
        Kind(
            "depth",
            "Depth",
            "What does a deeper model gain in the same number of steps?",
            "At an equal number of parameters depth and width are worth nearly the same over a wide range; at equal "
            "width a deeper model gains with its parameters, except that very shallow ones lose more: one layer "
            "cannot copy what came before.",
            f"{_KAPLAN}; Levine et al. 2020, Limits to Depth Efficiencies of Self-Attention (arXiv:2006.12467)",
            "model.n_layer; width, steps and learning rate stay.",
            "model.n_layer",
            {PRETRAINING: (1, 2, 4, 8)},
            Axis("layers", log=True),
            ("best", "best_loss", "spread"),
        ),
        Kind(
            "batch-size",
            "Batch size",
            "How large can a batch be before larger ones waste tokens?",
            "With the same number of tokens, small batches reach about the same loss up to a critical size, the "
            "gradient noise scale; beyond it every doubling wastes tokens.",
            "McCandlish et al. 2018, An Empirical Model of Large-Batch Training (arXiv:1812.06162); Malladi et al. "
            "2022, On the SDEs and Scaling Rules for Adaptive Gradient Algorithms (arXiv:2205.10287)",
            "data.batch_size at an equal number of tokens (train.steps and train.warmup_steps shrink as it grows), "
            "with the learning rate growing by its square root.",
            "data.batch_size",
            {PRETRAINING: (3, 6, 12, 24, 48)},
            Axis("batch size", "sequences", log=True),
            ("best", "best_loss", "spread"),
        ),
        Kind(
            "data-size",
            "Data size",
            "How much text does this model need?",
            "The loss falls as a power of the amount of text. With little text the model memorises it: the "
            "training loss falls while the validation loss turns up. Up to about four repetitions, repeated text is "
            "nearly as good as new.",
            f"{_KAPLAN}; Muennighoff et al. 2023, Scaling Data-Constrained Language Models (arXiv:2305.16264)",
            "data.train_tokens, the part of the training text that is read; the held-out text is the same for all.",
            "data.train_tokens",
            {PRETRAINING: (10_000, 30_000, 100_000, 300_000, 900_000)},
            Axis("training text", "tokens", log=True),
            ("best_loss", "exponent", "spread"),
            metric="best_val_loss",
        ),
        Kind(
            "scaling",
            "Scaling law",
            "Does the loss of small models predict that of a larger one?",
            "With enough text and steps the loss is a power law in the number of parameters, L(N) = a N^-b + c, and a "
            "fit to small models predicts the next size. Published exponents b: 0.076 (no c, Kaplan), 0.34 (with c, "
            "Hoffmann).",
            f"{_KAPLAN}; Hoffmann et al. 2022, Training Compute-Optimal Large Language Models (arXiv:2203.15556)",
            "model.n_embd, so the number of parameters; the last value is predicted from the others before it is run.",
            "model.n_embd",
            {PRETRAINING: (16, 24, 32, 48, 64, 96)},
            Axis("parameters without embeddings", log=True),
            ("next_loss", "exponent", "best_loss"),
            seeds=2,
        ),
        Kind(
            "speedrun",
            "Speedrun",
            "How much sooner can the baseline's loss be reached, and what is each lever worth?",
            "Speedruns of a small GPT-2 reached its loss in less than a tenth of the time, and most of it came from a "
            "few levers: Muon for the matrices, rotary positions, normalised queries and keys, squared ReLU, "
            "projections that begin at zero, and a rate that decays to zero. A lever that helps alone may be worth "
            "nothing beside the others.",
            "Jordan et al. 2024, modded-nanogpt (github.com/KellerJordan/modded-nanogpt); Jordan et al. 2024, Muon "
            "(kellerjordan.github.io/posts/muon)",
            "From the base to the preset quick, one lever is added after the other; then each is left out by itself. "
            "All these runs have the record's number of steps; the base also runs for its own.",
            "",
            {PRETRAINING: ()},
            Axis("levers added"),
            ("speedup", "best_loss", "spread"),
            seeds=3,
            groups=PARTS,
        ),
        Kind(
            "parallel",
            "Several processes",
            "What do several processes cost and gain here, and do they compute the same?",
            "Their losses are those of one process up to rounding. They compute N times as fast at best, and wait for "
            "what they send, which depends on the parameters alone: they gain where a step reads many tokens and each "
            "has cores or a GPU of its own. FSDP2 sends half as much again as DDP.",
            "Li et al. 2020, PyTorch Distributed (arXiv:2006.15704); Zhao et al. 2023, PyTorch FSDP (arXiv:2304.11277)",
            "distributed.processes, for each distributed.strategy; without dropout, and for 60 steps unless you say "
            "more.",
            "distributed.processes",
            {PRETRAINING: (1, 2, 4)},
            Axis("processes"),
            ("processes_gain", "losses_difference", "best_loss"),
            Axis("tokens a second"),
            groups=("ddp", "fsdp2"),
        ),
    )
}


def find_kind(name: str) -> Kind:
    """The experiment of that name; UsageError naming the nearest when there is none."""
    if name not in KINDS:
        raise unknown("experiment", name, KINDS)
    return KINDS[name]
