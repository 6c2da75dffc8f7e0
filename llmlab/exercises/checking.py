"""Checking a piece, step by step, until the first fact that does not hold. Runs the learner's code: see `checker`.

runs      the file is Python, its functions are there, and a call returns
shape     what is returned has the right shape
hand      a case that can be computed by hand
random    random cases, against the right function
causal    no position sees a later one
gradient  the gradient of every argument
speed     no slower than a bound
edges     large numbers, one position, nothing to do
"""

from __future__ import annotations

import errno
import functools
import inspect
import linecache
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from llmlab.exercises.checker import TOO_MUCH_MEMORY, TOO_MUCH_WRITTEN
from llmlab.exercises.facts import agrees, difference, wrong_form
from llmlab.exercises.parts import Case, Draw, Mistake, Part, plainly
from llmlab.exercises.pieces import CHECKS

_RANDOM = 4  # random cases
_CHANGE = 1e-5  # a change of less is rounding
_FREE_SECONDS = 0.01  # of processor time, which no function is too slow for
_TIMINGS = 3
_HOPELESS = 3.0


class Wrong(Exception):
    """The first fact that does not hold, in one or two sentences; and the mistake that it comes from, if known."""

    mistake: Mistake | None = None


@dataclass(frozen=True)
class Step:
    """One of the steps above: whether it has something to say of a part, and what it looks at."""

    name: str
    title: str
    wanted: Callable[[Part], bool]
    look: Callable[[Part, Callable[..., Any]], None]


def load_parts(folder: Path) -> tuple[Part, ...]:
    """PARTS of the checks in a piece's folder."""
    return _import(folder / CHECKS, f"llmlab_checks_{folder.name[3:].replace('-', '_')}").PARTS


def load_file(path: Path, functions: Sequence[str]) -> dict[str, Callable[..., Any]]:
    """The learner's functions by name. Wrong where the file cannot be run, or lacks one.

    It may import its neighbours, also from within a function.
    """
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        module = _import(path, f"yours_{path.stem.replace('-', '_')}")
    except SyntaxError as error:
        place = f"Line {error.lineno}" if error.lineno else "It"
        raise Wrong(f"{place} is not Python: {error.msg}.") from None
    except (Exception, SystemExit) as error:
        raise Wrong(said(error, path)) from None
    missing = [name for name in functions if not callable(getattr(module, name, None))]
    if missing:
        raise Wrong(f"There is no function {missing[0]} in it.")
    return {name: getattr(module, name) for name in functions}


def steps_of(parts: Sequence[Part]) -> list[Step]:
    """The steps that these parts have, in order."""
    return [step for step in _STEPS if any(step.wanted(part) for part in parts)]


def take(step: Step, parts: Sequence[Part], functions: dict[str, Callable[..., Any]], file: Path) -> None:
    """Takes one step. Raises Wrong."""
    for part in (part for part in parts if step.wanted(part)):
        function = functions[part.name]
        try:
            step.look(part, function)
            continue
        except Wrong as wrong:
            found = Wrong(f"{part.name}: {wrong}" if len(parts) > 1 else str(wrong))
        except NotImplementedError:
            found = Wrong(f"{part.name} is not written yet.")
        except Exception as error:
            found = Wrong(f"{part.name}: {said(error, file)}" if len(parts) > 1 else said(error, file))
        if step.name != "speed":
            found.mistake = recognised(part, function)
        raise found


def recognised(part: Part, function: Callable[..., Any]) -> Mistake | None:
    """The listed mistake that computes what the function does, where that is not right."""
    sets = [_random_args(part), [case.args for case in part.edges]]

    @functools.cache
    def tried(which: int, right: bool) -> list[Any]:
        return [_tried(part, part.right if right else function, args) for args in sets[which]]

    for mistake in part.mistakes:
        for which, cases in enumerate(sets):
            # Where it is right on random cases, so is what is taken for it: one hard case may fit by chance.
            fits = _fits(part, mistake, cases, tried(which, True), tried(which, False))
            if fits:
                return mistake
            if fits is False:
                break
    return None


