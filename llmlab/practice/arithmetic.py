"""Small sums that a page is about, with numbers drawn anew: no model is needed."""

from __future__ import annotations

import math
from random import Random

from llmlab.gpt.shapes import parameter_count
from llmlab.notebook.scoring import brier
from llmlab.practice.kinds import NOTHING, SETTINGS, Draft, kind, minus, ordered, shown, value
from llmlab.practice.question import KNOW
from llmlab.practice.subject import Subject


@kind("brier-score", "predicting", KNOW, "notebook", NOTHING)
def brier_score(subject: Subject, random: Random) -> Draft:
    confidence, right = random.choice((0.6, 0.7, 0.8, 0.9)), random.random() < 0.5
    came = "comes true" if right else "does not come true"
    text = f"You state something with {100 * confidence:.0f} % confidence, and it {came}. What is its Brier score?"
    return value(text, brier(confidence, right), f"({confidence} − {int(right)})².", within=0.02)


@kind("bits-of-surprise", "predicting", KNOW, "notebook", NOTHING)
def bits_of_surprise(subject: Subject, random: Random) -> Draft:
    chance = random.choice((0.5, 0.25, 0.2, 0.1, 0.05))
    text = f"What came had a probability of {100 * chance:.0f} % in your prediction. How many bits of surprise is that?"
    return value(text, -math.log2(chance), f"−log₂ {chance} = {-math.log2(chance):.3f}.", within=0.03)


@kind("wider-at-eighty", "predicting", KNOW, "practice", NOTHING)
def wider_at_eighty(subject: Subject, random: Random) -> Draft:
    count, right = random.choice(((20, 10), (20, 20), (30, 24), (40, 24), (40, 40)))
    marks = ("wider", "as they are", "narrower")
    share = right / count
    # Two standard deviations of a share of `count` at 80 %.
    slack = 2 * math.sqrt(0.8 * 0.2 / count)
    text = f"Of {count} intervals that you stated at 80 %, {right} held the value. How should the next ones be?"
    answer = marks[0 if share < 0.8 - slack else 2 if share > 0.8 + slack else 1]
    how = f"{100 * share:.0f} % held; 80 % ± {100 * slack:.0f} % is what {count} can be expected to show."
    return ordered(text, marks, answer, how)


@kind("tokens-of-processes", "many-processes", KNOW, "throughput", SETTINGS)
def tokens_of_processes(subject: Subject, random: Random) -> Draft:
    processes = random.choice((2, 4, 8))
    data, tokens = subject.settings.data, subject.settings.data.batch_size * subject.model_settings.block_size
    text = (
        f"{processes} processes train together, each on its own batch of {data.batch_size} sequences of "
        f"{subject.model_settings.block_size} tokens. How many tokens does one step of theirs learn from?"
    )
    return value(text, processes * tokens, f"{processes} · {tokens:,}.", within=0.01)


@kind("bytes-of-gradients", "many-processes", KNOW, "throughput", SETTINGS)
def bytes_of_gradients(subject: Subject, random: Random) -> Draft:
    total = parameter_count(subject.model_settings, subject.vocab_size)
    text = (
        f"{subject.name} has {total:,} parameters. Processes that train it together (DDP) exchange their gradients at "
        "each step, in fp32. How large are those of one process?"
    )
    return value(text, 4 * total / 1e6, f"4 bytes for each parameter: {4 * total:,}.", unit="MB", within=0.05)


@kind("masked-loss", "chat-templates", KNOW, "data", NOTHING)
def masked_loss(subject: Subject, random: Random) -> Draft:
    asked, answer = random.randrange(20, 60), random.randrange(5, 20)
    text = (
        f"An example has {asked} tokens of prompt and {answer} of answer; the "
        "loss counts the answer alone. Which share of its tokens is that?"
    )
    return value(text, 100 * answer / (asked + answer), f"{answer} of {asked + answer}.", unit="%", within=0.05)


