"""The documents say what is so: their commands parse, their links lead somewhere, their figures are the lab's own."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import math
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from cases import each
from preset_settings import resolve_finetune_settings, resolve_settings

from llmlab.cli import main as command_line
from llmlab.cli.words import Commands, Parser, assignments_of
from llmlab.core.config import parse_assignments, read_toml, with_values
from llmlab.core.finetuning_settings import FinetuneSettings
from llmlab.core.presets import DEFAULT_PRESET, FINETUNE_PRESET, load_preset
from llmlab.core.progress import quiet
from llmlab.core.setting_info import describe
from llmlab.core.settings import PretrainSettings
from llmlab.core.source_code import find_source
from llmlab.core.task_settings import TaskSettings
from llmlab.data.dataset import load_dataset
from llmlab.data.stories import story_entropy
from llmlab.gpt.shapes import parameter_count
from llmlab_gui.pages.library import READ_FIRST, READING_ORDER, load_all
from llmlab_gui.pages.links import read_link
from llmlab_gui.pages.page import CONCEPTS, FIRST_HOUR, HOW_TO, HOW_TO_READ, PAPERS, figures_of, links_of, markdown
from llmlab_gui.pages.places import DOCK_IDS, DOCK_PAGES, panels_of, with_panels

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHECKS = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
ALL_PAGES = load_all()
PAGES = {page.name: page for page in ALL_PAGES if page.group == CONCEPTS}
WITH_RUNS = {page.name: page for page in ALL_PAGES if page.group in (CONCEPTS, FIRST_HOUR)}
DOCUMENTS = {
    **{name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CHANGELOG.md")},
    "THIRD_PARTY_NOTICES.md": (ROOT / "THIRD_PARTY_NOTICES.md").read_text(encoding="utf-8"),
    **{f"{page.name}.md": page.text for page in ALL_PAGES},
}


def code_of(text: str) -> Iterator[str]:
    """The lines of every code block and the text of every code span."""
    for token in markdown().parse(text):
        if token.type in ("fence", "code_block"):
            yield from token.content.splitlines()
        yield from (child.content for child in token.children or () if child.type == "code_inline")


def files_of(text: str) -> Iterator[str]:
    """What links and figures name, the web left out."""
    named = (*links_of(text), *figures_of(text))
    return (name for name in named if not name.startswith("http"))


def commands_of(text: str) -> list[str]:
    """Every `llmlab-run ...` in the code of a text, without what stands before it."""
    parts = [part.strip() for code in code_of(text) for part in code.split("&&")]
    named = [part.removeprefix(".venv/bin/") for part in parts]
    return [part for part in named if part.startswith("llmlab-run ")]


# README and the guides to the lab's use, in the order in which their commands are followed; the other guides show how
# to add something, with files that are not there yet.
MANUAL = ("README.md", *(f"{name}.md" for name in READ_FIRST if name.startswith("guides/")))
# A claim's test names a command without all that it needs.
_CLAIMS = {f"{page.name}.md" for page in ALL_PAGES if page.group == PAPERS}
ALL_COMMANDS = [
    (name, command) for name, text in DOCUMENTS.items() if name not in _CLAIMS for command in commands_of(text)
]


@functools.cache
def the_parser() -> tuple[Parser, list[str]]:
    """The command line's parser with all its commands, and their names."""
    parser = Parser(prog="llmlab-run")
    commands = Commands(parser)
    for module in command_line._MODULES:
        importlib.import_module(f"llmlab.cli.{module}").add_commands(commands)
    return parser, commands.names


def settings_of(command: str) -> PretrainSettings | None:
    """What a command line asks for; None where it trains nothing. Raises UsageError when it is not understood."""
    words = shlex.split(command, comments=True)[1:]
    args, unknown = the_parser()[0].parse_known_args(words)
    assert not unknown
    if words[0] == "data":
        with_values(FinetuneSettings(), parse_assignments(args.assignments))
    if words[0] == "finetune":
        resolve_finetune_settings(args.preset or FINETUNE_PRESET, overrides=assignments_of(args))
    if words[0] not in ("pretrain", "resume"):
        return None
    if words[0] == "resume" or args.parent is not None:
        return with_values(PretrainSettings(), parse_assignments(assignments_of(args)))
    return resolve_settings(args.preset or DEFAULT_PRESET, overrides=assignments_of(args))


