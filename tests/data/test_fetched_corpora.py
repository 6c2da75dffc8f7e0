"""Fetching: from a server of the test's own and from a fake hub; without a network, one sentence says what to do."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fakes import CancelAfter
from huggingface_hub import constants
from waits import SECONDS, WAIT

from llmlab.core.errors import Cancelled, LabError, UsageError
from llmlab.core.progress import quiet
from llmlab.data import fetched_corpora as fetched
from llmlab.data.corpora import find_corpus
from llmlab.data.fetched_corpora import FetchedCorpus, fetch, fetched_corpora

TEXT = ("I HAD always thought Jack Gisburn rather a cheap genius.\n" * 5000).encode()


class FakeSite(BaseHTTPRequestHandler):
    """Serves TEXT; /half promises more than it sends; /silent says nothing, /stalled nothing after the first half,
    until whoever asked has gone."""

    gone = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/silent":
            assert self.gone.wait(WAIT / 1000)
        self.send_response(404 if self.path == "/none" else 200)
        self.send_header("Content-Length", str(len(TEXT)))
        self.end_headers()
        self.wfile.write(TEXT[: len(TEXT) // 2] if self.path in ("/half", "/stalled") else TEXT)
        if self.path == "/stalled":
            assert self.gone.wait(WAIT / 1000)

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        """Tests are quiet."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeSite)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMLAB_CACHE", str(tmp_path))
    return tmp_path


def by_name(name: str) -> FetchedCorpus:
    return next(corpus for corpus in fetched_corpora() if corpus.name == name)


def verdict(url: str) -> FetchedCorpus:
    sha256 = hashlib.sha256(TEXT).hexdigest()
    return dataclasses.replace(by_name("verdict"), url=url, sha256=sha256, bytes=len(TEXT))


def files(corpus: FetchedCorpus) -> list[str]:
    return [path.name for path in corpus.folder.iterdir()]


def test_a_text_is_fetched_whole_and_checked(site: str) -> None:
    corpus = verdict(site)
    seen: list[tuple[int, int]] = []
    assert not corpus.here()
    fetch(corpus, lambda what, done, total: seen.append((done, total)))
    assert corpus.here()
    assert next(corpus.documents()).encode() == TEXT
    assert seen[-1] == (len(TEXT), len(TEXT))
    assert len(seen) > 2


@pytest.mark.parametrize(("path", "says"), [("/half", "not complete|could not be fetched"), ("/none", "Not Found")])
def test_a_broken_download_never_counts(site: str, path: str, says: str) -> None:
    corpus = verdict(site + path)
    with pytest.raises(LabError, match=says):
        fetch(corpus, quiet)
    assert not corpus.here()
    assert files(corpus) == []


def test_a_text_that_changed_at_its_source_is_refused(site: str) -> None:
    corpus = dataclasses.replace(verdict(site), sha256="0" * 64)
    with pytest.raises(LabError, match="was changed at its source"):
        fetch(corpus, quiet)
    assert not corpus.here()


def test_a_download_can_be_cancelled_and_is_read_no_further(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetched, "_BLOCK_BYTES", 1 << 10)  # so that there is more than is read ahead
    corpus = verdict(site)
    with pytest.raises(Cancelled) as kept:
        fetch(corpus, CancelAfter(2))
    assert files(corpus) == []
    for thread in (one for one in threading.enumerate() if one.name == "fetch"):
        thread.join(SECONDS)
        assert not thread.is_alive(), f"also while somebody holds on to {kept.value!r}"


