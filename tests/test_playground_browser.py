"""The playground in Chromium: every tab works, with the keyboard alone, without a complaint."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path

import pytest

from echovec.serve.load import embedders
from echovec.serve.playground.searchable import Shown
from echovec.serve.service import Service
from playground_stub import CHROMIUM, StubIndex, chromium, page_of, shown
from serve_stub import Gated, service, serving

pytest.importorskip("playwright", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}")


@pytest.fixture(scope="module")
def browser():
    """One browser for all."""
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def address():
    """A server of the tiny model with an index."""
    served = service()
    with serving(served, shown(served)) as where:
        yield where


def test_every_tab_works_with_the_keyboard_alone(browser, address):
    """From the tabs by arrow keys into each form and to its result; the console stays silent."""
    with page_of(browser, address) as (page, complaints):
        press = page.keyboard.press
        page.wait_for_selector("#compare .heat")  # the first example, unasked
        page.focus("#tab-compare")
        press("Tab")  # into the page, then the examples
        press("Tab")
        press("Enter")
        page.wait_for_selector("#compare .heat")
        assert page.locator("#compare .bars .number").count() == 2
        assert page.locator("#compare .token").count() > 40
        page.focus("#compare textarea[name=left]")
        press("Control+a")
        page.keyboard.type("a dog barks at night")
        press("Control+Enter")
        page.wait_for_selector("#compare .tokens:has-text('barks')")
        page.focus("#tab-compare")
        press("ArrowRight")
        assert page.evaluate("document.activeElement.id") == "tab-rank"
        page.focus("#rank textarea[name=texts]")
        press("Control+Enter")
        page.wait_for_selector("#rank .column")
        assert page.locator("#rank .column").count() == 2
        assert page.locator("#rank .column h3").all_inner_texts() == ["classical", "echo"]
        page.focus("#tab-rank")
        press("ArrowRight")
        press("Tab")
        page.keyboard.type("fish number 2")
        press("Enter")
        page.wait_for_selector("#search .hits")
        assert "fish number 2" in page.locator("#search .hits li").first.inner_text()
        page.focus("#tab-search")
        press("ArrowRight")
        page.wait_for_selector("#map .plane:not([hidden])")
        page.focus("#map canvas")
        press("ArrowRight")
        first = page.inner_text("#map .reading")
        press("ArrowRight")
        assert first != page.inner_text("#map .reading")
        page.fill("#map input[name=query]", "dog")
        assert "dog" in page.inner_text("#map .reading")
        press("Enter")
        page.wait_for_selector("#map .out:has-text('nearest')")
        page.focus("#tab-map")
        press("ArrowRight")
        page.select_option("#use select[name=role]", "query")
        assert f"http://{address}/v1" in page.inner_text("#use .out")
        assert '"echo:query"' in page.inner_text("#use .out")
        press("End")
        assert complaints == []


def test_the_map_counts_and_colours(browser, address):
    """The map says how many texts it has, and its colours have a legend."""
    with page_of(browser, address) as (page, complaints):
        page.click("#tab-map")
        page.wait_for_selector("#map .plane:not([hidden])")
        assert "24 texts of animals" in page.inner_text("#map .out")
        assert page.locator("#map .legend span").all_inner_texts() == ["cat", "dog", "fish"]
        page.mouse.wheel(0, 100)
        page.click("#map button[name=reset]")
        assert complaints == []


def test_what_is_typed_is_never_markup(browser, address):
    """Tags in a text are shown as text, and nothing of them runs."""
    with page_of(browser, address) as (page, complaints):
        evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
        page.fill("#compare textarea[name=left]", evil)
        page.click("#compare button.main")
        page.wait_for_selector("#compare .tokens:has-text('onerror')")
        assert page.locator("#compare .out img, #compare .out script").count() == 0
        assert complaints == []


def test_errors_and_slow_calls_are_shown(browser):
    """A slow call says how long it takes; an error is an alert with the server's words."""
    backbone = Gated()
    served = service(backbone=backbone)
    with serving(served) as where, page_of(browser, where) as (page, _):
        page.wait_for_selector("#compare .heat")
        backbone.gate.clear()
        page.click("#compare button.main")
        page.wait_for_selector("#compare .wait")
        assert "computing" in page.inner_text("#compare .wait")
        backbone.gate.set()
        page.wait_for_selector("#compare .heat")
        page.fill("#compare textarea[name=left]", "word " * 2000)
        page.click("#compare button.main")
        page.wait_for_selector("#compare [role=alert]")
        assert "has 10,000 tokens" in page.inner_text("#compare [role=alert]")


