"""The documentation as a site: built without a warning, opened from a folder, searched, and seen in a real browser."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(page.stem for page in (ROOT / "docs").glob("*.md"))

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None, reason="the extra [docs] is not installed: pip install '.[docs]'"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(ROOT / "mkdocs.yml"), "-d", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_every_page_is_built_and_asks_for_nothing_from_elsewhere(site: Path) -> None:
    for name in PAGES:
        text = (site / f"{'index' if name == 'README' else name}.html").read_text()
        assert "https://fonts" not in text
        assert 'src="http' not in text
        assert "<!-- before" not in text


class Watched:
    """A page, with what it complained about and what it asked for."""

    def __init__(self, browser) -> None:
        self.page = browser.new_context(offline=True).new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in {"error", "warning"} else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", lambda request: self.complaints.append(request.url))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def close(self) -> None:
        self.page.context.close()
        assert self.complaints == []
        assert [url for url in self.requests if not url.startswith(("file:", "data:", "about:"))] == []


@pytest.fixture
def watched(browser):
    found = Watched(browser)
    yield found
    found.close()


def test_pages_open_from_a_folder_without_a_complaint(site: Path, watched: Watched) -> None:
    for name in PAGES:
        watched.page.goto((site / f"{'index' if name == 'README' else name}.html").as_uri())
        watched.page.wait_for_load_state("load")
        assert watched.page.locator("h1").count() == 1
        width = watched.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1], f"{name}.md is wider than the window"


@pytest.mark.parametrize(("words", "page"), [("channel_multiple", "reference.html"), ("procure", "deciding.html")])
def test_the_search_box_finds_pages_without_a_server(site: Path, watched: Watched, words: str, page: str) -> None:
    watched.page.goto((site / "index.html").as_uri())
    watched.page.locator("input.md-search__input").click()
    watched.page.keyboard.type(words)
    found = watched.page.locator(f"a.md-search-result__link[href*='{page}']").first
    found.wait_for(timeout=20_000)
    found.click()
    watched.page.wait_for_url(f"**/{page}*")
