"""FakeHost: a model host without a model. Speaks the protocol on stdin and stdout; words in the prompt, or in a
model's reference, misbehave. It answers questions with the archives of `fake_archives`.

"crash"     dies in the middle of a generation, with words on stderr
"exit at once" dies before it answers anything
"error"     answers with an error
"misfit"    an answer, or the third token, that does not fit the question
"partial"   writes each line in two pieces, and noise between them
"endless"   goes on until cancelled
"deaf"      never answers, not even a cancellation
"slow"      a question takes until it is cancelled, with progress on the way
"bigrams"   what comes next has bigrams of the training text beside it
"mixture"   it has none, and says why
"blind"     a model that refuses its patterns
"plain"     a model without a beginning-of-text token
"""

from __future__ import annotations

# A hundred tests each start it: what a few of them need is imported where it is needed.
import json
import math
import queue
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WORDS = ["The", " king", " is", " dead", ",", "\n", " long", " live", " <b>the</b>", " king", "!"]


def archives() -> Any:
    """Imported late, as previews are: it brings numpy, and half of the tests ask for texts alone."""
    import fake_archives

    return fake_archives


class FakeHost:
    def __init__(self) -> None:
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.cancelled: set[int] = set()
        self.partial = False

    def run(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()
        while (line := self.lines.get()) is not None:
            self._answer(json.loads(line))

    def _read(self) -> None:
        for line in sys.stdin:
            values = json.loads(line)
            if values["do"] == "cancel":
                self.cancelled.add(values["id"])
            else:
                self.lines.put(line)
        self.lines.put(None)

    def _answer(self, values: dict[str, Any]) -> None:
        if values["id"] in self.cancelled and values.get("prompt") != "deaf":
            self._say(values, event="cancelled")
            return
        if values["do"] in ("open", "tokenize", "ask", "compare", "evolve", "preview"):
            getattr(self, f"_{values['do']}")(values)
            return
        prompt = values["prompt"]
        self.partial = "partial" in prompt
        if "exit at once" in prompt:
            sys.exit(3)
        while "deaf" in prompt:
            time.sleep(0.01)
        if "error" in prompt:
            self._say(
                values, event="error", what="The model cannot read this.", why="É is unknown.", do="Leave it out."
            )
        elif values["do"] == "next" and "misfit" in prompt:
            self._say(values, event="opened", about={})
        elif values["do"] == "next":
            top = [[" the", 0.5], ["\n", 0.25], [f" {len(prompt)}", 0.25]]
            unread = max(0, len(prompt) - 1000)
            shares = {
                "last": "e",
                "occurrences": 4213,
                "shares": [0.75, 0.0, 0.125],
                "overlap": 0.625,
                "most": [[" the", 0.75], ["r", 0.125]],
                "beginning": 0,
            }
            self._say(
                values,
                event="next",
                top=top[: values["top"]],
                entropy=1.5 * math.log(2),
                unread=unread,
                bigrams=shares if "bigrams" in prompt else None,
                no_bigrams="its text is a mixture of sources" if "mixture" in prompt else "",
            )
        else:
            self._generate(values, prompt)

    def _generate(self, values: dict[str, Any], prompt: str) -> None:
        self._say(values, event="loading")
        import random

        dice = random.Random(values["seed"])
        tokens = 10**9 if "endless" in prompt else values["tokens"]
        for place in range(tokens):
            if values["id"] in self.cancelled and values.get("prompt") != "deaf":
                self._say(values, event="cancelled")
                return
            if "crash" in prompt and place == 2:
                sys.stderr.write("Traceback\nMemoryError: out of memory\n")
                sys.stderr.flush()
                sys.exit(9)
            if "misfit" in prompt and place == 2:
                self._say(values, event="token", text=3, probability="0.6")
            word = dice.choice(WORDS)
            top = [[word, 0.6], [" other", 0.3], ["\n", 0.1]]
            rows = [[word, 0.6, 0.75], [" other", 0.3, 0.25], ["\n", 0.1, 0.0]]
            steps = [{"name": "top_p", "left": 2, "rows": rows}] if values["top_p"] < 1 else []
            self._say(values, event="token", text=word, probability=0.6, top=top[: values["top"]], steps=steps)
            if "endless" in prompt:
                time.sleep(0.002)
        self._say(values, event="done", seconds=0.01)

    def _open(self, values: dict[str, Any]) -> None:
        model = values["model"]
        for done in range(3):
            self._say(values, event="progress", what="Reading weights", done=done, total=2, eta_seconds=0.1)
        if self._misbehaves(values, model):
            return
        about = {**archives().ABOUT, "reference": model, "name": model.rpartition("/")[2]}
        if model.endswith("@live"):
            about |= {"kind": "live", "step": 100}
        if "blind" in model:
            about["refusals"] = {"attention": "Its patterns cannot be trusted."}
        self._say(values, event="opened", about=about)

    def _tokenize(self, values: dict[str, Any]) -> None:
        beginning = None if "plain" in values["model"] else archives().BEGINNING
        ids, texts = archives().cut(values["text"], values["beginning"] and beginning is not None)
        self._say(values, event="tokens", ids=ids, texts=texts, beginning=beginning)

    def _ask(self, values: dict[str, Any]) -> None:
        if self._misbehaves(values, values["values"].get("text", "")):
            return
        from pathlib import Path

        archives().write(Path(values["out"]), values["model"], values["question"], values["values"])
        self._say(values, event="answered", path=values["out"], seconds=0.01)

    def _compare(self, values: dict[str, Any]) -> None:
        self._ask({**values, "model": values["models"][0], "question": "comparison"})

    def _evolve(self, values: dict[str, Any]) -> None:
        self._ask({**values, "model": values["run"], "question": "evolution"})

    def _preview(self, values: dict[str, Any]) -> None:
        from dataclasses import asdict

        import fake_previews

        if not self._misbehaves(values, values["settings"]["source"]):
            self._say(values, event="previewed", preview=asdict(fake_previews.preview(values)))

    def _misbehaves(self, values: dict[str, Any], words: str) -> bool:
        """Whether the request has ended badly by now."""
        if "crash" in words:
            sys.stderr.write("Traceback\nMemoryError: out of memory\n")
            sys.stderr.flush()
            sys.exit(9)
        if "error" in words:
            self._say(
                values, event="error", what="The model cannot read this.", why="É is unknown.", do="Leave it out."
            )
            return True
        while "slow" in words:
            if values["id"] in self.cancelled and values.get("prompt") != "deaf":
                self._say(values, event="cancelled")
                return True
            self._say(values, event="progress", what="Reading layers", done=1, total=4, eta_seconds=30.0)
            time.sleep(0.02)
        return False

    def _say(self, values: dict[str, Any], **answer: Any) -> None:
        line = json.dumps({"id": values["id"], **answer}) + "\n"
        if not self.partial:
            sys.stdout.write(line)
        else:
            sys.stdout.write(line[:7])
            sys.stdout.flush()
            time.sleep(0.02)
            sys.stdout.write(line[7:] + "a library prints this\n[1, 2]\n{}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    FakeHost().run()