def test_every_page_of_the_reading_order_is_there() -> None:
    assert tuple(PAGES) == READING_ORDER


@each(("document", "command"), ALL_COMMANDS)
def test_a_command_in_a_document_is_understood(document: str, command: str) -> None:
    trains = command.split()[1:2] in (["pretrain"], ["resume"])
    assert (settings_of(command) is not None) == trains


def commands_that_share(word: str, commands: Iterable[str]) -> dict[str, set[str]]:
    """What stands after `word` in more than one of the commands, with these."""
    found: dict[str, set[str]] = {}
    for command in commands:
        for name in re.findall(rf"{word} (\S+)", command):
            found.setdefault(name, set()).add(command)
    return {name: sharing for name, sharing in found.items() if len(sharing) > 1}


def test_no_two_commands_write_to_the_same_folder() -> None:
    """Who follows a second document where the first was followed is not refused."""
    assert commands_that_share("--out", (command for _, command in ALL_COMMANDS)) == {}


def test_the_manual_and_the_first_hour_give_a_name_once() -> None:
    followed = [
        command for document, command in ALL_COMMANDS if document in MANUAL or document.startswith("first-hour/")
    ]
    assert commands_that_share("--name", followed) == {}


@each("name", WITH_RUNS)
def test_a_run_link_and_the_command_beside_it_ask_for_the_same(name: str) -> None:
    runs = [block.text for block in WITH_RUNS[name].blocks if block.kind == "run"]
    if WITH_RUNS[name].group == CONCEPTS:
        assert any("lab:" in text or "paper:" in text for text in runs)
    for text in runs:
        asked = []
        for link in map(read_link, links_of(text)):
            if link.kind == "run":
                values = {key: value for key, value in link.values.items() if key != "name"}
                asked.append(resolve_settings(values.pop("preset"), overrides=values))
        begun = [command for command in commands_of(text) if command.startswith("llmlab-run pretrain")]
        assert asked == [settings_of(command) for command in begun if "--from" not in command]


def test_the_first_run_is_kept_from_its_first_steps_on_as_its_page_says() -> None:
    (run,) = [block.text for block in WITH_RUNS["first-hour/1-train"].blocks if block.kind == "run"]
    (command,) = [one for one in commands_of(run) if one.startswith("llmlab-run pretrain")]
    settings = settings_of(command)
    steps = ", ".join(map(str, settings.checkpoints.log_spaced(settings.train.steps)[:5]))
    assert f"of steps {steps} and so on" in run


@each("document", DOCUMENTS)
def test_settings_in_a_document_exist(document: str) -> None:
    known = {info.key for settings in (PretrainSettings, FinetuneSettings, TaskSettings) for info in describe(settings)}
    sections = "|".join(sorted({key.partition(".")[0] for key in known}))
    named = {
        match[0]
        for code in code_of(DOCUMENTS[document])
        for match in re.finditer(rf"(?<![\w/.])(?:{sections})\.[a-z]\w*", code)
    }
    assert named - known - {"model.py", "model.safetensors"} == set()


def _pages_of(call: ast.Call, tree: ast.Module) -> list[str]:
    """The pages that `caption(text, page)` can link to: a literal, one of two, or those of a table (text, page)."""
    if isinstance(call.args[0], ast.Starred):
        assert isinstance(call.args[0].value, ast.Subscript)
        table = call.args[0].value.value
        assert isinstance(table, ast.Name)
        values = [
            node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and any(ast.unparse(target) == table.id for target in node.targets)
        ]
        return [page for _, page in ast.literal_eval(values[0])]
    page = call.args[1]
    choices = [page.body, page.orelse] if isinstance(page, ast.IfExp) else [page]
    return [ast.literal_eval(choice) for choice in choices]


def test_the_caption_of_a_dock_links_to_its_pages() -> None:
    made = re.compile(r'(?:super\(\).__init__|Dock)\(\s*lab,\s*"(\w+)",')
    makers: dict[str, list[tuple[ast.stmt, ast.Module]]] = {}
    for path in (ROOT / "llmlab_gui").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if made.search(text):
            lines, tree = text.splitlines(), ast.parse(text)
            for maker in tree.body:
                for dock in made.findall("\n".join(lines[maker.lineno - 1 : maker.end_lineno])):
                    makers.setdefault(dock, []).append((maker, tree))
    for dock in set(DOCK_IDS) - {"learn"}:
        ((maker, tree),) = makers[dock]
        calls = [node for node in ast.walk(maker) if isinstance(node, ast.Call)]
        captions = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "caption"]
        pages = [page for call in captions for page in _pages_of(call, tree)]
        assert pages, dock
        assert set(pages) <= set(DOCK_PAGES[dock][1]), dock


