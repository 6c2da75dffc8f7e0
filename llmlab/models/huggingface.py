"""Opening models of transformers: folders with safetensors weights, GGUF files, and models of the hub.

Nothing that comes with a model is run: no code of its own, no pickles. And nothing is made up: a model whose file
lacks a weight is refused, where transformers would fill it with random numbers.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from llmlab.anatomy.sizes import wrong_size
from llmlab.core.device import is_out_of_memory
from llmlab.core.errors import Cancelled, LabError, brief
from llmlab.core.files import read_json
from llmlab.core.memory import ran_out, require_memory
from llmlab.core.progress import Progress, quiet
from llmlab.data.hf_tokenizer import load_tokenizer
from llmlab.models.available import CONFIG_FILE, GENERATION_FILE, folder_name
from llmlab.models.gguf_cache import gguf_folder, is_whole, keep
from llmlab.models.gguf_file import count_gguf_parameters, quick_reader
from llmlab.models.model import OpenModel, require_finite
from llmlab.models.weights import count_parameters

# transformers would fetch programs for some families from the hub and run them. It reads this when it is imported.
os.environ["USE_HUB_KERNELS"] = "0"
# So would bitsandbytes, which peft imports, by the package `kernels`: nobody finds it. Without it, it is as good for
# training, and warns that it could answer single prompts faster.
sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
# What a setting can be is known to transformers alone; huggingface_hub's strict data classes say which one is wrong.
_FIELD = re.compile(r"Validation error for field '(\w+)'")
# Sizes that are 0 in some families: those without a feed-forward, or without keys and values of their own.
_MAY_BE_NONE = ("intermediate_size", "n_inner", "num_key_value_heads", "head_dim")
_OTHER_SETTINGS = f"Correct it, or take another copy of {CONFIG_FILE}."
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")  # of a layer, or of an expert, in a weight's name
_FLOAT = 4  # bytes of a weight: fp32, in which all numbers of the lab are computed on a CPU


@contextlib.contextmanager
def without_compiler() -> Iterator[None]:
    """Around the first import of bitsandbytes, by which peft begins: functions that the lab never calls would load
    torch's compiler, for two seconds of a core."""
    plain = torch.compile
    # As a decorator, also one with options, which is a call that names no function yet.
    torch.compile = lambda model=None, **_: (lambda made: made) if model is None else model  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = plain


def open_folder(
    folder: Path,
    reference: str,
    progress: Progress = quiet,
    *,
    name: str | None = None,
    with_bytes: int = 0,
    loading: Mapping[str, Any] | None = None,
) -> OpenModel:
    """A Hugging Face folder, in fp32 on the CPU. with_bytes: memory that is needed besides, for an adapter.

    loading: what else transformers should be told, to quantize weights while it reads them; the caller sees to the
    memory then.

    LabError when it is damaged, not a language model, needs code of its own, has its weights in pickles, or does
    not fit into memory. Cancelled when `progress` says so.
    """
    name = name or folder_name(folder)
    progress("Reading the settings", 0, 0)
    _check_settings(folder, name)
    numbers = count_parameters(folder, name)
    if loading is None:
        require_memory(numbers * _FLOAT + with_bytes, name)
    model = load_model(folder, name, progress, numbers=numbers, loading=loading)
    progress("Reading the tokenizer", 1, 1)
    return OpenModel(reference, name, "huggingface", model, load_tokenizer(folder, name))


def open_gguf(path: Path, progress: Progress = quiet, *, with_bytes: int = 0) -> OpenModel:
    """A GGUF file in fp32 on the CPU. with_bytes: memory that is needed besides, for an adapter.

    It is dequantized once (`llmlab.models.gguf_cache`).

    LabError when it is cut or foreign, of an architecture that transformers cannot read from GGUF, or too large.
    """
    name = path.stem
    progress("Reading the header", 0, 0)
    numbers = count_gguf_parameters(path, name)
    require_memory(numbers * _FLOAT + with_bytes, name)
    folder = gguf_folder(path)
    if is_whole(folder, progress):
        with contextlib.suppress(LabError):  # then the file itself is read
            model = load_model(folder, name, progress, numbers=numbers)
            return OpenModel(str(path), name, "gguf", model, load_tokenizer(folder, name))
    with _read_once(progress):
        model = load_model(path.parent, name, progress, numbers=numbers, gguf_file=path.name)
        progress("Reading the tokenizer", 0, 0)
        tokenizer = load_tokenizer(path.parent, name, path.name)
    opened = OpenModel(str(path), name, "gguf", model, tokenizer)
    keep(opened, path, folder, progress)
    return opened


