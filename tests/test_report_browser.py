"""The report in a real browser: sorted, filtered and clicked, without a console error and without a request."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest
from records import board_records, failed, launch_set, record, run_of
from test_report import CELLS, HOSTILE_NAME, hostile_run

from harness.report import report
from harness.store import find_runs, load_run

REFERENCE = Path(__file__).parents[1] / "results" / "reference"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_bytes(report([load_run(folder) for folder in find_runs(REFERENCE)]))
    return path


@contextmanager
def opened(browser, path, **options):
    """Open a file offline; at the end no error was logged and nothing but the file itself was asked for."""
    errors, requests = [], []
    context = browser.new_context(offline=True, **options)
    page = context.new_page()
    page.on("console", lambda said: errors.append(said.text) if said.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.on("dialog", lambda dialog: (errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]", timeout=60_000)
    yield page
    assert errors == []
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [path.as_uri()]
    context.close()


@pytest.fixture(scope="module")
def one_page(browser, reference):
    with opened(browser, reference) as page:
        yield page


@pytest.fixture
def page(one_page):
    """The board of the reference run, as it is when it is opened."""
    one_page.evaluate(
        "location.hash = 'board'; document.querySelector('form.filters').reset(); document.activeElement.blur()"
    )
    one_page.wait_for_selector("html:not(.one)")
    one_page.locator(".count", has_text=f"{CELLS} of {CELLS}").wait_for()
    return one_page


def column(page, at):
    return page.eval_on_selector_all(
        "table.board tbody tr:not([hidden])", f"rows => rows.map(row => row.cells[{at}].dataset.value)"
    )


def visible_rows(page):
    return page.locator("table.board tbody tr:visible").count()


def test_a_column_sorts_both_ways_and_says_so(page):
    head = page.locator("table.board thead th", has_text="p50")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    values = [float(value) for value in column(page, 6)]
    assert values == sorted(values)
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    values = [float(value) for value in column(page, 6)]
    assert values == sorted(values, reverse=True)


def test_filters_narrow_the_table_and_the_plots(page):
    every = visible_rows(page)
    assert every == CELLS
    page.get_by_label("Find").fill("int8 openvino")
    assert visible_rows(page) == 4
    assert page.locator(".count").inner_text() == f"4 of {CELLS} rows"
    assert (
        page.evaluate("document.querySelector('.pareto').data.slice(1).reduce((sum, one) => sum + one.x.length, 0)")
        == 4
    )
    page.get_by_role("button", name="Reset", exact=True).click()
    page.locator(".count", has_text=f"{CELLS} of {CELLS}").wait_for()
    page.locator(".by-target").select_option("tflite")
    page.get_by_label("Pareto front only").check()
    assert set(
        page.eval_on_selector_all("table.board tbody tr:not([hidden])", "rows => rows.map(row => row.dataset.target)")
    ) == {"tflite"}
    assert 0 < visible_rows(page) < 10


def test_a_point_of_the_pareto_plot_opens_its_cell_and_escape_goes_back(page):
    page.locator(".pareto").scroll_into_view_if_needed()
    page.locator(".pareto .scatterlayer .trace .points path").first.wait_for()
    point = page.evaluate(
        """() => {
          const plot = document.querySelector('.pareto'), box = plot.getBoundingClientRect(), full = plot._fullLayout;
          const points = plot.data.filter(one => one.customdata)
            .flatMap(one => one.x.map((x, at) => ({ x, y: one.y[at], key: one.customdata[at] })));
          const last = points.sort((one, other) => other.x - one.x)[0]; // stands alone, so that no other is nearer
          const on = (axis, value) => axis.l2p(axis.d2l(value)) + axis._offset;
          return { key: last.key, x: box.x + on(full.xaxis, last.x), y: box.y + on(full.yaxis, last.y) };
        }"""
    )
    page.mouse.move(point["x"], point["y"])
    page.mouse.click(point["x"], point["y"])
    page.wait_for_selector("article.open")
    cell = page.locator("article.open")
    assert cell.count() == 1
    assert cell.get_attribute("id") == point["key"]
    assert not page.locator("#board").is_visible()
    for words in ("How it was made", "What ran", "How quiet the host was", "Do it again"):
        assert cell.get_by_role("heading", name=words).is_visible()
    assert "harness bench --workloads digits-resnet8" in cell.locator("pre.command").first.inner_text()
    assert cell.locator(".over-time .scatterlayer .trace").count() >= 2
    assert cell.locator(".ecdf .scatterlayer .trace").count() >= 1
    page.keyboard.press("Escape")
    page.wait_for_selector("html:not(.one)")
    assert page.locator("#board").is_visible()


def test_the_keyboard_alone_reaches_a_cell(page):
    assert page.evaluate("document.querySelector('a, button, input, select').className") == "skip"
    page.locator("table.board tbody th a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("article.open")
    assert page.evaluate("document.activeElement.tagName") == "H2"


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1280, "dark")])
def test_nothing_is_wider_than_the_screen(page, width, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("table.board tbody th a").first.click()
    page.wait_for_selector("article.open")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_everything_has_a_name_for_screen_readers(page):
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, select, input, a[href], [role=img], [role=group]')]
          .filter(one => !one.closest('.js-plotly-plot .plot-container') && !one.closest('[hidden]'))
          .filter(one => !one.getAttribute('aria-label') && !one.textContent.trim())
          .filter(one => !one.labels || !one.labels.length)
          .map(one => one.outerHTML)"""
    )
    assert nameless == []
    headings = page.eval_on_selector_all("h1, h2, h3", "all => all.map(one => Number(one.tagName[1]))")
    assert headings[0] == 1
    assert headings.count(1) == 1


