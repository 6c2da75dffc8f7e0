"""A chat with a fine-tuned model is the same text in the lab, in plain transformers, and in plain PEFT on its base."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import chat_tokenizers as make
import pytest
import tiny_models
import torch
import transformers
from bases import qwen2
from peft import PeftModel
from preset_settings import resolve_finetune_settings
from small_runs import new_run, train_here
from tokenizers import Regex, pre_tokenizers

from llmlab.core.settings import Sampling
from llmlab.data import template_rendering as rendering
from llmlab.data.chat_formats import chat_format
from llmlab.data.examples import Example, Message
from llmlab.gpt.model import GPT
from llmlab.jobs.launcher import create_run
from llmlab.models.export.merge import export
from llmlab.models.generation import write
from llmlab.models.model import OpenModel
from llmlab.models.source import open_model

PAIRS = {"sea sky?": "sea", "old new?": "old", "the king?": "the", "red sea?": "red"}
OWN = ("char", "bpe", "compact", "gpt2")
# No template, one of each kind of option that the lab gives a template, and one whose turns have an end of their own.
TEMPLATES = {"llama": None, "qwen2": None, "chatml": make.CHATML, "llama3": make.LLAMA3, "thinking": make.THINKING}
OFTEN = ("bpe", "llama", "chatml")  # the others are slow, and rarely break where these do not
TOKENS = 8
LIKELY = 2.0  # how much longer than others the row of the token that ends answers is: the model stops now and then


@dataclass(frozen=True)
class Made:
    """A folder with a base, and a run `tuned` on it, which is open."""

    outputs: Path
    base: str
    tuned: OpenModel


@pytest.fixture(
    scope="module",
    params=[
        *OFTEN,
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in (*OWN, *TEMPLATES) if kind not in OFTEN),
    ],
)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    outputs = tmp_path_factory.mktemp(request.param)
    rows = [{"prompt": question, "completion": answer} for question, answer in PAIRS.items()]
    (outputs / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = _scratch(outputs, request.param) if request.param in OWN else _folder(outputs, request.param)
    overrides = {
        "model.base": base,
        "data.source": str(outputs / "pairs.jsonl"),
        "data.max_length": 96,
        "data.batch_size": 3,
        "data.scored": 0,
        "lora.rank": 8,
        "train.steps": 4,
        "train.learning_rate": 0.1,
        "train.eval_interval": 4,
        "train.sample_interval": 0,
        "train.threads": 1,
        "checkpoints.interval": 0,
    }
    train_here(create_run(outputs, resolve_finetune_settings("scratch", overrides=overrides), name="tuned"))
    return Made(outputs, base, open_model("tuned@final", outputs))


def _scratch(outputs: Path, tokenizer: str) -> str:
    text = outputs / "corpus.txt"
    text.write_text("\n".join(f"User: {question}\nAssistant: {answer}" for question, answer in PAIRS.items()) * 20)
    overrides = {"data__tokenizer": tokenizer, "data__bpe_vocab_size": 280, "data__corpus": str(text)}

    def lively(model: GPT) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0.0, 0.3)
            # Where answers end: the line end is the first character, the end of text the last token.
            model.token_embedding.weight[0 if tokenizer == "char" else model.vocab_size - 1] *= LIKELY

    with mock.patch.object(GPT, "initialise", lively):
        train_here(new_run(outputs, 1, "base", model__block_size=64, model__vocab_multiple=64, **overrides))
    return "base@final"


def _folder(outputs: Path, kind: str) -> str:
    if TEMPLATES[kind] is None:
        model = tiny_models.llama() if kind == "llama" else qwen2()
        return str(tiny_models.save(_ending(model, tiny_models.TOKENIZER.end_of_text), outputs / "base"))
    special = ("<|im_start|>", "<|im_end|>", *make.FAMILIES["llama3"].special)
    tokenizer = make.byte_level(TEMPLATES[kind], special).inner
    # Llama 3's and Qwen's rule, by which line ends before an answer are cut as at the end of a prompt.
    line_ends = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    steps = [pre_tokenizers.Split(line_ends, "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    model = tiny_models.llama(vocab_size=len(tokenizer), max_position_embeddings=256, eos_token_id=1)
    end = "<|eot_id|>" if kind == "llama3" else "<|im_end|>"
    _ending(model, tokenizer.convert_tokens_to_ids(end)).save_pretrained(outputs / "base")
    tokenizer.save_pretrained(outputs / "base")
    return str(outputs / "base")


def _ending(model: Any, id: int) -> Any:
    """The model with a token that is more likely than others."""
    with torch.no_grad():
        model.get_output_embeddings().weight[id] *= LIKELY
    return model


def in_the_lab(opened: OpenModel, question: str) -> tuple[list[int], str]:
    """The prompt's ids, and the answer."""
    ids = chat_format(opened.tokenizer).prompt_ids(Example(1, (Message("user", question),)))
    tokens = write(opened, question, TOKENS, Sampling(0, 0), seed=0, chat=True)
    return ids, _whole("".join(token.text for token in tokens))


