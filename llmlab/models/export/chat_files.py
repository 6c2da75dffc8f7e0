"""What an exported model needs to answer a chat as it does in the lab: its tokenizer, chat template and ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmlab.core.errors import LabError
from llmlab.data.chat import ChatFormat
from llmlab.data.chat_formats import chat_format
from llmlab.data.hf_tokenizer import HuggingFaceTokenizer
from llmlab.data.tokenizers import TextTokenizer, Tokenizer, save_hf_tokenizer

# Kinds of open models that learned to answer in the lab's chat form.
FINE_TUNED = ("adapter", "finetuned")


def set_ends(config: Any, tokenizer: TextTokenizer, *, fine_tuned: bool) -> None:
    """Puts into transformers' GenerationConfig at which tokens the lab stops, beside those that are there.

    fine_tuned: the model learned to answer, and stops where an answer ends as well.
    """
    known = config.eos_token_id
    ends = [] if known is None else list(known) if isinstance(known, (list, tuple)) else [known]
    if isinstance(tokenizer, Tokenizer) and tokenizer.beginning is not None:
        config.bos_token_id = tokenizer.beginning
        ends.append(tokenizer.beginning)  # the id between documents
    if fine_tuned and (form := chat_form(tokenizer)) is not None:
        ends += form.end_ids
    ends = list(dict.fromkeys(int(id) for id in ends))
    config.eos_token_id = ends[0] if len(ends) == 1 else ends or None


def write_tokenizer(tokenizer: TextTokenizer, folder: Path, *, fine_tuned: bool) -> None:
    """The tokenizer's files with the template that the lab chats in; nothing for a model that came without one.

    fine_tuned: the model learned that template. A model of transformers that was not fine-tuned keeps its own as it is.
    """
    if isinstance(tokenizer, Tokenizer):
        form = chat_form(tokenizer)
        save_hf_tokenizer(tokenizer, folder, None if form is None else form.template)
    elif isinstance(tokenizer, HuggingFaceTokenizer):
        if fine_tuned and (form := chat_form(tokenizer)) is not None:
            tokenizer.inner.chat_template = form.template
        tokenizer.inner.save_pretrained(folder)


def chat_form(tokenizer: TextTokenizer) -> ChatFormat | None:
    """None where the lab cannot chat: without a tokenizer, or with a vocabulary that lacks what turns are told by."""
    try:
        return chat_format(tokenizer)
    except LabError:
        return None
