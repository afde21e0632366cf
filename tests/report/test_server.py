"""A page that follows its run folder, on this machine alone; a browser sees it change and keeps its place."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from runs_for_tests import tick, write_run

pytest.importorskip("matplotlib", reason="needs the extra gancore[report]")
pytest.importorskip("jinja2", reason="needs the extra gancore[report]")

from gancore.errors import CheckpointError, ConfigError
from gancore.report import server
from gancore.report.server import LivePage, PageServer

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)


@contextmanager
def serving(page: LivePage) -> Iterator[PageServer]:
    with PageServer(page) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield found
        finally:
            found.shutdown()
            thread.join()


def ask(found: PageServer, path: str, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", found.server_port, timeout=60)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body, dict(answer.getheaders())


def grow(path: Path, step: int) -> None:
    with open(path / "metrics.jsonl", "a") as file:
        file.write(json.dumps(tick(step)) + "\n")


@pytest.fixture
def run(make_run: Callable[..., Path]) -> Path:
    return make_run(rows=[tick(10)], frames=[0, 10])


def test_only_the_page_and_its_state(run: Path) -> None:
    with serving(LivePage(run)) as found:
        assert found.server_address[0] == "127.0.0.1"
        status, page, headers = ask(found, "/")
        assert status == 200
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert headers["Cache-Control"] == "no-store"
        assert "connect-src 'self'" in page
        status, body, _ = ask(found, "/state.json")
        state = json.loads(body)
        assert (status, state["state"], state["step"], state["steps"]) == (200, "stopped", 10, 100)
        assert f'data-version="{state["version"]}"' in page
        for path in ("/config.toml", "/../run/config.toml", "/%2e%2e/config.toml", "/state.json/..", "/?x"):
            assert ask(found, path)[0] == 404, path
        for method in ("POST", "PUT", "HEAD", "DELETE"):
            assert ask(found, "/", method)[0] == 501


def test_a_name_of_another_site_is_refused(run: Path) -> None:
    with serving(LivePage(run)) as found:
        port = found.server_port
        for host, status in {
            f"127.0.0.1:{port}": 200,
            f"localhost:{port}": 200,
            "127.0.0.1": 403,
            f"evil.example:{port}": 403,
            "": 403,
        }.items():
            assert ask(found, "/state.json", Host=host)[0] == status, host


def test_the_page_follows_the_folder(run: Path) -> None:
    page = LivePage(run)
    first, version = page.page(), page.state()["version"]
    assert page.page() is first
    grow(run, 20)
    assert page.state()["step"] == 20
    assert page.state()["version"] != version
    assert b"1.05" in page.page()


def test_a_running_folder_is_not_drawn_all_the_time(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "is_training", lambda path: True)
    monkeypatch.setattr(server, "SHARE", 1e6)
    page = LivePage(run)
    first = page.page()
    grow(run, 20)
    assert page.state()["step"] == 20
    assert page.page() is first
    monkeypatch.setattr(server, "is_training", lambda path: False)
    assert page.page() is not first  # the end of a run is shown at once


def test_a_folder_that_is_gone(run: Path, tmp_path: Path) -> None:
    with serving(LivePage(run)) as found:
        shutil.rmtree(run)
        status, body, _ = ask(found, "/state.json")
        assert status == 503
        assert "No such file" in body
    with pytest.raises(CheckpointError, match="holds no run"):
        LivePage(tmp_path / "nowhere")


def test_a_taken_port(run: Path) -> None:
    page = LivePage(run)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 is taken; choose another with --port"):
            PageServer(page, port)


READER = """
<script>
addEventListener("load", () => {
  const slider = document.querySelector(".timeline input");
  slider.value = 1;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  document.querySelector('[data-key="defaults-1"]').open = true;
  document.querySelector('[data-key="curves-loss"]').open = false;
  scrollTo(0, document.getElementById("cost").offsetTop - 7);
});
setInterval(() => {
  document.body.dataset.cost = Math.round(document.getElementById("cost").getBoundingClientRect().top);
  document.body.dataset.frame = document.querySelector("img.frame").src.length;
}, 50);
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_sees_the_run_grow_and_keeps_its_place(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows=[tick(10)], frames=[0, 10, 20])
    page = LivePage(run)
    make, tell = page.page, page.state
    asked = []

    def state():
        asked.append("state")
        if len(asked) == 2:  # after the reader has scrolled, opened and chosen
            grow(run, 77)
            (run / "samples" / "step-00000077.png").write_bytes(
                (run / "samples" / "step-00000010.png").read_bytes()
            )
        return tell()

    def with_reader() -> bytes:
        asked.append("page")
        return make() + (READER.encode() if asked.count("page") == 1 else b"")

    page.state, page.page = state, with_reader  # type: ignore[method-assign]
    with serving(page) as found:
        dom = browse(found.url, tmp_path)
    assert asked.count("page") == 2
    assert re.search(r'<p id="live"[^>]*>stopped</p>', dom)
    assert "Stopped at step 77 of 100" in dom
    assert re.search(r'data-steps="\[0, 10, 20, 77\]"', dom)
    assert "<output>10</output>" in dom
    assert re.search(r'<details data-key="defaults-1" open', dom)
    assert re.search(r'<details data-key="curves-loss">', dom)
    assert 'data-cost="7"' in dom


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_reader_at_the_newest_sheet_stays_there(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows=[tick(10)], frames=[0, 10])
    page = LivePage(run)
    tell, asked = page.state, []

    def state():
        asked.append(1)
        if len(asked) == 2:
            (run / "samples" / "step-00000050.png").write_bytes(
                (run / "samples" / "step-00000010.png").read_bytes()
            )
        return tell()

    page.state = state  # type: ignore[method-assign]
    with serving(page) as found:
        dom = browse(found.url, tmp_path)
    assert "<output>50</output>" in dom


def browse(url: str, folder: Path) -> str:
    """The document after a few seconds in a browser."""
    assert CHROMIUM is not None
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=9000", "--window-size=390,800")
    done = subprocess.run(
        [CHROMIUM, *flags, f"--user-data-dir={folder / 'browser'}", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    return done.stdout