def elsewhere(model: Any, tokenizer: Any, question: str) -> tuple[list[int], str]:
    """The same by transformers' own means."""
    turns = [{"role": "user", "content": question}]
    asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = model.generate(**asked, max_new_tokens=TOKENS, do_sample=False)[0].tolist()
    ends, count = model.generation_config.eos_token_id, asked["input_ids"].shape[1]
    answer = written[count:]
    if answer[-1] in (ends if isinstance(ends, list) else [ends]):
        answer.pop()
    return written[:count], _whole(tokenizer.decode(answer))


def _whole(text: str) -> str:
    """Without a character that is not whole: these models write bytes at random."""
    return text.rstrip("\ufffd")


def test_the_merged_export_answers_in_plain_transformers_as_the_run_does(made: Made, tmp_path: Path) -> None:
    export("tuned@final", made.outputs, tmp_path / "merged", "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    merged, stopped = open_model(str(tmp_path / "merged"), made.outputs), 0
    for question in PAIRS:
        ids, answer = in_the_lab(made.tuned, question)
        assert elsewhere(model, tokenizer, question) == (ids, answer)
        assert in_the_lab(merged, question) == (ids, answer)
        stopped += len(tokenizer(answer, add_special_tokens=False)["input_ids"]) < TOKENS
    assert stopped


def test_the_exported_adapter_answers_in_plain_peft_on_the_exported_base(made: Made, tmp_path: Path) -> None:
    export("tuned@final", made.outputs, tmp_path / "adapter", "adapter")
    export(made.base, made.outputs, tmp_path / "base", "hf")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = PeftModel.from_pretrained(base, tmp_path / "adapter")
    model.generation_config = transformers.GenerationConfig.from_pretrained(tmp_path / "adapter")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "adapter")
    for question in list(PAIRS)[:2]:
        assert elsewhere(model, tokenizer, question) == in_the_lab(made.tuned, question)


@pytest.mark.parametrize("to", ["hf", "adapter"])
def test_settings_of_sampling_that_nothing_uses_are_exported_as_they_are(to: str, tmp_path: Path) -> None:
    """Many models have them; transformers opens such a file, and refuses to write one."""
    base = tiny_models.save(tiny_models.llama(), tmp_path / "base")
    named = {"do_sample": False, "temperature": 0.6, "top_p": 0.9, "eos_token_id": 2}
    (base / "generation_config.json").write_text(json.dumps(named))
    tiny_models.save_adapter(base, tmp_path / "adapter")
    export(f"{base}+{tmp_path / 'adapter'}", tmp_path, tmp_path / "out", to)
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert {name: written[name] for name in ("temperature", "top_p")} == {"temperature": 0.6, "top_p": 0.9}
    assert 2 in written["eos_token_id"]


def test_a_model_that_was_not_fine_tuned_is_exported_without_running_its_chat_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_models.save(tiny_models.llama(), tmp_path / "base")
    make.byte_level(make.CHATML, ("<|im_start|>", "<|im_end|>")).inner.save_pretrained(base)
    monkeypatch.setattr(rendering, "_Process", mock.Mock(side_effect=AssertionError("A process was started.")))
    monkeypatch.setattr(rendering, "_running", None)
    export(str(base), tmp_path, tmp_path / "out", "hf")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == make.CHATML
