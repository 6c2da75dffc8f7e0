"""Large corpora in shards: the tokens of their text, whatever kind of file it is in, and whatever ended the build."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from fakes import CancelAfter
from forks import Fork

import llmlab
from llmlab.cli.main import main
from llmlab.core.errors import Cancelled, LabError, UsageError
from llmlab.core.progress import quiet
from llmlab.core.settings import DataSettings
from llmlab.data import own_texts, shard_sources
from llmlab.data import shard_build as module
from llmlab.data.corpora import find_corpus
from llmlab.data.dataset import known_losses, load_dataset, saved_training_tokens
from llmlab.data.own_texts import own_corpus
from llmlab.data.shard_build import build_shards
from llmlab.data.shard_sources import shard_source
from llmlab.data.sharded_tokens import ShardedTokens
from llmlab.data.shards import BuiltCorpus, built_corpora
from llmlab.data.token_cache import token_cache
from llmlab.data.tokenizers import BpeTokenizer, Gpt2Tokenizer, Tokenizer

BLOCK = 5_000  # characters, so that a small text has many blocks
SIZE = 3_000  # tokens, so that it has many shards


@pytest.fixture(autouse=True)
def small_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_sources, "BLOCK_CHARS", BLOCK)
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Documents of many lengths, one without any text, some longer than a block."""
    whole = "".join(piece.text for piece in find_corpus("tiny").pieces()) * 8
    lengths = random.Random(5)
    found, place = [""], 0
    while place < 150_000:
        length = lengths.choice([10, 300, 900, 2 * BLOCK])
        found.append(whole[place : place + length] + " ü€😀")
        place += length
    return found