def test_it_prints_the_board_without_controls(page):
    page.emulate_media(media="print")
    assert not page.locator("form.filters").is_visible()
    assert page.locator("table.board").is_visible()
    assert len(page.pdf()) > 20_000
    page.emulate_media(media="screen")


def test_it_reads_without_scripts(browser, reference):
    context = browser.new_context(offline=True, java_script_enabled=False)
    page = context.new_page()
    page.goto(reference.as_uri())
    assert page.locator("table.board tbody tr:visible").count() == CELLS
    assert page.locator("article.cell:visible").count() == CELLS
    context.close()


def test_hostile_names_are_text_in_a_browser(tmp_path, browser):
    path = tmp_path / "hostile.html"
    path.write_bytes(report([hostile_run()]))
    with opened(browser, path) as page:
        _look_at_hostile(page)


def _look_at_hostile(page):
    assert page.evaluate("window.harm") is None
    assert page.locator("table.board a", has_text="<script>").count() > 0
    assert page.locator("img, iframe, object, embed").count() == 0
    assert page.eval_on_selector_all(
        "a", "all => all.every(one => (one.getAttribute('href') || '').startsWith('#') || one.closest('.modebar'))"
    )
    page.locator("table.board tbody th a").first.click()
    page.wait_for_selector("article.open")
    assert page.locator("article.open svg a").count() == 0
    assert HOSTILE_NAME[:8] in page.locator("article.open h2").inner_text()


def test_a_run_with_failures_and_a_run_of_nothing(tmp_path, browser):
    sets = tuple(launch_set("aa" * 8, n, {record().cell_id: 3.0}, anchor=record().cell_id) for n in range(6))
    for name, run in (
        ("many", run_of(board_records(), sets)),
        ("lost", run_of((failed("int8", "tflite", "oom", "memory", "tflite", "x"),))),
        ("none", run_of(())),
    ):
        path = tmp_path / f"{name}.html"
        path.write_bytes(report([run]))
        with opened(browser, path) as page:
            assert page.locator("h1").is_visible()