def test_every_dock_has_pages_and_every_concept_page_has_docks() -> None:
    assert set(DOCK_PAGES) == set(DOCK_IDS) - {"learn"}
    assert {page for _, pages in DOCK_PAGES.values() for page in pages} == set(PAGES)


@each("name", PAGES)
def test_a_page_leads_to_its_docks_and_each_of_them_back(name: str) -> None:
    docks = [link.removeprefix("dock:") for link in links_of(PAGES[name].text) if link.startswith("dock:")]
    assert {dock for dock in docks if name not in DOCK_PAGES[dock][1]} == set()
    shown = links_of(with_panels(PAGES[name]).text)
    assert {f"dock:{dock}" for dock, _ in panels_of(name)} <= set(shown)


def test_the_checks_begin_with_readmes_test_command() -> None:
    commands = [line for line in code_of(README) if line.endswith(".venv/bin/pytest")]
    (command,) = [line for line in commands if line.startswith("python3 -m venv")]
    assert f"'{command}'" in CHECKS


def test_the_checks_name_no_registry() -> None:
    assert set(re.findall(r"https?://([\w.]+)", CHECKS)) <= {"127.0.0.1"}


def test_the_guide_to_the_terminal_names_every_command() -> None:
    named = {command.split()[1] for command in commands_of(DOCUMENTS["guides/terminal.md"])}
    assert named == set(the_parser()[1])


def test_readme_leads_to_every_guide() -> None:
    guides = {f"resources/{page.name}.md" for page in ALL_PAGES if page.group == HOW_TO}
    assert guides <= set(links_of(README))


def test_the_programs_that_the_manual_starts_are_installed_by_readme() -> None:
    project = read_toml(ROOT / "pyproject.toml")["project"]
    ours = project["scripts"] | project["gui-scripts"]
    tests = {re.match(r"[\w-]+", wanted)[0] for wanted in project["optional-dependencies"]["test"]}
    started = {name for document in MANUAL for name in re.findall(r"\.venv/bin/([\w-]+)", DOCUMENTS[document])}
    assert started <= {"pip", "python"} | set(ours) | tests
    for target in ours.values():
        module, _, function = target.partition(":")
        spec = importlib.util.find_spec(module)
        assert spec is not None
        assert f"def {function}(" in Path(str(spec.origin)).read_text(encoding="utf-8")


@each("document", [*MANUAL, "CHANGELOG.md", "THIRD_PARTY_NOTICES.md"])
def test_files_that_a_document_names_exist(document: str) -> None:
    text = DOCUMENTS[document]
    linked = files_of(text) if "/" not in document else ()  # a page's own links: tests/gui/pages/test_concepts.py
    starts = ("llmlab/", "llmlab_gui/", "resources/", "tests/")
    words = [word for code in code_of(text) for word in code.split()]
    missing = [path for path in [*linked, *(w for w in words if w.startswith(starts))] if not (ROOT / path).exists()]
    assert missing == []


def test_the_table_of_folders_is_the_contract_of_layers() -> None:
    core, *_, window = read_toml(ROOT / "pyproject.toml")["tool"]["importlinter"]["contracts"]
    assert re.findall(r"^\| `llmlab/(\w+)/` \|", README, flags=re.MULTILINE) == core["layers"][::-1]
    rows = re.findall(r"^\| (`llmlab_gui/.*?) \|", README, flags=re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"(\w+)/`", row)]
    assert sorted(["app", *named]) == sorted(re.findall(r"\w+", " ".join(window["layers"])))


def test_each_step_of_the_walks_through_the_code_names_a_file_and_what_is_in_it() -> None:
    page = DOCUMENTS["guides/architecture.md"]
    steps = re.findall(r"^\d+\. `(llmlab[\w/]*\.py)`: `([\w.]+)`", page, flags=re.MULTILINE)
    assert len(steps) == len(re.findall(r"^\d+\. ", page, flags=re.MULTILINE)) > 18
    for path, name in steps:
        assert find_source(f"{path}::{name}").code
    named = re.findall(r"`(llmlab(?:_gui)?/[\w/]+\.py)`", page)
    assert not [path for path in named if not (ROOT / path).is_file()]


