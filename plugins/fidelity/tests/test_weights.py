"""Published weights: found, fetched, verified before anything reads them, and messages for who has no network."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gancore.api import DataError
from gancore_fidelity import weights
from gancore_fidelity.storage import Storage

CONTENT = b"weights of a network" * 100


def published(content: bytes = CONTENT, url: str = "https://example.org/w.pth") -> weights.Weights:
    return weights.Weights("w.pth", url, hashlib.sha256(content).hexdigest(), len(content))


def test_the_file_of_the_option_comes_before_the_cache(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "cache")
    assert weights.find(published(), "", storage) is None
    storage.folder.mkdir()
    (storage.folder / "w.pth").write_bytes(CONTENT)
    assert weights.find(published(), "", storage) == storage.folder / "w.pth"
    own = tmp_path / "own.pth"
    own.write_bytes(CONTENT)
    assert weights.find(published(), str(own), storage) == own
    assert weights.read(published(), own) == CONTENT


@pytest.mark.parametrize("file", ["missing.pth", "."])
def test_a_named_file_that_is_not_there(tmp_path: Path, file: str) -> None:
    with pytest.raises(DataError, match=r"fidelity.weights = .* (is not there|is a folder); .*example.org/w.pth"):
        weights.find(published(), str(tmp_path / file), Storage(tmp_path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (CONTENT[:-1], "has 1,999 of 2,000 bytes: cut off"),
        (CONTENT[:-1] + b"!", "SHA-256 is [0-9a-f]{64}, expected"),
        (CONTENT + b"!", "longer than 2,000 bytes"),
        (b"", "has 0 of 2,000 bytes"),
    ],
)
def test_another_file_is_refused_before_it_is_opened(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"is not w.pth: it.*{words}.*It was not opened"):
        weights.read(published(), path)


class Answers(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT, half of it, or an error."""

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        content = CONTENT[: len(CONTENT) // 2] if self.path == "/half" else CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_download_is_verified_and_kept(server: str, tmp_path: Path) -> None:
    storage = Storage(tmp_path / "cache")
    path = weights.fetch(published(url=f"{server}/whole"), storage)
    assert path == storage.folder / "w.pth"
    assert path.read_bytes() == CONTENT
    assert weights.find(published(), "", storage) == path


def test_half_a_download_leaves_nothing(server: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"half answered is not w.pth: it has 1,000 of 2,000 bytes"):
        weights.fetch(published(url=f"{server}/half"), Storage(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/missing", None])
def test_without_network_the_message_says_what_to_put_where(
    server: str, tmp_path: Path, path: str | None
) -> None:
    url = f"{server}{path}" if path else "http://127.0.0.1:9/w.pth"
    with pytest.raises(DataError) as caught:
        weights.fetch(published(url=url), Storage(tmp_path))
    message = str(caught.value)
    assert "could not be downloaded" in message
    assert f"fetch {url}" in message
    assert f"put it into {tmp_path}" in message
    assert "fidelity.weights" in message


def test_a_cache_that_cannot_be_written_says_so(server: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot write .*set fidelity.cache"):
        weights.fetch(published(url=f"{server}/whole"), Storage(tmp_path / "file" / "cache"))


def test_published_files_carry_the_hash_of_their_name() -> None:
    assert weights.INCEPTION.sha256.startswith("6726825d")
    for each in (weights.INCEPTION, weights.DINOV2):
        assert len(each.sha256) == 64