@pytest.mark.parametrize("path", ["/silent", "/stalled"])
def test_a_download_that_sends_nothing_can_be_cancelled(
    site: str, path: str, hub: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else it ends with a time-out, which is an error."""
    monkeypatch.setattr(FakeSite, "gone", threading.Event())
    corpora = [verdict(site + path)]
    if path == "/silent":  # the hub is asked whether it answers
        corpora.append(by_name("tinystories"))
        monkeypatch.setattr(constants, "ENDPOINT", site + path)
    for corpus in corpora:
        with pytest.raises(Cancelled):
            fetch(corpus, CancelAfter(len(TEXT) // (2 * fetched._BLOCK_BYTES) + 2))
        assert files(corpus) == []
    FakeSite.gone.set()


def test_without_a_network_one_sentence_says_which_file_to_put_where(empty_cache: Path) -> None:
    corpus = verdict("http://127.0.0.1:9/nothing-listens")
    with pytest.raises(LabError) as caught:
        fetch(corpus, quiet)
    assert "could not be fetched" in caught.value.what
    assert str(empty_cache / "corpora" / "verdict" / "the-verdict.txt") in caught.value.do


@pytest.mark.parametrize("corpus", fetched_corpora(), ids=lambda corpus: corpus.name)
def test_reading_what_is_not_here_says_which_file_to_put_where(corpus: FetchedCorpus) -> None:
    for read in (lambda: next(corpus.pieces()), corpus.content_key):
        with pytest.raises(LabError) as caught:
            read()
        assert "is not on this machine" in caught.value.what
        assert str(corpus.folder / corpus.file) in caught.value.do


@pytest.mark.parametrize("name", ["anything.txt", "rows.jsonl"])
def test_a_file_put_there_by_hand_is_read(name: str) -> None:
    corpus = by_name("tinystories")
    corpus.folder.mkdir(parents=True)
    (corpus.folder / ".tmp-half.parquet").write_bytes(b"half")
    assert not corpus.here()
    (corpus.folder / name).write_text('{"text": "Once."}')
    assert corpus.here()
    assert "Once." in next(corpus.documents())


@pytest.fixture
def hub(site: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A hub that has the rows put in here; it records what was asked of it."""
    fake: dict[str, object] = {"rows": []}

    def load_dataset(
        path: str, name: str | None, *, split: str, streaming: bool, **_: object
    ) -> Iterator[dict[str, str]]:
        fake["asked"] = (path, name, split, streaming)
        if constants.HF_HUB_OFFLINE:
            raise ConnectionError("it is not in the cache")
        for text in fake["rows"]:
            if text == "broken":
                raise ConnectionError("the line went dead")
            yield {"text": text}

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", site)
    return fake


def test_stories_come_from_the_hub_row_by_row(hub: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetched, "_ROWS_A_GROUP", 2)
    monkeypatch.setattr(fetched, "_BETWEEN_LOOKS", 2)
    hub["rows"] = ["One.", "Two.", "Thréé."]
    corpus = by_name("tinystories")
    seen: list[tuple[int, int]] = []
    fetch(corpus, lambda what, done, total: seen.append((done, total)))
    assert list(corpus.documents()) == ["One.", "Two.", "Thréé."]
    assert hub["asked"] == ("roneneldan/TinyStories", None, "train", True)
    assert list(dict.fromkeys(seen)) == [(0, corpus.bytes), (8, corpus.bytes), (16, 16)]
    assert files(corpus) == ["tinystories.parquet"]


def test_wikitext_lines_are_joined_to_articles(hub: dict[str, object]) -> None:
    hub["rows"] = ["", " = One = \n", "", " = = Section = = \n", " Text = text . \n", " = Two = \n", " More . \n"]
    corpus = by_name("wikitext2")
    fetch(corpus, quiet)
    assert list(corpus.documents()) == [" = One = \n = = Section = = \n Text = text . \n", " = Two = \n More . \n"]
    assert hub["asked"] == ("Salesforce/wikitext", "wikitext-2-raw-v1", "train", True)


def test_a_hub_that_breaks_off_leaves_nothing(hub: dict[str, object]) -> None:
    hub["rows"] = ["One.", "broken"]
    corpus = by_name("tinystories")
    with pytest.raises(LabError, match="the line went dead"):
        fetch(corpus, quiet)
    assert files(corpus) == []


def test_fetching_from_the_hub_can_be_cancelled_within_a_few_texts(hub: dict[str, object]) -> None:
    given: list[str] = []

    def rows() -> Iterator[str]:
        for number in range(1000):
            given.append(f"Story {number}.")
            yield given[-1]

    hub["rows"] = rows()
    corpus = by_name("tinystories")
    with pytest.raises(Cancelled):
        fetch(corpus, CancelAfter(2))
    assert len(given) < 100
    assert files(corpus) == []


def test_an_offline_hub_is_said_at_once(hub: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(LabError, match="could not be fetched"):
        fetch(by_name("tinystories"), quiet)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(LabError, match="HF_HUB_OFFLINE is set"):
        fetch(by_name("tinystories"), quiet)


def test_an_embedded_corpus_needs_no_fetching() -> None:
    with pytest.raises(UsageError, match="needs no fetching"):
        fetch(find_corpus("tiny"), quiet)
