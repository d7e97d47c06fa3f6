"""Folders on this machine, and a stand-in for the Hub on loopback; no network."""

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uets_jax.data import hub
from uets_jax.data.hub import open_stream
from uets_jax.errors import UserError

README = """---
configs:
- config_name: en
  data_files:
  - split: train
    path: en/train*
  - split: test
    path: en/test*
- config_name: de
  data_files: de/*
---
"""
COMMIT = "a" * 40
TEXTS = {
    "en/train-0": list("abcd"),
    "en/train-1": list("efgh"),
    "en/test": ["t"],
    "de/x": ["ä"],
}


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    folder = str(tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder)


@pytest.fixture
def folder(tmp_path):
    """Two configs, by the README: `en` in two shards and a test split, and `de`."""
    for name, texts in TEXTS.items():
        path = tmp_path / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"text": texts, "n": list(range(len(texts)))}), path)
    (tmp_path / "README.md").write_text(README)
    return tmp_path


def opened(repo, config="", split="train"):
    return open_stream(repo, config, split, "hf:x")


def test_the_rows_of_a_split_come_in_order(folder):
    rows = list(opened(str(folder), "en"))
    assert [row["text"] for row in rows] == list("abcdefgh")
    assert rows[5] == {"text": "f", "n": 1}


WRONG = {
    ("", "train"): "give one of its configs as hf:REPO:CONFIG; it has en, de",
    ("", "test"): "give one of its configs",
    ("fr", "train"): "no config 'fr': choose from en, de",
    ("en", "tset"): "no split 'tset': did you mean 'test'",
    ("de", "x"): "no split 'x': choose from train",
}


@pytest.mark.parametrize("case", WRONG)
def test_a_config_or_split_that_is_not_there_is_told_in_one_line(folder, case):
    with pytest.raises(UserError, match=f"^hf:x: {WRONG[case]}") as caught:
        opened(str(folder), *case)
    assert "\n" not in str(caught.value)


def test_many_names_are_cut_short():
    assert hub.listed([str(i) for i in range(30)]).endswith("10, 11 and 18 more")


def test_a_folder_without_data_is_told(tmp_path):
    with pytest.raises(UserError, match="holds no data files"):
        opened(str(tmp_path))


def test_a_loading_script_is_refused_and_not_run(tmp_path):
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "train.jsonl").write_text('{"text": "a"}')
    (repo / "repo.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UserError, match="has a loading script, which is never run"):
        opened(str(repo))
    assert not (tmp_path / "ran").exists()


def test_the_package_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.__version__", "3.6.0")
    with pytest.raises(UserError, match=r'3\.6\.0 may run code.*"datasets>=4"'):
        opened(str(tmp_path))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r'pip install "uets_jax\[hf\]"'):
        opened(str(tmp_path))


@pytest.fixture
def silent():
    """The address of a server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_without_the_hub_one_line_comes_at_once(monkeypatch, silent):
    monkeypatch.setattr(hub, "PATIENCE", 0.5)
    for address in ("http://127.0.0.1:9", "http://nowhere.invalid", silent):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        start = time.perf_counter()
        with pytest.raises(UserError, match=r"^hf:x: can't reach the Hub") as caught:
            opened("u/s")
        assert time.perf_counter() - start < 5
        assert "\n" not in str(caught.value)


def test_the_hub_may_be_forbidden(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"\$HF_HUB_OFFLINE forbids the Hub"):
        opened("u/s")


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hub as streaming needs: u/s, u/gated, u/code, u/down."""

    protocol_version = "HTTP/1.1"
    files: dict = {}  # noqa: RUF012
    tokens: set = set()  # noqa: RUF012

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        self.tokens.add(self.headers.get("authorization"))
        path = self.path.partition("?")[0]
        for repo in ("u/s", "u/code", "u/gated"):
            if path in (
                f"/api/datasets/{repo}",
                f"/api/datasets/{repo}/revision/{COMMIT}",
            ):
                return self.send(200, {"id": repo, "sha": COMMIT, "siblings": []})
        if path == "/api/datasets/u/down":
            return self.send(503)
        if path.startswith("/datasets/u/gated/"):
            return self.send(403, error="GatedRepo")
        if path == f"/datasets/u/code/resolve/{COMMIT}/code.py":
            return self.send(200, b"raise SystemExit", commit=COMMIT)
        if path.startswith("/api/datasets/u/s/tree/"):
            return self.send(200, self.tree(path.partition(COMMIT)[2].strip("/")))
        if "/resolve/" in path:
            name = path.partition("/resolve/")[2].partition("/")[2]
            if path.startswith("/datasets/u/s/") and name in self.files:
                return self.send(200, self.files[name], commit=COMMIT)
            return self.send(404, error="EntryNotFound")
        return self.send(404, error="RepoNotFound")

    do_HEAD = do_GET

    def tree(self, folder):
        rows = [
            {"type": "file", "oid": COMMIT, "size": len(raw), "path": name}
            for name, raw in self.files.items()
            if os.path.dirname(name) == folder
        ]
        folders = {os.path.dirname(name) for name in self.files} if not folder else {}
        dirs = [{"type": "directory", "oid": COMMIT, "path": d} for d in folders if d]
        return rows + dirs

    def send(self, code, body: Any = b"", error="", commit=""):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        code, headers = self.part(code, len(body))
        if headers:
            first, last = headers["Content-Range"][6:].split("/")[0].split("-")
            body = body[int(first) : int(last) + 1]
        headers |= {"X-Error-Code": error} if error else {}
        headers |= {"X-Repo-Commit": commit, "ETag": '"1"'} if commit else {}
        self.send_response(code)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def part(self, code, size):
        asked = self.headers.get("Range")
        if code != 200 or not asked:
            return code, {}
        first, last = asked.removeprefix("bytes=").split("-")
        last = min(int(last or size), size - 1)
        return 206, {"Content-Range": f"bytes {first}-{last}/{size}"}


@pytest.fixture
def address(folder):
    """The address of a Hub whose u/s is `folder`."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    Hub.files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}
    Hub.tokens = set()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}
    )
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


ON_THE_HUB = {
    "hf:u/s:en": list("abcdefgh"),
    "hf:u/s:en:test": ["t"],
    "hf:u/s:de": ["ä"],
    "hf:u/s": "give one of its configs as hf:REPO:CONFIG; it has en, de",
    "hf:u/s:fr": "no config 'fr': choose from en, de",
    "hf:u/gated": "gated: ask for access at https://huggingface.co/datasets/u/gated",
    "hf:u/none": "not on the Hub, or private: check the name, or set $HF_TOKEN",
    "hf:u/code": "has a loading script, which is never run",
    "hf:u/down": "the Hub refuses (HTTP 503): try again later",
}


def test_a_hub_is_streamed_with_the_token_of_the_environment(address, tmp_path):
    code = """
import json, sys
from uets_jax.data.corpus import documents
for spec in json.loads(sys.argv[1]):
    try:
        found = list(documents(spec))
    except ValueError as error:
        found = str(error)
    print(json.dumps(found))
"""
    home = {"HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", code, json.dumps(list(ON_THE_HUB))]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, **home, "HF_ENDPOINT": address, "HF_TOKEN": "canary"},
    )
    found = dict(
        zip(ON_THE_HUB, map(json.loads, done.stdout.splitlines()), strict=True)
    )
    for spec, wanted in ON_THE_HUB.items():
        if isinstance(wanted, str):
            assert found[spec].startswith(f"{spec}: {wanted}")
        else:
            assert found[spec] == wanted
    assert "Bearer canary" in Hub.tokens
    assert "canary" not in done.stdout + done.stderr