@pytest.fixture
def folder(tmp_path: Path, texts: list[str]) -> Path:
    """The texts, spread over files of each kind, in their order."""
    path = tmp_path / "many"
    path.mkdir()
    parts = [texts[len(texts) * part // 6 : len(texts) * (part + 1) // 6] for part in range(6)]
    (path / "a.jsonl").write_bytes(lines(parts[0]) + b"\n" + lines(parts[1]))
    (path / "b.jsonl.gz").write_bytes(gzip.compress(lines(parts[2])))
    (path / "c.jsonl.zst").write_bytes(pyarrow.Codec("zstd").compress(lines(parts[3]), asbytes=True))
    pyarrow.parquet.write_table(pyarrow.table({"n": range(len(parts[4])), "text": parts[4]}), path / "d.parquet", 7)
    for number, text in enumerate(parts[5]):
        (path / f"e{number:03}.txt").write_text(text)
    (path / "notes.md").write_text("not a text to learn from")
    return path


def lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in texts).encode()


def parquet_of_bytes(content: bytes) -> bytes:
    """A file with one row, whose text may be none."""
    ends = pyarrow.py_buffer(np.array([0, len(content)], dtype=np.int32).tobytes())
    text = pyarrow.StringArray.from_buffers(1, ends, pyarrow.py_buffer(content))
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": text}), file)
    return file.getvalue()


def build(path: Path, name: str = "built", progress: Any = quiet, tokenizer: Tokenizer | None = None) -> BuiltCorpus:
    source = shard_source(str(path), "text")
    return build_shards(source, name, tokenizer or Gpt2Tokenizer(), progress, processes=1, shard_tokens=SIZE)


def files_of(corpus: BuiltCorpus) -> dict[str, bytes]:
    """All that was written, but for the lock."""
    return {path.name: path.read_bytes() for path in corpus.folder.iterdir() if path.name != "lock"}


def test_shards_hold_the_tokens_of_every_document_in_their_order(folder: Path, texts: list[str]) -> None:
    corpus, gpt2 = build(folder), Gpt2Tokenizer()
    expected = [id for text in texts if text for id in [gpt2.end_of_text, *gpt2.encode(text)]][1:]
    assert np.asarray(corpus.tokens()).tolist() == expected
    manifest = corpus.manifest
    assert (manifest.tokens, manifest.documents) == (len(expected), sum(map(bool, texts)))
    assert corpus.bytes == sum(len(text.encode()) for text in texts)
    assert len(manifest.shards) > 4
    assert all(SIZE <= shard.tokens < 2 * SIZE for shard in manifest.shards[:-1])
    assert list(corpus.documents()) == [text for text in texts if text]
    assert find_corpus("built") == corpus


def test_a_file_has_the_tokens_that_it_has_as_a_corpus_by_its_path(folder: Path) -> None:
    for name in ("a.jsonl", "d.parquet", "e000.txt"):
        cache = token_cache(own_corpus(folder / name), Gpt2Tokenizer(), 0, quiet)
        assert np.asarray(build(folder / name, name).tokens()).tolist() == cache.tokens.tolist()


def test_a_long_text_is_read_again_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("".join(piece.text for piece in find_corpus("tiny").pieces()) * 2 + "ü€😀 " * 20_000)
    corpus = build(path)
    assert "".join(piece.text for piece in corpus.pieces()) == path.read_text()
    assert sum(1 for _ in corpus.pieces()) > 1


@pytest.mark.slow
def test_two_processes_write_what_one_writes(folder: Path, tmp_path: Path) -> None:
    alone = files_of(build(folder))
    script = (
        "import sys; from pathlib import Path; from llmlab.data import shard_build, shard_sources as s;"
        "from llmlab.data.tokenizers import Gpt2Tokenizer; from llmlab.core.progress import quiet;"
        f"s.BLOCK_CHARS = {BLOCK}; source = s.shard_source(sys.argv[1], 'text');"
        f"shard_build.build_shards(source, 'built', Gpt2Tokenizer(), quiet, processes=2, shard_tokens={SIZE})"
    )
    environment = os.environ | {
        "LLMLAB_CACHE": str(tmp_path / "two"),
        "PYTHONPATH": str(Path(llmlab.__file__).parents[1]),
    }
    subprocess.run([sys.executable, "-c", script, str(folder)], env=environment, check=True)
    both = {path.name: path.read_bytes() for path in (tmp_path / "two" / "shards" / "built").iterdir()}
    assert {name: data for name, data in both.items() if name != "lock"} == alone


@pytest.mark.slow
def test_a_build_killed_at_random_moments_goes_on_to_the_same_files(folder: Path) -> None:
    begin = time.monotonic()
    alone = files_of(build(folder))
    seconds, moments, kills = time.monotonic() - begin, random.Random(1), 0
    while kills < 8:
        child = Fork(lambda: build(folder, "killed").manifest.complete - 1)
        time.sleep(moments.uniform(0, seconds / 2))
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        if child.wait() == 0:
            break
    assert kills
    assert files_of(build(folder, "killed")) == alone


def test_a_damaged_shard_is_made_again_and_the_others_are_kept(folder: Path) -> None:
    corpus = build(folder)
    before = files_of(corpus)
    damaged, missing = corpus.folder / "shard-00001.bin", corpus.folder / "shard-00003.bin"
    content = damaged.read_bytes()
    damaged.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    missing.unlink()
    times = {path: path.stat().st_mtime_ns for path in corpus.folder.glob("*.bin")}
    with pytest.raises(LabError, match=r"built is damaged. shard-00003.bin"):
        corpus.tokens()
    assert files_of(build(folder)) == before
    changed = [path.name for path, then in times.items() if path.stat().st_mtime_ns != then]
    assert changed == [damaged.name]


def test_a_finished_corpus_is_checked_and_nothing_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files_of(build(folder))
    monkeypatch.setattr(module._Build, "_encoded", lambda *arguments: pytest.fail("read again"))
    assert files_of(build(folder)) == before


def test_a_full_disk_is_named_and_finished_shards_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, plain = files_of(build(folder)), module.replaced

    @contextmanager
    def full(path: Path) -> Iterator[BinaryIO]:
        with plain(path) as file:
            if path.name == "shard-00002.bin":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield file

    with monkeypatch.context() as patch:
        patch.setattr(module, "replaced", full)
        with pytest.raises(LabError, match=r"The disk is full.* 2 finished shards are kept"):
            build(folder, "other")
    left = sorted(path.name for path in (module.shards_dir() / "other").iterdir())
    assert left == ["lock", "manifest.json", "shard-00000.bin", "shard-00001.bin", "tokenizer.json"]
    with pytest.raises(UsageError, match="other is not finished"):
        find_corpus("other")
    assert files_of(build(folder, "other")) == alone


def test_a_cancelled_build_goes_on(folder: Path) -> None:
    alone = files_of(build(folder))
    with pytest.raises(Cancelled):
        build(folder, "other", CancelAfter(12))
    assert files_of(build(folder, "other")) == alone


def test_the_command_that_is_told_goes_on_with_an_unfinished_build(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spaced = folder.rename(tmp_path / "many texts") / "a.jsonl"
    spaced.write_bytes(spaced.read_bytes().replace(b'"text"', b'"content"'))
    monkeypatch.setitem(build_shards.__kwdefaults__, "shard_tokens", SIZE)
    asked = ["--name", "other", "--field", "content", "--tokenizer", "bpe", "--vocab-size", "300", "--processes", "1"]
    write, done = module._Build._write, []

    def interrupted(self: Any, *arguments: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(write(self, *arguments))
        return done[-1]

    with monkeypatch.context() as patch:
        patch.setattr(module._Build, "_write", interrupted)
        main(["corpora", "build", str(spaced), *asked])
    with pytest.raises(UsageError, match=r"other is not finished. 2 of its shards are") as told:
        find_corpus("other")
    command = told.value.do.partition("llmlab-run ")[2]
    assert main([*shlex.split(command), "--processes", "1"]) == 0
    assert find_corpus("other").kind == "built"


def test_a_source_that_has_changed_is_refused_and_its_changed_files_are_named(folder: Path) -> None:
    before = files_of(build(folder))
    (folder / "e000.txt").write_text("changed")
    (folder / "b.jsonl.gz").rename(folder / "below.jsonl.gz")
    with pytest.raises(UsageError, match=r"Changed: e000.txt; new: below.jsonl.gz; gone: b.jsonl.gz\."):
        build(folder)
    with pytest.raises(UsageError, match=r"begun with another source.* made from .* with gpt2"):
        build(folder / "a.jsonl")
    corpus = module.built_corpus("built")
    assert corpus is not None
    assert files_of(corpus) == before
    path = corpus.folder / "manifest.json"  # of an earlier version, which knew only the key of all
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": [], "revision": ""}))
    with pytest.raises(UsageError, match=r"has changed since it was begun\. It was made from"):
        build(folder)


def test_files_that_are_recognised_in_another_way_since_more_were_added_are_not_said_to_have_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(folder)
    (folder / "z.txt").write_text("new")
    monkeypatch.setattr(own_texts, "_HASH_BYTES", 10)
    with pytest.raises(UsageError, match=r"was begun\. New: z.txt\."):
        build(folder)


def test_a_file_that_changes_while_it_is_read_ends_the_build_before_its_text_is_kept(folder: Path) -> None:
    alone = files_of(build(folder))

    def change(what: str, done: float, total: float) -> None:
        if what.startswith("Tokenizing") and done > 40_000:
            os.utime(folder / "a.jsonl", (1.0, 1.0))

    with pytest.raises(LabError, match=r"a.jsonl was changed while it was read"):
        build(folder, "other", change)
    kept = sorted(path.name for path in (module.shards_dir() / "other").glob("*.bin"))
    assert kept == [
        shard["file"] for shard in json.loads((module.shards_dir() / "other/manifest.json").read_text())["shards"]
    ]
    assert len(kept) < len([name for name in alone if name.endswith(".bin")])


def test_a_data_set_of_the_hub_is_read_at_the_commit_with_which_it_was_begun(
    texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets  # it takes a second
    import huggingface_hub

    now, asked = ["first"], []

    def load_dataset(name: str, configuration: str | None, *, revision: str | None, **options: Any) -> Any:
        asked.append(revision)
        order = {"first": texts, "second": texts[::-1]}[revision or now[0]]
        return [{"text": text} for text in order]

    def dataset_info(self: object, name: str) -> Any:
        return SimpleNamespace(sha=now[0])

    def begin(name: str, progress: Any = quiet) -> BuiltCorpus:
        source = module.pinned(shard_source("someone/data", "text"), name)
        return build_shards(source, name, Gpt2Tokenizer(), progress, processes=1, shard_tokens=SIZE)

    monkeypatch.setattr("llmlab.data.example_files.hub_silence", lambda: None)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    alone = begin("alone")
    assert alone.manifest.revision == "first"
    elsewhere = shard_source("someone/else", "text")
    now[0] = "second"
    assert module.pinned(elsewhere, "alone").revision == "second"  # the name is another's, which is said later
    now[0] = "first"
    with pytest.raises(Cancelled):
        begin("other", CancelAfter(12))
    now[0] = "second"
    assert files_of(begin("other")) == files_of(alone)
    (alone.folder / "shard-00001.bin").unlink()
    assert files_of(begin("alone")) == files_of(begin("other"))
    assert set(asked) == {"first"}
    assert begin("later").manifest.revision == "second"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *names: SimpleNamespace(hash="second"))
    (alone.folder / "shard-00001.bin").unlink()
    with pytest.raises(LabError, match=r"Its commit first is wanted, and the cache has second\."):
        begin("alone")


def test_a_first_try_without_a_finished_shard_does_not_hold_the_name(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"content": "good"}\n')
    with pytest.raises(LabError, match="It has content"):
        build(tmp_path / "a.jsonl")
    corpus = build_shards(
        shard_source(str(tmp_path / "a.jsonl"), "content"), "built", Gpt2Tokenizer(), quiet, processes=1
    )
    assert list(corpus.documents()) == ["good"]


@pytest.mark.parametrize("change", [{"dtype": "object"}, {"shards": []}, {"file": "../../outside"}, {"tokens": -1}])
def test_a_manifest_that_no_build_wrote_is_none(folder: Path, change: dict[str, Any]) -> None:
    path = build(folder / "a.jsonl").folder / "manifest.json"
    manifest = json.loads(path.read_text())
    ((manifest["shards"][-1]) if change.keys() <= manifest["shards"][-1].keys() else manifest).update(change)
    path.write_text(json.dumps(manifest))
    assert built_corpora() == []


def test_a_source_that_is_deleted_meanwhile_is_named(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.txt").write_text("text")
    source = shard_source(str(tmp_path), "text")
    (tmp_path / "1.txt").unlink()
    with pytest.raises(LabError, match=r"1.txt could not be read"):
        build_shards(source, "built", Gpt2Tokenizer(), quiet, processes=1)
    with pytest.raises(LabError, match=r"1.txt could not be read"):
        list(source.pieces())


def test_a_file_without_line_ends_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_sources, "_LONGEST_LINE", 1 << 20)
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n' + b"x" * (5 << 20))
    blocks = shard_source(str(tmp_path / "a.jsonl"), "text").blocks(shard_sources.Place(0, 0), quiet)
    with pytest.raises(LabError, match=r"a line of more than 1 MB. It is line 2;"):
        next(blocks)


@pytest.mark.skipif(sys.platform == "win32", reason="it cannot hold signals back")
def test_processes_that_tokenize_start_without_hearing_interrupts() -> None:
    with module._without_interrupts():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.3); print('whole')"], stdout=-1)
        child.send_signal(signal.SIGINT)
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert child.communicate()[0] == b"whole\n"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_ids_beyond_the_vocabulary_are_told_as_damage(folder: Path) -> None:
    corpus = build(folder)
    path = corpus.folder / "shard-00001.bin"
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(LabError, match=r"are damaged. Some ids are beyond the vocabulary"):
        load_dataset(DataSettings(corpus="built", tokenizer="gpt2"), 16, quiet)


def test_another_text_in_the_same_folder_has_its_own_frequencies(folder: Path) -> None:
    asked, found = DataSettings(corpus="built", tokenizer="gpt2", max_tokens=3000), []
    for name in ("a.jsonl", "b.jsonl.gz"):
        corpus = build(folder / name)
        found.append(load_dataset(asked, 16, quiet).unigram_loss)
        (corpus.folder / "manifest.json").unlink()
    assert found[0] != found[1]


def test_ids_beyond_two_bytes_take_four(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FakeLargeTokenizer(Gpt2Tokenizer):
        def __init__(self) -> None:
            super().__init__()
            self.vocab_size, self.end_of_text = 70_000, 69_999

    monkeypatch.setattr(module, "tokenizer_from_json", lambda values: FakeLargeTokenizer())
    tokens = build(folder / "a.jsonl", tokenizer=FakeLargeTokenizer()).tokens()
    assert tokens.dtype == np.uint32
    assert np.asarray(tokens).max() == 69_999


@pytest.mark.slow
def test_memory_does_not_grow_with_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FakeByteTokenizer(Gpt2Tokenizer):
        def encode_array(self, text: str) -> np.ndarray:
            return np.frombuffer(text.encode(), dtype=np.uint8)

    fake, peaks = FakeByteTokenizer(), []
    monkeypatch.setattr(module, "tokenizer_from_json", lambda values: fake)
    (tmp_path / "first.txt").write_text("This build imports what builds need.")
    build(tmp_path / "first.txt", "first", tokenizer=fake)
    for count in (800, 2400):
        path = tmp_path / f"{count}.jsonl"
        path.write_text((json.dumps({"text": "x" * 1000}) + "\n") * count)
        tracemalloc.start()
        build_shards(shard_source(str(path), "text"), path.stem, fake, quiet, processes=1, shard_tokens=300_000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.jsonl",
            b'{"text": "good"}\n\n{"content": "x"}\n',
            "Row 3 of .*a.jsonl has no 'text'. It has content. .*--field",
        ),
        ("a.jsonl", b'{"text": "good"}\nbad\n', "Row 2 of .* It is not JSON"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "good"}\n' * 99, mtime=0)[:-12], "a.jsonl.gz could not be read"),
        ("a.jsonl.zst", b"none", "a.jsonl.zst could not be read"),
        ("a.parquet", b"none", "not a Parquet file"),
        ("a.parquet", parquet_of_bytes(b"\xff\xfe"), "a.parquet has a row that is not UTF-8. It is row 0"),
        ("a.txt", b"\xff\xff", "not UTF-8"),
        ("a.txt", b"", "is empty"),
        ("a.csv", b"text\n", "Shards cannot be built from"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LabError, match=said):
        build(tmp_path / name)


def test_the_hub_is_not_there_without_a_network() -> None:
    with pytest.raises(LabError, match="The data set owner/texts could not be loaded from the hub"):
        build(Path("owner/texts"))


def test_sharded_tokens_read_like_one_array() -> None:
    whole = np.arange(100, dtype=np.uint16)
    sharded = ShardedTokens([whole[:10], whole[10:11], whole[11:60], whole[60:]])
    places = np.random.default_rng(1).integers(0, 100, (40, 7))
    assert (sharded[places] == whole[places]).all()
    for begin, end in [(0, 100), (5, 10), (9, 12), (10, 60), (59, 61), (30, 30), (99, 100), (95, 200)]:
        part = sharded[begin:end]
        assert np.asarray(part).tolist() == whole[begin:end].tolist()
        assert len(part) == len(whole[begin:end])
    assert (sharded[5:70][places[places < 65]] == whole[5:70][places[places < 65]]).all()


@pytest.mark.parametrize("split", ["position", "documents"])
@pytest.mark.parametrize("limit", [0, 9_000])
def test_a_data_set_is_that_of_the_same_text_by_its_path(folder: Path, split: str, limit: int) -> None:
    path = folder / "a.jsonl"
    build(path)
    asked = {"tokenizer": "gpt2", "split": split, "max_tokens": limit}
    shards, text = (DataSettings(corpus=corpus, **asked) for corpus in ("built", str(path)))
    ours, theirs = load_dataset(shards, 16, quiet), load_dataset(text, 16, quiet)
    assert np.asarray(ours.train).tolist() == theirs.train[:].tolist()
    assert np.asarray(ours.val).tolist() == theirs.val[:].tolist()
    assert (ours.unigram_loss, ours.bytes_per_token) == (theirs.unigram_loss, theirs.bytes_per_token)
    assert known_losses(shards, quiet) == known_losses(text, quiet)
    for settings, dataset in ((shards, ours), (text, theirs)):
        saved = saved_training_tokens(settings, dataset.tokenizer.key(), dataset.key)
        assert np.asarray(saved).tolist() == np.asarray(dataset.train).tolist()


def test_a_built_corpus_keeps_its_bpe_and_other_tokenizers_read_its_text(folder: Path) -> None:
    learned = BpeTokenizer([("t", "h"), ("th", "e")])
    corpus = build(folder, tokenizer=learned)
    own = DataSettings(corpus="built", tokenizer="bpe", bpe_vocab_size=learned.vocab_size)
    dataset = load_dataset(own, 16, quiet)
    assert isinstance(dataset.train, ShardedTokens)
    assert dataset.tokenizer.key() == learned.key()
    other = load_dataset(DataSettings(corpus="built", tokenizer="char"), 16, quiet)
    text = other.tokenizer.decode([*other.train[:].tolist(), *other.val[:].tolist()])
    assert text == "\n\n".join(corpus.documents())


def test_the_command_builds_lists_and_says_what_to_type_next(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["corpora", "build", str(folder), "--shards", "--processes", "1"]
    assert main([*asked, "--json"]) == 0
    built = json.loads(capsys.readouterr().out)
    assert (built["name"], built["kind"], built["complete"]) == ("many", "built", True)
    assert built["tokens"] == sum(shard["tokens"] for shard in built["shards"])
    assert main(asked) == 0
    assert "llmlab-run pretrain --corpus many --set data.tokenizer=gpt2" in capsys.readouterr().out
    assert main(["corpora", "--json"]) == 0
    assert "many" in [corpus["name"] for corpus in json.loads(capsys.readouterr().out)]
    for words in (
        ["--name", "tiny"],
        ["--name", "a/b"],
        ["--field", "content"],
        ["--processes", "-1"],
        ["--vocab-size", "500"],
    ):
        assert main([*asked, *words]) in (1, 2)
        assert "error: " in capsys.readouterr().err
    assert main(["corpora", "build"]) == 2
