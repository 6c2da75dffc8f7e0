"""What the libraries of training do, and leave, in a process that begins with nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
import torch

import llmlab
from llmlab.models.huggingface import without_compiler

# Without torch's compiler, whose import takes seconds; then, adapters are made, and a 4-bit base with them.
_TRAINS = """
import sys
from pathlib import Path
import torch
from llmlab.core.device import Device
from llmlab.core.finetuning_settings import BaseSettings, FinetuneSettings
from llmlab.core.progress import quiet
from llmlab.core.settings import ModelSettings, PretrainTrainSettings
from llmlab.gpt.model import GPT
from llmlab.training.loop import make_pretraining_optimizer

for name in ("adamw", "muon"):
    model = GPT(ModelSettings(n_layer=1, n_head=2, n_embd=16, block_size=8), 31)
    optimizer = make_pretraining_optimizer(model, PretrainTrainSettings(optimizer=name))
    optimizer.zero_grad(set_to_none=True)
    ids = torch.arange(8)[None]
    model.loss(ids, ids).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo" not in sys.modules
assert not hasattr(torch.optim.Optimizer.zero_grad.__wrapped__, "__dynamo_disable")  # as others find it

from llmlab.training.finetuning.backends import prepare
for method in ("lora", "qlora"):
    settings = FinetuneSettings(model=BaseSettings(base=sys.argv[1], method=method))
    prepare(settings, Path(), Device("cpu", "fp32"), quiet, 0)
    assert "torch._inductor.compile_fx" not in sys.modules
assert torch.compile.__module__ == "torch"
"""


@pytest.mark.slow
def test_no_compiler_is_loaded_to_train_and_nobody_chats_or_looks_for_programs(tmp_path: Path) -> None:
    # A package `kernels` that would fetch programs: nobody may import it.
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("raise SystemExit('kernels was imported')")
    base = tiny_models.save(tiny_models.llama(), tmp_path / "llama")
    begins = f"import sys; sys.path[:1] = {[str(tmp_path), str(Path(llmlab.__file__).parents[1])]}"
    command = [sys.executable, "-c", f"{begins}\n{_TRAINS}", str(base)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_the_compiler_a_function_stays_what_it_is_with_options_too() -> None:
    def twice(number: int) -> int:
        return 2 * number

    with without_compiler():
        made = [torch.compile(twice), torch.compile(model=twice, dynamic=True), torch.compile(dynamic=False)(twice)]
    assert made == [twice] * 3
