"""The entry of `llmlab-run` and `python -m llmlab`: the command line, whose imports Ctrl-C may interrupt as well."""

import sys


def main() -> int:
    """`llmlab.cli.main.main`, with its exit codes."""
    try:
        from llmlab.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
