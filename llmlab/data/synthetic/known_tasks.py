"""The tasks that there are, by their settings."""

from __future__ import annotations

from llmlab.core.task_settings import HMM, MODULAR, REPEATS, TaskDataSettings
from llmlab.data.synthetic.bijection import Bijection
from llmlab.data.synthetic.hmm import HiddenMarkov
from llmlab.data.synthetic.modular import ModularSum
from llmlab.data.synthetic.repeats import Repeats
from llmlab.data.synthetic.tasks import Task


def task_of(data: TaskDataSettings) -> Task:
    """The task that settings describe."""
    if data.task == MODULAR:
        return ModularSum(data.modulus, data.train_sums, data.split_seed)
    if data.task == REPEATS:
        return Repeats(data.vocabulary, data.shortest, data.longest, data.context)
    if data.task == HMM:
        return HiddenMarkov(data.states, data.symbols, data.length, data.layout)
    return Bijection(data.values, data.pairs, data.task != "bijection")