@kind("padded-batch", "chat-templates", KNOW, "data", NOTHING)
def padded_batch(subject: Subject, random: Random) -> Draft:
    lengths = [random.randrange(10, 80) for _ in range(4)]
    share = 100 * (1 - sum(lengths) / (len(lengths) * max(lengths)))
    text = (
        f"Four examples of {', '.join(map(str, lengths))} tokens are "
        "padded to one length. Which share of the batch is padding?"
    )
    how = f"{sum(lengths)} of 4 · {max(lengths)} positions hold tokens; the others are padding."
    return value(text, share, how, unit="%", within=0.05, off=1)


@kind("share-that-learns", "fine-tuning", KNOW, "finetune_setup", NOTHING)
def share_that_learns(subject: Subject, random: Random) -> Draft:
    width, rank = random.choice((256, 512, 768, 1024)), random.choice((4, 8, 16))
    text = (
        f"LoRA of rank {rank} sits on a matrix of {width} by {width}. "
        "Which share of that matrix's own parameters does it train?"
    )
    share = 100 * 2 * rank * width / width**2
    return value(text, share, f"{rank} · ({width} + {width}) of {width}².", unit="%", within=0.05)


@kind("state-of-adapters", "fine-tuning", KNOW, "finetune_setup", NOTHING)
def state_of_adapters(subject: Subject, random: Random) -> Draft:
    whole, learns = random.choice((135, 500, 1500)), random.choice((1, 5, 10))
    text = (
        f"A model of {whole} million parameters is fine-tuned by an adapter of {learns} million. How much memory do "
        "gradients and AdamW's moments take, in fp32?"
    )
    how = f"Only what learns has them: 3 · 4 bytes · {learns} million; full fine-tuning would take {12 * whole:,} MB."
    return value(text, 12 * learns, how, unit="MB", within=0.05)


@kind("forgotten-perplexity", "forgetting", KNOW, "experiment_result", NOTHING)
def forgotten_perplexity(subject: Subject, random: Random) -> Draft:
    before, rise = random.choice((2.6, 3.1, 3.4)), random.choice((0.1, 0.2, 0.35, 0.5))
    text = (
        f"On general text the loss rises from {before} to {before + rise:.2f} "
        "nats during fine-tuning. By which factor does the perplexity grow?"
    )
    return value(text, math.exp(rise), f"exp({before + rise:.2f} − {before}) = {math.exp(rise):.3f}.", within=0.03)


@kind("forgotten-more", "forgetting", KNOW, "experiment_result", NOTHING)
def forgotten_more(subject: Subject, random: Random) -> Draft:
    first, second = random.sample((0.04, 0.09, 0.17, 0.31), 2)
    starts = random.sample((2.2, 2.9, 3.6), 2)
    names = ("A", "B", "both alike")
    text = (
        f"General loss of A goes from {starts[0]:.2f} to {starts[0] + first:.2f}, that of B from {starts[1]:.2f} to "
        f"{starts[1] + second:.2f}, on the same text. Which has forgotten more?"
    )
    return ordered(text, names, names[first < second], f"After minus before: {first:.2f} and {second:.2f} nats.")


@kind("divergence-of-two", "comparing-models", KNOW, "compare", NOTHING)
def divergence_of_two(subject: Subject, random: Random) -> Draft:
    p, q = random.choice(((0.9, 0.5), (0.8, 0.6), (0.5, 0.9), (0.7, 0.3)))
    bits = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    text = f"Only two tokens can follow. A gives the first {p}, B gives it {q}. What is KL(A ‖ B), in nats?"
    how = f"{p} · ln({p}/{q}) + {1 - p:.1f} · ln({1 - p:.1f}/{1 - q:.1f}) = {bits:.4f}."
    return value(text, bits, how, within=0.05)


@kind("divergence-both-ways", "comparing-models", KNOW, "compare", NOTHING)
def divergence_both_ways(subject: Subject, random: Random) -> Draft:
    p, q = random.choice(((0.99, 0.5), (0.5, 0.99), (0.9, 0.6), (0.6, 0.9)))

    def divergence(a: float, b: float) -> float:
        return a * math.log(a / b) + (1 - a) * math.log((1 - a) / (1 - b))

    ways, there, back = ("KL(A ‖ B)", "KL(B ‖ A)", "they are equal"), divergence(p, q), divergence(q, p)
    text = f"Only two tokens can follow. A gives the first {p}, B gives it {q}. Which is larger?"
    return ordered(text, ways, ways[there < back], f"{there:.4f} and {back:.4f} nats.")