@each("document", DOCUMENTS)
def test_no_document_names_a_place_on_one_machine(document: str) -> None:
    assert re.findall(r"(?<![\w.:/~*])/[a-z]\w*/\S*|\b[A-Z]:\\\S*", DOCUMENTS[document]) == []


_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_WORDS = 100  # six to seven lines of a page


def test_no_paragraph_of_a_page_is_too_long_to_read() -> None:
    """A command or a formula in a line counts as one word."""
    long = []
    for page in ALL_PAGES:
        if page.group in (CONCEPTS, FIRST_HOUR, HOW_TO_READ):
            for paragraph in re.split(r"\n\s*\n", _FENCED.sub("", page.text)):
                read = link_texts(re.sub(r"`[^`]*`", "x", paragraph))
                if not paragraph.startswith(("|", "- ", "1. ")) and len(re.findall(r"\w[^\s]*", read)) > _WORDS:
                    long.append((page.name, paragraph[:60]))
    assert long == []


def test_each_row_of_a_table_has_as_many_cells_as_its_head() -> None:
    uneven = []
    for name, text in DOCUMENTS.items():
        for table in re.findall(r"(?:^\|.*\n)+", _FENCED.sub("", text), re.MULTILINE):
            rows = [re.sub(r"`[^`]*`", "x", row) for row in table.splitlines()]
            if len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) > 1:
                uneven.append((name, rows[0]))
    assert uneven == []


# A term of the glossary, its other names, and the page that the entry leads to.
_ENTRY = re.compile(r"^\*\*([^*]+)\*\*(?: \((.+?)\))?: .*?(?:\(concept:([\w-]+)\)\.)?$", re.MULTILINE)


def test_a_term_is_explained_where_it_first_stands() -> None:
    """In a link to its entry or page, in bold, or on the page of the term itself, which has the term."""
    prose = {}
    for name, page in PAGES.items():
        text = re.sub(r"`[^`]*`", "x", _FENCED.sub("", page.text))
        prose[name] = [part for part in re.split(r"\n\s*\n", text) if not part.startswith(("|", "#", "@", "!["))]
    unexplained = []
    for term, others, page in _ENTRY.findall(DOCUMENTS["glossary.md"]):
        names = [term, *filter(None, re.split("[,;] ", others.replace("`", "")))]
        if page and not any(name.lower() in PAGES[page].text.lower() for name in names):
            unexplained.append((term, page))
        word = re.compile(rf"(?<![\w-]){re.escape(term)}s?(?![\w-])", re.IGNORECASE)
        uses = ((name, part) for name, parts in prose.items() for part in parts if word.search(link_texts(part)))
        first, part = next(uses, (page, ""))
        bold = re.search(rf"\*[^*]*{word.pattern}[^*]*\*", part, re.IGNORECASE)
        if first != page and f"concept:{page})" not in part and "(glossary:" not in part and not bold:
            unexplained.append((term, first))
    assert unexplained == []


def link_texts(text: str) -> str:
    """A text without the addresses of its links."""
    return re.sub(r"\]\([^)]*\)", "]", text)


def test_the_losses_that_the_pages_name_are_true() -> None:
    loss, tokens = PAGES["loss"].text, PAGES["tokens"].text
    for corpus, tokenizer in (("shakespeare", "char"), ("shakespeare", "gpt2"), ("stories", "compact")):
        settings = resolve_settings(overrides={"data.corpus": corpus, "data.tokenizer": tokenizer})
        data = load_dataset(settings.data, settings.model.block_size, quiet)
        vocabulary = data.tokenizer.vocab_size
        assert f"{vocabulary:,}" in tokens
        assert f"ln {vocabulary:,} = {math.log(vocabulary):.2f}" in loss
        assert f"{data.unigram_loss:.2f}" in loss
        if data.floor_loss is not None:
            assert f"{data.floor_loss:.3f}" in loss
    assert f"{story_entropy():.2f}" in loss


def test_the_sizes_that_the_pages_name_are_true() -> None:
    baby = parameter_count(load_preset("baby").settings.model, 84)
    assert f"{baby:,}" in PAGES["feed-forward"].text
    nano = parameter_count(load_preset("nano").settings.model, 50257)
    assert f"{nano:,}" in PAGES["embeddings"].text