@pytest.mark.parametrize("made_by", [None, "meta-eol"])
def test_without_an_index_the_way_to_one_is_shown(browser, made_by):
    """Calmly: nothing is asked that the server would refuse, and no form is there in vain."""
    served = service()
    index = None if made_by is None else shown(service(recipes=(made_by,)), made_by)
    with serving(served, index) as where, page_of(browser, where) as (page, complaints):
        page.wait_for_selector("#compare .heat")
        for tab in ("search", "map"):
            page.click(f"#tab-{tab}")
            said = page.inner_text(f"#{tab} .missing")
            assert ("serve --index" if made_by is None else "not served here") in said
            assert not page.is_visible(f"#{tab} form")
        assert complaints == []


def test_a_key_is_asked_for_by_the_browser(browser, address):
    """With a key the page opens with it as a password, and its own calls carry it."""
    with (
        serving(service(keys=("sesame",))) as where,
        page_of(browser, where, http_credentials={"username": "me", "password": "sesame"}) as (
            page,
            _,
        ),
    ):
        page.wait_for_selector("#compare .heat")


@pytest.mark.parametrize("width", [360, 1100])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(browser, address, width, scheme):
    """No tab is wider than the screen, on a phone too; text stands out from what is behind it."""
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    with page_of(browser, address, **options) as (page, complaints):
        page.wait_for_selector("#compare .heat")
        for tab in ("compare", "rank", "search", "map", "use"):
            page.click(f"#tab-{tab}")
            if tab == "rank":
                page.click("#rank button.main")
                page.wait_for_selector("#rank .column")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
        page.click("#tab-compare")
        for selector in ("body", ".lead", ".quiet", ".token", "button.main", ".presets button"):
            assert page.evaluate(CONTRAST, selector) >= 4.5, selector
        assert complaints == []


@pytest.mark.slow
def test_screenshots_of_every_tab(browser, default_model, tmp_path):
    """Each tab with the default model as a picture; ECHOVEC_SCREENSHOTS=1: in docs/images."""
    toy = resources.files("echovec.evaluate.reproduce") / "toy_triplets.jsonl"
    rows = [json.loads(line) for line in toy.read_text("utf-8").splitlines()]
    texts = [row[one] + row["join"] + row[two] for row in rows for one, two in SIDES]
    loaded = embedders()
    index = StubIndex(loaded["fast"], texts, {})
    folder = Path(__file__).parents[1] / "docs" / "images"
    folder = folder if os.environ.get("ECHOVEC_SCREENSHOTS") else tmp_path
    folder.mkdir(exist_ok=True)
    with (
        serving(Service(loaded), Shown(index, "the toy set's texts")) as where,
        page_of(browser, where, viewport={"width": 1080, "height": 760}) as (page, complaints),
    ):
        fill = {"search": "animals that came back", "map": "what is taught at school"}
        done = {"compare": ".heat", "rank": ".column", "search": ".hits", "map": ".out .note"}
        for tab, result in {**done, "use": ".code"}.items():
            page.click(f"#tab-{tab}")
            if tab == "map":
                page.wait_for_selector("#map .plane:not([hidden])")
            if tab in fill:
                page.fill(f"#{tab} input[name=query]", fill[tab])
            if tab in ("rank", *fill):
                page.click(f"#{tab} button.main")
            page.wait_for_selector(f"#{tab} {result}")
            if tab == "map":
                page.wait_for_selector("#map .out:has-text('nearest')")
            page.screenshot(path=folder / f"playground-{tab}.png", full_page=True)
        assert complaints == []
    assert len(list(folder.glob("playground-*.png"))) == 5


SIDES = (("a", "b"), ("a_near", "b_near"), ("a_far", "b_far"), ("a", "b_negative"))
"""What a text of the toy set is put together from."""

CONTRAST = """selector => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = (colour, under) => {
    canvas.fillStyle = `rgb(${under})`; canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = c => { const [r, g, b] = c.map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = element => {
    const under = element.parentElement ? behind(element.parentElement) : [255, 255, 255];
    return rgb(getComputedStyle(element).backgroundColor, under);
  };
  const seen = [...document.querySelectorAll(selector)].filter(e => e.checkVisibility());
  const ratios = seen.map(e => {
    const back = behind(e);
    const [a, b] = [light(rgb(getComputedStyle(e).color, back)), light(back)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  });
  return Math.min(...ratios);
}"""
"""The least contrast of a selector's elements, as WCAG counts it."""
