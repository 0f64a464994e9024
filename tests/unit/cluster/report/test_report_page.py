"""The page about a run in a real browser: what it shows, and what happens when one clicks."""

from __future__ import annotations

import shutil

import pytest
from report_kit import stale_history, write_run

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")

# How many pixels of a canvas differ from its corner.
DRAWN = """id => {
    const canvas = document.getElementById(id);
    const all = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    let count = 0;
    for (let i = 0; i < all.length; i += 4) if (all[i + 3] > 40) count++;
    return count;
}"""


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser, tmp_path):
    """The page of a run with a stale read, which must say nothing on the console."""
    path = write_run(tmp_path / "run", stale_history())
    opened = browser.new_page(viewport={"width": 1200, "height": 900})
    said, asked = [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(path.as_uri())
    opened.wait_for_function("document.getElementById('window').textContent !== ''")
    yield opened
    opened.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_the_verdict_and_the_command_stand_on_top(page):
    assert page.text_content("#verdict") == "invalid"
    assert "register on 3 nodes of raft, seed 42" in page.text_content("#what")
    assert page.text_content("#command") == "ring chaos register --time 6 --seed 42"
    assert "1 of 2 faults took effect" in page.text_content("#numbers")
    first = page.text_content("#findings li:first-child")
    assert first.startswith("invalid")
    assert "linearizable register" in first


@pytest.mark.parametrize("chart", ["faults", "leaders", "operations", "latency", "throughput"])
def test_every_drawing_shows_something(page, chart):
    page.wait_for_timeout(200)
    assert page.evaluate(DRAWN, chart) > 300


def test_the_first_error_is_one_click_away_with_the_order_that_leads_to_it(page):
    page.click("#first-error")
    assert "read x → 1" in page.text_content("#chosen")
    assert page.evaluate("document.getElementById('key').selectedOptions[0].text") == "x"
    assert page.locator("#order li span").all_text_contents() == [
        "write x 1 → done",
        "write x 2 → done",
        "read x → 1",
    ]
    where = page.locator("#order li small").all_text_contents()
    assert where[0].startswith("operation 0 of process 0, at 0.10000 s, for 50.0 ms")
    assert page.locator("#order li.stuck").count() == 1
    shown = page.text_content("#window")
    assert 0.3 < float(shown.split()[0]) < 0.4 < float(shown.split()[2]) < 0.6


def test_the_wheel_goes_closer_and_a_double_click_shows_all_again(page):
    whole = page.text_content("#window")
    other = "before => document.getElementById('window').textContent !== before"
    same = "before => document.getElementById('window').textContent === before"
    box = page.locator("#operations").bounding_box()
    page.mouse.move(box["x"] + 600, box["y"] + 20)
    page.mouse.wheel(0, -400)
    page.wait_for_function(other, arg=whole)
    page.mouse.dblclick(box["x"] + 600, box["y"] + 20)
    page.wait_for_function(same, arg=whole)


def test_a_click_on_an_operation_tells_what_it_was(page):
    """The last but one of `y`: found where the drawing has put it."""
    x, y = page.evaluate(
        """() => {
            const canvas = document.getElementById('operations').getBoundingClientRect();
            const o = data.operations, i = o.called.length - 2;
            const width = canvas.width - 74 - 12, middle = (o.called[i] + o.ended[i]) / 2;
            const x = canvas.left + 74 + middle / data.end * width;
            return [x, canvas.top + 5 + o.lane[i] * 17 + 7];
        }"""
    )
    page.mouse.move(x, y)
    assert "write y 28" in page.text_content("#tip")
    page.mouse.down()
    page.mouse.up()
    assert "write y 28 → done" in page.text_content("#chosen")


def test_events_are_those_of_the_time_that_is_shown_and_of_the_kinds_that_are_ticked(page):
    def kinds():
        return page.locator("#events tbody tr td:nth-child(3)").all_text_contents()

    assert kinds() == ["raft.role", "process.exit", "raft.role", "raft.role"]
    page.check("#kinds label:has-text('log.commit') input")
    assert kinds()[-1] == "log.commit"
    page.click("#plan tbody tr:first-child")  # the kill, from 1.0 to 2.0
    page.wait_for_function("document.querySelectorAll('#events tbody tr').length < 5")
    assert kinds()[0] == "process.exit"