def load_model(
    folder: Path,
    name: str,
    progress: Progress,
    *,
    numbers: int,
    gguf_file: str | None = None,
    loading: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The causal language model in a folder, or of a GGUF file in it, in fp32 and eval mode.

    numbers: how many the file holds; settings that describe a much larger model are refused before memory is taken.
    loading: further arguments of transformers' from_pretrained.
    """
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM

    transformers.logging.set_verbosity_error()
    common: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    if gguf_file is not None:
        common["gguf_file"] = gguf_file
    with translated(name), _reported(progress):
        with _blamed(folder, name):
            config = AutoConfig.from_pretrained(folder, **common)
        common["config"] = config
        if getattr(config, "is_encoder_decoder", False):
            raise LabError(f"{name} cannot be opened.", "It has an encoder and a decoder; the lab opens decoders.")
        config._attn_implementation = None  # settings may name a program on the hub; None is the family's usual one
        config._experts_implementation = None
        if gguf_file is None and hasattr(config, "quantization_config"):
            del config.quantization_config  # it was quantized once, and its weights are not
        _require_enough(config, numbers, name)
        if gguf_file is None:
            common["use_safetensors"] = True
        elif (gguf_settings := getattr(transformers, "GgufConfig", None)) is not None:
            # Else newer ones keep weights packed, and fetch programs from the hub to multiply with them.
            common["quantization_config"] = gguf_settings(dequantize=True)
        common |= loading or {}
        with _blamed(folder, name):
            model, info = AutoModelForCausalLM.from_pretrained(
                folder,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are named, and refused below, where it would print a table of them
                dtype=torch.float32,
                **common,
            )
    _require_complete(info, name)
    _require_all_layers(info, {key for key, _ in model.named_parameters()}, name)
    loaded: nn.Module = model.eval()
    require_finite(loaded, name)
    for parameter in loaded.parameters():
        parameter.requires_grad_(False)
    return loaded


def read_config(folder: Path, name: str, gguf_file: str | None = None) -> Any:
    """The settings in a folder, or of a GGUF file in it, as transformers reads them; no weights. LabError as others."""
    from transformers import AutoConfig

    extra = {} if gguf_file is None else {"gguf_file": gguf_file}
    with translated(name):
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True, **extra)


@contextlib.contextmanager
def translated(name: str) -> Iterator[None]:
    """Whatever goes wrong inside, in a sentence: a foreign file can fail anywhere inside its reader."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters of them is checked, and said in a sentence
            yield
    except (LabError, Cancelled):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise ran_out(name) from error
        raise LabError(
            f"{name} cannot be opened.",
            f"Its files are refused: {brief(error)}",
            "Take another copy of it, or one that transformers opens.",
        ) from error


@contextlib.contextmanager
def _blamed(folder: Path, name: str) -> Iterator[None]:
    """While it lasts, what transformers refuses is said by the setting that it is about, where one is clearly wrong."""
    try:
        yield
    except Exception as error:
        if isinstance(error, Cancelled) or is_out_of_memory(error):
            raise
        settings = read_json(folder / CONFIG_FILE) or {}
        field = _FIELD.search(str(error))
        value = settings.get(field[1], "nothing") if field else None
        why = (
            f"Its {CONFIG_FILE} says {field[1]} = {value!r:.60}, which it cannot be."
            if field
            else wrong_size(settings, must_divide="is not a multiple" in str(error))
        )
        if why:
            raise LabError(f"{name} cannot be opened.", why, _OTHER_SETTINGS) from error
        if (folder / GENERATION_FILE).is_file() and read_json(folder / GENERATION_FILE) is None:
            raise LabError(f"{name} cannot be opened.", f"Its {GENERATION_FILE} is damaged.", "Remove it.") from error
        raise


def _check_settings(folder: Path, name: str) -> None:
    settings = read_json(folder / CONFIG_FILE)
    if settings is None:
        raise LabError(f"{name} cannot be opened.", f"Its {CONFIG_FILE} is missing or damaged.")
    from transformers import CONFIG_MAPPING

    if why := wrong_size({key: value for key, value in settings.items() if key not in _MAY_BE_NONE}, only_whole=True):
        raise LabError(f"{name} cannot be opened.", why, _OTHER_SETTINGS)
    family = settings.get("model_type")
    if not isinstance(family, str) or family not in CONFIG_MAPPING:
        if settings.get("auto_map"):
            why = "It needs code that comes with it, and the lab runs no code of a model."
        else:
            why = f"Its {CONFIG_FILE} names the family {family!r}, which transformers does not know."
        raise LabError(f"{name} cannot be opened.", why, "A newer transformers may know it.")
    quantized = settings.get("quantization_config")
    method = quantized.get("quant_method") if isinstance(quantized, dict) else None
    if quantized and method != "gguf":  # of a GGUF file that was saved in full precision, the word stays behind
        raise LabError(
            f"{name} cannot be opened.",
            f"Its weights are quantized ({method or 'in an unknown way'}), so what is shown would not be the model's.",
            "Open a copy in full precision, or its GGUF file.",
        )


def _require_enough(config: Any, numbers: int, name: str) -> None:
    """LabError when the settings, which anyone can write, describe a model far larger than the file."""
    from transformers import AutoModelForCausalLM

    text = config.get_text_config()
    layers, width = getattr(text, "num_hidden_layers", 0), getattr(text, "hidden_size", 0)
    described = layers * width if type(layers) is int and type(width) is int else 0  # a norm in each layer, at least
    if described <= numbers:
        with (
            contextlib.suppress(Exception),
            torch.device("meta"),
        ):  # no memory; what fails here fails again, and is said
            described = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    if described > 2 * numbers:  # a file may leave out what is tied, which is never half of it
        raise LabError(
            f"{name} cannot be opened.",
            f"Its settings describe a model of at least {described:,} numbers, and its file holds {numbers:,}.",
        )


def _require_complete(info: dict[str, Any], name: str) -> None:
    """LabError when the file did not hold every weight."""
    for key, said in (("missing_keys", "lacks"), ("mismatched_keys", "holds in another shape")):
        found = sorted(str(entry[0] if isinstance(entry, tuple) else entry) for entry in info.get(key) or ())
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            raise LabError(
                f"{name} cannot be opened.",
                f"Its file {said} the weight {found[0]}{more}; random numbers would stand in for it.",
                "Is it a causal language model, and complete?",
            )


def _require_all_layers(info: dict[str, Any], held: Set[str], name: str) -> None:
    """LabError when the file has more of the model's own layers than its settings say: they would be left out.

    held: the model's own weights. Weights of another kind (an old mask, a second head) are no reason: transformers
    leaves them out as well, and the model is whole without them.
    """
    kinds = {_NUMBER.sub("N", key) for key in held}
    over = sorted(key for key in info.get("unexpected_keys") or () if _NUMBER.sub("N", key) in kinds)
    if over:
        more = f" and {len(over) - 1} more" if len(over) > 1 else ""
        raise LabError(
            f"{name} cannot be opened.",
            f"Its file holds the weight {over[0]}{more}, for which its {CONFIG_FILE} has no layer.",
            f"Is {CONFIG_FILE} that of another model?",
        )


@contextlib.contextmanager
def _reported(progress: Progress) -> Iterator[None]:
    """While it lasts, the bars that transformers would draw are told to `progress`, which may cancel."""
    from transformers.utils import logging

    progress("Loading the weights", 0, 0)
    set_hook: Callable[[Any], Any] | None = getattr(logging, "set_tqdm_hook", None)  # since transformers 5
    logging.disable_progress_bar()
    if set_hook is None:
        yield
        return
    previous = set_hook(lambda factory, args, options: Bar(progress, *args, **options))
    try:
        yield
    finally:
        set_hook(previous)


@contextlib.contextmanager
def _read_once(progress: Progress) -> Iterator[None]:
    """While it lasts, transformers' four readings of the file share one, and its bar is told to `progress`.

    transformers makes a new one each time; and for each of a model's modules anew the names that all of its tensors
    may have.
    """
    import gguf
    from transformers import modeling_gguf_pytorch_utils as legacy

    parse = legacy._gguf_parse_value

    def parsed(value: Any, kinds: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode()
        return value if isinstance(value, (int, float)) else parse(value, kinds)

    def bar(iterable: Any, **options: Any) -> Bar:
        return Bar(progress, iterable, **options)

    once = functools.lru_cache(1)
    with (
        replaced(gguf, "GGUFReader", once(quick_reader())),
        replaced(legacy, "_gguf_parse_value", parsed),
        replaced(gguf, "get_tensor_name_map", once(gguf.get_tensor_name_map)),
        replaced(legacy, "tqdm", bar),
    ):
        yield


@contextlib.contextmanager
def replaced(module: ModuleType, name: str, by: Any) -> Iterator[None]:
    """While it lasts, a module's `name` is another; nothing happens where a version has no such name."""
    plain = getattr(module, name, None)
    if plain is None:
        yield
        return
    setattr(module, name, by)
    try:
        yield
    finally:
        setattr(module, name, plain)


class Bar:
    """Stands in for a bar of tqdm."""

    def __init__(self, progress: Progress, iterable: Any = None, total: float | None = None, **_: Any) -> None:
        self._progress, self._iterable, self.n = progress, iterable, 0.0
        self.total = total if total is not None else len(iterable) if hasattr(iterable, "__len__") else 0

    def __iter__(self) -> Iterator[Any]:
        for item in self._iterable:
            yield item
            self.update()

    def update(self, count: float = 1) -> None:
        self.n += count
        self._progress("Loading the weights", self.n, self.total)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None  # close, set_description, set_postfix, refresh
