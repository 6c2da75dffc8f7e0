"""Small tokenizers with chat templates of the families: built here, and wrapped as opened models have them."""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from llmlab.data.chat import ChatFormat, Encoded
from llmlab.data.chat_formats import chat_format
from llmlab.data.examples import Example, Message
from llmlab.data.hf_tokenizer import HuggingFaceTokenizer
from llmlab.data.tokenizers import TextTokenizer

TEXT = "user assistant system: What is the color of the sky? The sky is blue. And of the sea? It is green, too.\n\n"

CHATML = (
    "{% for message in messages %}{% if loop.first and message.role != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string + '\n\n' }}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}{% set messages = messages[1:] %}{% endif %}"
    "{{ '<|eot_id|>' }}"
    "{% for message in messages %}{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' }}"
    "{{ message.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{% set system = messages[0].content + '\n\n' %}{% set messages = messages[1:] %}"
    "{% else %}{% set system = '' %}{% endif %}"
    "{% for message in messages %}"
    "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate!') }}{% endif %}"
    "{% if message.role == 'user' %}{{ '[INST] ' + (system if loop.first else '') + message.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + message.content | trim + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else 'user') + '\n' }}"
    "{{ message.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# As Qwen 3's: the last answer has an empty thought before it, and earlier ones have none.
THINKING = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
# Writes first how many turns follow.
COUNTING = (
    "{{ messages | length }}{% for message in messages %}{{ message.role + ': ' + message.content + '\n' }}{% endfor %}"
)


@dataclass(frozen=True)
class Family:
    """A template with the special tokens that it uses, and what it makes of CONVERSATION: pieces, trained on or not."""

    template: str
    special: tuple[str, ...]
    pieces: tuple[tuple[str, bool], ...]


CONVERSATION = (
    Message("system", "Be brief."),
    Message("user", "What is the color of the sky?"),
    Message("assistant", "The sky is blue."),
    Message("user", "And of the sea?"),
    Message("assistant", "It is green, too."),
)
FAMILIES = {
    "chatml": Family(
        CHATML,
        ("<|im_start|>", "<|im_end|>"),
        (
            ("<|im_start|>system\nBe brief.<|im_end|>\n", False),
            ("<|im_start|>user\nWhat is the color of the sky?<|im_end|>\n<|im_start|>assistant\n", False),
            ("The sky is blue.<|im_end|>", True),
            ("\n<|im_start|>user\nAnd of the sea?<|im_end|>\n<|im_start|>assistant\n", False),
            ("It is green, too.<|im_end|>", True),
            ("\n", False),
        ),
    ),
    "llama3": Family(
        LLAMA3,
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        (
            ("<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\nBe brief.<|eot_id|>", False),
            ("<|start_header_id|>user<|end_header_id|>\n\nWhat is the color of the sky?<|eot_id|>", False),
            ("<|start_header_id|>assistant<|end_header_id|>\n\n", False),
            ("The sky is blue.<|eot_id|>", True),
            ("<|start_header_id|>user<|end_header_id|>\n\nAnd of the sea?<|eot_id|>", False),
            ("<|start_header_id|>assistant<|end_header_id|>\n\n", False),
            ("It is green, too.<|eot_id|>", True),
        ),
    ),
    "mistral": Family(
        MISTRAL,
        ("[INST]", "[/INST]"),
        (
            ("<s>[INST] Be brief.\n\nWhat is the color of the sky? [/INST]", False),
            (" The sky is blue.</s>", True),  # the space belongs to the first word's token
            ("[INST] And of the sea? [/INST]", False),
            (" It is green, too.</s>", True),
        ),
    ),
}


def byte_level(template: str | None, special: tuple[str, ...] = (), vocabulary: int = 400) -> HuggingFaceTokenizer:
    """GPT-2's way: bytes, and pieces learned from TEXT."""
    pipeline = Tokenizer(models.BPE())
    pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pipeline.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>", *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pipeline.train_from_iterator([TEXT] * 3, trainer)
    return _wrapped(pipeline, template, special)


def sentencepiece(template: str | None, special: tuple[str, ...] = ()) -> HuggingFaceTokenizer:
    """Llama 2's way: spaces are U+2581, and one stands before every text."""
    names = ["<unk>", "<s>", "</s>", *special, *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = [*names, "▁", *sorted(set(TEXT) - {" ", "\n"}), "th", "the", "▁the", "sk", "sky", "▁sky"]
    vocabulary = {piece: id for id, piece in enumerate(dict.fromkeys(pieces))}
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("s", "k"), ("sk", "y"), ("▁", "sky")]
    pipeline = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    pipeline.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    pipeline.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _wrapped(pipeline, template, special)


def chat(template: str | None, special: tuple[str, ...] = ()) -> ChatFormat:
    """The format of a byte-level tokenizer with that template."""
    return chat_format(byte_level(template, special))


def example(*contents: str, number: int = 1) -> Example:
    """A conversation: what the person and the assistant say in turn."""
    return Example(number, tuple(Message(("user", "assistant")[place % 2], c) for place, c in enumerate(contents)))


def _wrapped(pipeline: Tokenizer, template: str | None, special: tuple[str, ...]) -> HuggingFaceTokenizer:
    inner = PreTrainedTokenizerFast(
        tokenizer_object=pipeline,
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=list(special),
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )
    return HuggingFaceTokenizer(inner)


def runs(tokenizer: TextTokenizer, encoded: Encoded) -> list[tuple[str, bool]]:
    """Neighbouring tokens of one kind joined."""
    joined: list[tuple[list[int], bool]] = []
    for id, trained in zip(encoded.ids, encoded.trained, strict=True):
        if not joined or joined[-1][1] != trained:
            joined.append(([], trained))
        joined[-1][0].append(id)
    return [(tokenizer.decode(ids), trained) for ids, trained in joined]
