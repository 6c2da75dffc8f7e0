"""Models of the hub: from the cache without a word to the network, downloaded where they are not, else a sentence."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_models
from forks import Fork

from llmlab.core.errors import LabError
from llmlab.models.available import available_models
from llmlab.models.reference import parse
from llmlab.models.source import open_model, source_of

SHA = "0" * 40
NAME, PICKLED = "maker/tiny", "maker/pickled"


def open_all(names: list[str]) -> list[str]:
    """What is said of each model that is opened."""
    said = []
    for name in names:
        told: list[str] = []
        try:
            opened = open_model(name, Path(), lambda what, *_, told=told: told.append(what))
            about = f"{opened.reference} {opened.name} {opened.kind} {opened.weights_sha256}"
            said.append(f"{about} | {'; '.join(dict.fromkeys(told))}")
        except LabError as error:
            said.append(f"refused: {error}")
    return said


def read_tokenizers(names: list[str]) -> list[str]:
    """What each model's tokenizer makes of two words, and its context length."""
    sources = [source_of(parse(name, Path())) for name in names]
    return [f"{source.tokenizer().encode('the king')} {source.context()}" for source in sources]


class Hub:
    """A hub of one model with weights and one without, on this machine. asked: the paths of all requests."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.asked.append(self.path)
                path = self.path.partition("?")[0]
                if path in (f"/api/models/{NAME}", f"/api/models/{PICKLED}"):
                    files = [file for file in folder.iterdir() if path.endswith(NAME) or file.suffix != ".safetensors"]
                    names = [{"rfilename": file.name, "size": file.stat().st_size} for file in files]
                    self.reply(json.dumps({"id": NAME, "sha": SHA, "siblings": names}).encode(), "about")
                    return
                file = folder / path.removeprefix(f"/{NAME}/resolve/{SHA}/")
                if path.startswith(f"/{NAME}/resolve/{SHA}/") and file.is_file():
                    self.reply(file.read_bytes(), hashlib.sha256(file.read_bytes()).hexdigest())
                else:
                    self.send_error(404)

            do_HEAD = do_GET

            def reply(self, body: bytes, tag: str) -> None:
                self.send_response(200)
                headers = {"Content-Length": str(len(body)), "ETag": f'"{tag}"', "X-Repo-Commit": SHA}
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    saved = tiny_models.save(tiny_models.llama(), tmp_path / "published")
    (saved / "pytorch_model.bin").write_bytes(b"a pickle")
    (saved / "modeling_tiny.py").write_text("raise SystemExit('run')")
    return saved


@pytest.fixture
def hub(folder: Path) -> Iterator[Hub]:
    hub = Hub(folder)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def elsewhere(work: Callable[[list[str]], list[str]], names: list[str], home: Path, endpoint: str) -> list[str]:
    """What is said in a copy of this process that has another cache and hub.

    huggingface_hub reads its settings when it is imported: the copy imports it anew.
    """
    said = home.with_name("said")

    def say() -> int:
        os.environ.update(HF_HOME=str(home), HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="0")
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HF_HUB_CACHE"):
            os.environ.pop(name, None)
        for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
            del sys.modules[name]
        said.write_text("\n".join(work(names)))
        return 0

    assert Fork(say).wait() == 0
    return said.read_text().splitlines()


@pytest.mark.slow
def test_a_model_is_downloaded_once_whole_and_without_programs(hub: Hub, folder: Path, tmp_path: Path) -> None:
    first, again, absent, pickled = elsewhere(
        open_all, [NAME, NAME, "maker/nothing", PICKLED], tmp_path / "home", hub.address
    )
    expected = f"{NAME} {NAME} huggingface {open_model(str(folder), tmp_path).weights_sha256} |"
    assert first.startswith(expected)
    assert again.startswith(expected)
    assert "Downloading model.safetensors" in first
    assert "Downloading" not in again
    assert absent.startswith("refused: There is no model maker/nothing on this machine.")
    assert "no safetensors weights on the hub" in pickled
    assert len([path for path in hub.asked if path.startswith(f"/api/models/{NAME}")]) == 1
    assert not any(".bin" in path or ".py" in path or path.startswith(f"/{PICKLED}") for path in hub.asked)
    (snapshot,) = (tmp_path / "home" / "hub").glob("models--*/snapshots/*")
    (snapshot / "model.safetensors").resolve().unlink()  # as if the download had been broken off
    (snapshot / "model.safetensors").unlink()
    (completed,) = elsewhere(open_all, [NAME], tmp_path / "home", hub.address)
    assert completed.startswith(expected)


def test_a_tokenizer_is_had_without_the_weights_and_the_model_all_the_same_later(
    hub: Hub, folder: Path, tmp_path: Path
) -> None:
    expected = f"{tiny_models.TOKENIZER.encode('the king')} {tiny_models.CONTEXT}"
    for _ in range(2):
        assert elsewhere(read_tokenizers, [NAME], tmp_path / "home", hub.address) == [expected]
    assert not any("safetensors" in path for path in hub.asked)
    assert len([path for path in hub.asked if path.startswith("/api/models/")]) == 1
    (said,) = elsewhere(open_all, [NAME], tmp_path / "home", hub.address)
    assert "Downloading model.safetensors" in said


def test_no_network_is_a_sentence_within_seconds(tmp_path: Path) -> None:
    (said,) = elsewhere(open_all, [NAME], tmp_path / "home", "http://127.0.0.1:9")
    assert "There is no model maker/tiny on this machine." in said
    assert "The hub could not give it" in said


def test_offline_the_hub_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(LabError, match=r"The hub is not asked, since HF_HUB_OFFLINE is set\."):
        open_model(NAME, tmp_path)


def _cached(folder: Path, home: Path, revision: str, *files: str) -> Path:
    """A snapshot in a cache as huggingface_hub lays it out: links into blobs."""
    repository = home / "hub" / f"models--{NAME.replace('/', '--')}"
    snapshot = repository / "snapshots" / revision
    for place in (snapshot, repository / "blobs", repository / "refs"):
        place.mkdir(parents=True, exist_ok=True)
    for name in files:
        blob = repository / "blobs" / hashlib.sha256(f"{revision} {name}".encode()).hexdigest()
        blob.write_bytes((folder / name).read_bytes())
        (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))
    (repository / "refs" / "main").write_text(revision)
    return snapshot


def test_weights_of_another_revision_than_main_are_opened_and_said(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    files = [file.name for file in folder.iterdir() if file.suffix in (".json", ".safetensors")]
    settings = [name for name in files if name.endswith(".json")]
    first, whole, newest = ("1" * 40, "2" * 40, "3" * 40)
    _cached(folder, home, first, *files)
    broken = (_cached(folder, home, whole, *files) / "model.safetensors").resolve()
    os.utime(home / "hub" / "models--maker--tiny" / "snapshots" / first, (1e9, 1e9))
    expected = open_model(str(folder), tmp_path).weights_sha256
    assert open_model(NAME, tmp_path).name == NAME  # of main itself nothing needs to be said
    _cached(folder, home, newest, *settings)  # as after a look at the tokenizer of a newer revision
    opened = open_model(NAME, tmp_path)
    assert (opened.reference, opened.name) == (NAME, f"{NAME} (revision {whole[:7]})")
    assert opened.weights_sha256 == expected
    (listed,) = [model for model in available_models(tmp_path) if model.reference == NAME]
    assert listed.detail.endswith(f"revision {whole[:7]}")
    broken.unlink()  # a download that was broken off
    assert open_model(NAME, tmp_path).name == f"{NAME} (revision {first[:7]})"