def _fits(
    part: Part, mistake: Mistake, cases: Sequence[tuple[Any, ...]], right: Sequence[Any], given: Sequence[Any]
) -> bool | None:
    """Whether what was given is what the mistake computes in each case where that is wrong; None where it is right in
    all of them, and so is what was given."""
    told, same = False, True
    for args, want, got in zip(cases, right, given, strict=True):
        wrong = _tried(part, mistake.function, args)
        if _alike(part, wrong, want):
            same = same and _alike(part, got, wrong)
        elif _alike(part, got, wrong):
            told = True
        else:
            return False
    return True if told else None if same else False


def said(error: BaseException, file: Path) -> str:
    """An error of the learner's code: what Python says, and the line of theirs that it came from."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    line = f" Line {frames[-1].lineno}: {(frames[-1].line or '').strip()}" if frames else ""
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return f"{TOO_MUCH_MEMORY}{line}"
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return f"{TOO_MUCH_WRITTEN}{line}"
    if isinstance(error, SystemExit):
        return f"It ends the process that checks it (sys.exit).{line}"
    words = " ".join(str(error).split())[:200].rstrip(".")
    return f"{type(error).__name__}{': ' if words else ''}{words}.{line}"


def _import(path: Path, name: str) -> ModuleType:
    """A file as a module, always from its source: Python's own importer takes a second save within a second, of as
    many bytes, for the first."""
    linecache.checkcache(str(path))
    module = sys.modules[name] = ModuleType(name)  # data classes look there for their module
    module.__file__ = str(path)
    exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    return module


def _random_args(part: Part) -> list[tuple[Any, ...]]:
    return [part.make(Draw(seed)) for seed in range(_RANDOM)]


def _computed(part: Part, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """What is compared of a call; the arguments are copies."""
    torch.default_generator.manual_seed(0)  # torch.manual_seed notes the stack for each other device: a millisecond
    given = tuple(_copied(one) for one in args)
    returned = part.call(function, *given)
    if not part.mutates:
        for name, before, after in zip(_names(part), args, given, strict=False):
            if isinstance(before, Tensor) and not torch.equal(before.nan_to_num(), after.nan_to_num()):
                raise Wrong(f"It changes its argument {name} in place. Whoever calls it still needs that.")
            if isinstance(before, (list, dict)) and before != after:
                raise Wrong(f"It changes its argument {name} in place. Whoever calls it still needs that.")
    return part.see(given, returned)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, list):
        return [_copied(one) for one in value]
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    return value


def _names(part: Part) -> list[str]:
    """Of the arguments of a case: the function's own, or those that its caller makes them from."""
    direct = part.call is plainly
    return list(inspect.signature(part.right if direct else part.call).parameters)[0 if direct else 1 :]


