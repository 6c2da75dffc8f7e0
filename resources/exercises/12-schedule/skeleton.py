"""The learning rate at each step: warm-up, then half a cosine."""


def learning_rate(step: int, steps: int, warmup_steps: int, peak: float, low: float) -> float:
    """The rate of the step that follows `step` finished ones, 0 <= step <= steps.

    With steps 109, warmup_steps 9, peak 1, low 0: 0.1 at step 0, 1 at step 9, 0.5 at step 59.
    """
    raise NotImplementedError
