"""The command line's entry: reads the words, calls the command, turns errors into one sentence and an exit code.

Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted. Modules of commands are imported until the one that was
asked for is among them, and torch only by the commands that need it, when they run: each answers at once.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from llmlab import __version__
from llmlab.cli.output import DONE, FAILED, INTERRUPTED, WRONG_USE, prepare_streams, say, silence_stdout
from llmlab.cli.words import Commands, Parser
from llmlab.core.errors import Cancelled, LabError, UsageError, unknown

# In the order in which the help lists their commands.
_MODULES = (
    *("train", "runs", "checkpoints", "models", "inspect", "compare", "experiment", "examples", "exercise"),
    *("intervene", "walk", "adapter", "notebook", "paper", "practice", "learn", "mystery", "catalogue", "doctor"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. arguments: without the program's name; sys.argv's when None."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    prepare_streams("--json" in words)
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `llmlab-run settings | head`: the reader has seen enough
        silence_stdout()
        return DONE
    except (KeyboardInterrupt, Cancelled):
        say("Interrupted.")
        return INTERRUPTED
    except LabError as error:
        if debug:
            traceback.print_exc()
        say(f"error: {error}")
        return WRONG_USE if isinstance(error, UsageError) else FAILED
    except Exception as error:
        if debug:
            traceback.print_exc()
        what = f"{type(error).__name__}: {error}".rstrip(".: ")
        advice = "" if debug else " Run the same command with --debug to see where."
        say(f"error: Something unexpected went wrong ({what}).{advice}")
        return FAILED


def _run(words: Sequence[str]) -> int:
    parser = Parser(
        prog="llmlab-run",
        description="LLM Learning Lab without its window: train a GPT from scratch, and use what was trained.",
    )
    parser.add_argument("--version", action="version", version=f"llmlab {__version__}")
    commands = Commands(parser)
    for module in _MODULES:
        import_module(f"llmlab.cli.{module}").add_commands(commands)
        if words and words[0] in commands.names:
            break
    if not words:
        parser.print_help()
        return WRONG_USE
    if words[0].startswith("-") and words[0] not in ("-h", "--help", "--version"):
        raise UsageError(f"{words[0]} comes before the command.", "Options come after it.", "See llmlab-run --help")
    if not words[0].startswith("-") and words[0] not in commands.names:
        raise unknown("command", words[0], commands.names)
    args, more = parser.parse_known_args(words)
    if more:
        args.parser.refuse(more)
    args.words = list(words)  # for what writes down how it was made
    return int(args.command(args))