@kind("periodic-checkpoints", "checkpoints", KNOW, "checkpoints", SETTINGS)
def periodic_checkpoints(subject: Subject, random: Random) -> Draft:
    steps = subject.settings.train.steps
    every = max(1, steps // random.randrange(3, 9) - 1)
    text = f"A run of {steps:,} steps saves a checkpoint every {every} steps. How many periodic ones does it write?"
    return value(text, steps // every, f"{steps:,} / {every}, rounded down; the final one comes beside them.", within=0)


@kind("after-one", "mixed-precision", KNOW, "setup", NOTHING)
def after_one(subject: Subject, random: Random) -> Draft:
    name, bits = random.choice((("bf16", 7), ("fp16", 10), ("fp32", 23)))
    text = f"{name} keeps {bits} bits behind the leading one. How far from 1 is the next larger number that it has?"
    return value(
        text, 2.0**-bits, f"2 to the power of −{bits}: {2.0**-bits:.4g}. What is added to 1 below half of it is lost."
    )


@kind("half-the-bytes", "mixed-precision", KNOW, "setup", SETTINGS)
def half_the_bytes(subject: Subject, random: Random) -> Draft:
    model, data = subject.model_settings, subject.settings.data
    numbers = data.batch_size * model.block_size * model.n_embd
    text = (
        f"{subject.name} has d_model = {model.n_embd}. "
        "How much memory does its residual stream take at one depth in bf16, for a "
        f"batch of {data.batch_size} sequences of {model.block_size} tokens?"
    )
    how = f"{data.batch_size} · {model.block_size} · {model.n_embd} numbers of 2 bytes."
    return value(text, 2 * numbers / 1e3, how, unit="kB", within=0.05)


@kind("swing-at-a-rate", "edge-of-stability", KNOW, "learning_rate", NOTHING)
def swing_at_a_rate(subject: Subject, random: Random) -> Draft:
    curvature, rate = random.choice(((20, 0.04), (20, 0.12), (50, 0.03), (50, 0.05), (100, 0.018)))
    steps = 3
    factor = abs(1 - rate * curvature) ** steps
    text = (
        f"Plain gradient descent with a rate of {rate} crosses a valley whose curvature is {curvature} everywhere. By "
        f"which factor has its distance from the floor changed after {steps} steps?"
    )
    how = (
        f"Each step multiplies it by 1 − {rate} · {curvature} = {shown(1 - rate * curvature)}: {shown(factor)} in size."
    )
    return value(text, factor, how, within=0.03)


@kind("shortest-fit", "double-descent", KNOW, "experiment", NOTHING)
def shortest_fit(subject: Subject, random: Random) -> Draft:
    first, second, length = random.choice(((3, 4, 5), (6, 8, 10), (5, 12, 13), (8, 15, 17)))
    target = length * random.choice((2, 3, 5))
    text = (
        f"A linear model predicts w₁ · x₁ + w₂ · x₂. Its only example has x₁ = {first}, x₂ = {second} and the target "
        f"{target}, so many weights fit exactly. How long is the shortest such vector (w₁, w₂)?"
    )
    how = f"It lies along the features: {target} / √({first}² + {second}²) = {target} / {length}."
    return value(text, target / length, how, within=0.01)


@kind("noise-of-a-fit", "double-descent", KNOW, "experiment", NOTHING)
def noise_of_a_fit(subject: Subject, random: Random) -> Draft:
    examples, features = 40, random.choice((20, 30, 50, 80, 160))
    smaller, larger = sorted((examples, features))
    error = smaller / (larger - smaller - 1)  # E tr((XᵀX)⁻¹) of a normal X, or of XXᵀ
    text = (
        f"{examples} targets are pure noise of variance 1. Least squares fits them with {features} independent normal "
        "features, by the shortest weights where many fit. What is the square of a prediction on a new example, on "
        "average over all draws, where 0 would be right?"
    )
    how = (
        f"The smaller of both numbers over their distance less one: {smaller} / ({larger} − {smaller} − 1). "
        "It has no bound where they are equal."
    )
    return value(text, error, how, within=0.05)


@kind("softened-target", "distillation", KNOW, "write", NOTHING)
def softened_target(subject: Subject, random: Random) -> Draft:
    rare, tau = random.choice((0.01, 0.02, 0.05, 0.1)), random.choice((2, 4))
    odds = (rare / (1 - rare)) ** (1 / tau)
    text = (
        f"Two tokens can follow, and a teacher gives the less likely one a probability of {rare}. What does its soft "
        f"target give this token at a temperature of {tau}?"
    )
    how = (
        f"Its odds become ({rare} / {1 - rare:g}) to the power of 1/{tau} = {odds:.4f}, and odds over one more than "
        "odds are the probability."
    )
    return value(text, odds / (1 + odds), how, within=0.05)


@kind("stored-targets", "distillation", KNOW, "setup", SETTINGS)
def stored_targets(subject: Subject, random: Random) -> Draft:
    millions, vocab = random.choice((1, 10, 100)), subject.vocab_size
    text = (
        f"{subject.name} knows {vocab:,} tokens. As a teacher, it predicts {millions} million positions, and all its "
        "probabilities are stored in 2 bytes each. How much is that?"
    )
    how = f"{vocab:,} · 2 bytes a position: {2 * vocab / 1e3:g} kB, {millions} million times."
    return value(text, 2 * vocab * millions / 1e3, how, unit="GB", within=0.05)


@kind("rank-of-a-circuit", "qk-and-ov", KNOW, "parameters", SETTINGS)
def rank_of_a_circuit(subject: Subject, random: Random) -> Draft:
    model = subject.model_settings
    rank = model.n_embd // model.n_head
    text = (
        f"{subject.name} has d_model = {model.n_embd} and {model.n_head} "
        "heads. Which rank can the QK circuit of a head have at most?"
    )
    return value(text, rank, f"It goes through the {rank} dimensions of the head.", within=0)


@kind("size-of-a-circuit", "qk-and-ov", KNOW, "parameters", SETTINGS)
def size_of_a_circuit(subject: Subject, random: Random) -> Draft:
    model = subject.model_settings
    text = (
        f"Multiplied out, the OV circuit of one head of {subject.name} is one "
        f"matrix over its {model.n_embd} dimensions. How many numbers has it?"
    )
    return value(text, model.n_embd**2, f"From the stream and into it: {model.n_embd} · {model.n_embd}.", within=0.01)


@kind("random-cosine", "superposition", KNOW, "geometry", SETTINGS)
def random_cosine(subject: Subject, random: Random) -> Draft:
    width = subject.model_settings.n_embd
    text = (
        f"{subject.name} has d_model = {width}. Two directions are drawn at random in so many dimensions. What is the "
        "root mean square of their cosine?"
    )
    how = f"A cosine's mean square is 1 / C, with C = {width} dimensions: 1 / √{width} = {width**-0.5:.4g}."
    return value(text, width**-0.5, how, within=0.06)


@kind("on-the-circle", "superposition", KNOW, "geometry", NOTHING)
def on_the_circle(subject: Subject, random: Random) -> Draft:
    count = random.choice((3, 5, 6, 8))
    read = math.cos(2 * math.pi / count)
    text = (
        f"{count} features share two dimensions: their directions, of length one, are spread evenly over the circle. "
        "Only one is there, with the value 1. What does a neighbour's direction read, before any non-linearity?"
    )
    return value(text, read, f"The cosine of 360° / {count}: {read:.3f}.", within=0.03)


@kind("bytes-of-patterns", "flash-attention", KNOW, "attention", SETTINGS)
def bytes_of_patterns(subject: Subject, random: Random) -> Draft:
    model, tokens = subject.model_settings, random.choice((1024, 4096, 16384))
    numbers = model.n_head * tokens**2
    text = (
        f"A block of {subject.name} has {model.n_head} heads. If the patterns of one sequence of {tokens:,} tokens "
        "were written to memory in fp32, how much would that be for the block?"
    )
    how = f"{model.n_head} · {tokens:,}² numbers of 4 bytes; FlashAttention writes none of them."
    return value(text, 4 * numbers / 1e6, how, unit="MB", within=0.06)


@kind("two-blocks-of-a-softmax", "flash-attention", KNOW, "attention", NOTHING)
def two_blocks_of_a_softmax(subject: Subject, random: Random) -> Draft:
    first, second = random.choice(((0.0, 2.0), (1.0, 3.0), (2.0, 1.0), (3.0, 1.0)))
    sums = [random.choice((1.5, 2.0, 2.5)) for _ in range(2)]
    largest = max(first, second)
    total = sums[0] * math.exp(first - largest) + sums[1] * math.exp(second - largest)
    text = (
        f"The largest score of a first block is {first:g}, and the sum of e^(score − {first:g}) over it is "
        f"{sums[0]:g}. In a second block the largest is {second:g}, and the sum of e^(score − {second:g}) is "
        f"{sums[1]:g}. What is the sum of e^(score − {largest:g}) over both?"
    )
    of_first, of_second = (minus(f"{one - largest:g}") for one in (first, second))
    how = f"{sums[0]:g} · e^({of_first}) + {sums[1]:g} · e^({of_second}) = {total:.3f}."
    return value(text, total, how, within=0.03)


@kind("rule-of-succession", "in-context-learning", KNOW, "lens", NOTHING)
def rule_of_succession(subject: Subject, random: Random) -> Draft:
    thrown = random.choice((4, 6, 8, 10))
    ones = random.randrange(thrown + 1)
    text = (
        f"A coin whose bias is anything from 0 to 1, all equally likely, is thrown {thrown} times and shows {ones} "
        "times a one. Which probability of a one should a perfect predictor give the next throw?"
    )
    how = f"Laplace's rule: (h + 1) / (n + 2) = {ones + 1} / {thrown + 2}."
    return value(text, (ones + 1) / (thrown + 2), how, within=0.02)


@kind("probe-parameters", "probes-and-steering", KNOW, "residual", SETTINGS)
def probe_parameters(subject: Subject, random: Random) -> Draft:
    width, labels = subject.model_settings.n_embd, random.choice((5, 12, 17, 40))
    text = (
        f"A linear probe reads which of {labels} labels a token has from the residual stream of {subject.name} "
        f"(d_model = {width}): a weight vector and a bias for each label. How many parameters does it have?"
    )
    return value(text, labels * (width + 1), f"{labels} · ({width} + 1).", within=0)


@kind("above-the-majority", "probes-and-steering", KNOW, "interventions", NOTHING)
def above_the_majority(subject: Subject, random: Random) -> Draft:
    majority, right = random.choice(((60, 84), (70, 79), (80, 90), (90, 92), (50, 80)))
    share = 100 * (right - majority) / (100 - majority)
    text = (
        f"The most frequent label is that of {majority} % of the tokens, and a probe names the right one for {right} "
        "%. Of the mistakes that always naming the most frequent one makes, which share does the probe avoid?"
    )
    how = f"{100 - majority} % mistakes without it, {100 - right} % with it: {shown(share)} % of them are gone."
    return value(text, share, how, unit="%", within=0.03)


@kind("times-read", "data-quality", KNOW, "setup", NOTHING)
def times_read(subject: Subject, random: Random) -> Draft:
    share, source, budget = random.choice((5, 10, 20)), random.choice((2, 5, 20)), random.choice((100, 300, 1000))
    text = (
        f"A mixture takes {share} % of its sequences from a source of {source} billion tokens. A run reads {budget} "
        "billion tokens in all. How many times does it read that source?"
    )
    return value(text, share / 100 * budget / source, f"{share / 100:g} · {budget} / {source}.", within=0.03)


@kind("found-by-bands", "data-quality", KNOW, "setup", NOTHING)
def found_by_bands(subject: Subject, random: Random) -> Draft:
    alike, rows, bands = random.choice((0.4, 0.6, 0.8)), random.choice((4, 5, 8)), random.choice((10, 14, 20))
    found = 100 * (1 - (1 - alike**rows) ** bands)
    text = (
        f"Two texts have a Jaccard similarity of {alike}. Their MinHash numbers are cut into "
        f"{bands} bands of {rows}, and they are compared if all numbers of at least one band agree. How probable is "
        "that?"
    )
    how = f"1 − (1 − {alike}^{rows})^{bands} = {found:.1f} %."
    return value(text, found, how, unit="%", within=0.05, off=0.1)