def _tried(part: Part, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """What is compared of a call, or the error that came instead, which is like nothing."""
    try:
        return _computed(part, function, args)
    except Exception as error:
        return error


def _alike(part: Part, got: Any, want: Any) -> bool:
    if isinstance(got, Exception) or isinstance(want, Exception):
        return False
    try:
        return agrees(got, want, part.tolerance)
    except Exception:
        return False


def _compare(part: Part, function: Callable[..., Any], case: Case) -> None:
    expected = case.expected
    if expected is None:
        expected = _computed(part, part.right, case.args)
    fact = difference(_computed(part, function, case.args), expected, part.axes, part.tolerance)
    if fact:
        raise Wrong(f"{case.name}: {fact[0].lower() + fact[1:]}" if case.name else fact)


def _runs(part: Part, function: Callable[..., Any]) -> None:
    if _computed(part, function, part.make(Draw(0))) is None:
        raise Wrong(f"{part.name} returns None. Is the `return` missing?")


def _shape(part: Part, function: Callable[..., Any]) -> None:
    args = part.make(Draw(0))
    if fact := wrong_form(_computed(part, function, args), _computed(part, part.right, args)):
        raise Wrong(fact)


def _by_hand(part: Part, function: Callable[..., Any]) -> None:
    for case in part.by_hand:
        _compare(part, function, case)


def _random(part: Part, function: Callable[..., Any]) -> None:
    for args in _random_args(part):
        _compare(part, function, Case("", args))


def _edges(part: Part, function: Callable[..., Any]) -> None:
    for case in part.edges:
        _compare(part, function, case)


def _causal(part: Part, function: Callable[..., Any]) -> None:
    args = part.make(Draw(0))
    before = _computed(part, function, args)
    positions = before.shape[-2]
    for row in range(positions):
        if not bool(before.select(-2, row).isfinite().all()):
            raise Wrong(
                f"Row {row} has nan or infinity in it. Softmax gives nan where a whole row is masked, and 0 times "
                "infinity is nan."
            )
        for position in range(row + 1, positions):
            changed = [_copied(one) for one in args]
            for place in part.causal:
                changed[place].select(-2 if changed[place].is_floating_point() else -1, position).mul_(-1).add_(1)
            after = _computed(part, function, tuple(changed))
            change = float((after - before).select(-2, row).abs().max())
            if not change < _CHANGE:
                raise Wrong(
                    f"Row {row} attends to position {position}, which it must not see: with another token there, "
                    f"row {row} changes by {change:.3g}."
                )


def _gradient(part: Part, function: Callable[..., Any]) -> None:
    args = part.make(Draw(1))
    want, got = _gradients(part, part.right, args), _gradients(part, function, args)
    for name, right, mine in zip(_names(part), want, got, strict=False):
        if right is None:
            continue
        if mine is None:
            raise Wrong(f"No gradient reaches {name}: it is not used, or cut off by detach, item, numpy or no_grad.")
        if fact := difference(mine, right, (), 10 * part.tolerance):
            raise Wrong(f"The gradient of {name}: {fact[0].lower() + fact[1:]}")


def _gradients(part: Part, function: Callable[..., Any], args: tuple[Any, ...]) -> list[Tensor | None]:
    """Of a weighted sum of what is compared, for each argument; None for what has none."""
    given = tuple(
        one.detach().clone().requires_grad_() if isinstance(one, Tensor) and one.is_floating_point() else one
        for one in args
    )
    seen = part.see(given, part.call(function, *given))
    outputs = [one for one in (seen if isinstance(seen, (tuple, list)) else [seen]) if isinstance(one, Tensor)]
    if not any(one.requires_grad for one in outputs):
        raise Wrong("What it returns has no gradient: detach, item, numpy or no_grad cuts it off.")
    draw = Draw(2)
    total = sum(((one * draw(*one.shape)).sum() for one in outputs), torch.zeros(()))
    learning = [one for one in given if isinstance(one, Tensor) and one.requires_grad]
    found = iter(torch.autograd.grad(total, learning, allow_unused=True))
    return [next(found) if isinstance(one, Tensor) and one.requires_grad else None for one in given]


def _speed(part: Part, function: Callable[..., Any]) -> None:
    assert part.large is not None
    args = part.large(Draw(3))
    ours = min(_seconds(part, part.right, args))
    allowed = max(part.times * ours, _FREE_SECONDS)
    theirs = min(_seconds(part, function, args, allowed))
    if theirs > allowed:
        shapes = ", ".join(str(list(one.shape)) for one in args if isinstance(one, Tensor))
        raise Wrong(
            f"It takes {1000 * theirs:.3g} ms of processor time on {shapes or 'a long input'}, and ours "
            f"{1000 * ours:.3g}: at most {1000 * allowed:.3g} are allowed. A loop in Python over rows or positions is "
            "the usual reason."
        )


def _seconds(part: Part, function: Callable[..., Any], args: tuple[Any, ...], enough: float = 0.0) -> Iterator[float]:
    """Processor times of a few calls; one below `enough` is the last, as is one so far above that no other helps."""
    for _ in range(_TIMINGS):
        given = tuple(_copied(one) for one in args)
        begin = time.process_time()
        part.call(function, *given)
        yield (seconds := time.process_time() - begin)
        if seconds < enough or seconds > _HOPELESS * enough > 0:
            return


_STEPS = (
    Step("runs", "It runs", lambda part: True, _runs),
    Step("shape", "It has the right shape", lambda part: True, _shape),
    Step("causal", "No position sees a later one", lambda part: bool(part.causal), _causal),
    Step("hand", "A case by hand", lambda part: bool(part.by_hand), _by_hand),
    Step("random", "Random cases", lambda part: True, _random),
    Step("gradient", "The right gradient", lambda part: part.gradient, _gradient),
    Step("speed", "Fast enough", lambda part: part.large is not None, _speed),
    Step("edges", "Edge cases", lambda part: bool(part.edges), _edges),
)
