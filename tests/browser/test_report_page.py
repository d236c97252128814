"""report.html in a real browser: needs no network, fits a phone, works by keyboard, prints whole."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from livetrain.core.files import write_json
from livetrain.report import page as report_page
from livetrain.report import slider
from livetrain.verdict import clip_metadata, metrics, robustness, verdict
from livetrain.verdict.clip_metadata import Details
from livetrain.verdict.scores import Scores
from tests.browser import chromium
from tests.report.test_page import jpeg, make_run, records
from tests.verdict.helpers import make_scores

pytestmark = pytest.mark.slow  # a browser, and a run of its own

EVIL = "</script><script>document.title='owned'</script>"


def made_up(seed: int) -> Scores:
    """120 clips of 12 people, two attack types (one with a name that attacks the page), scores that overlap."""
    random = np.random.default_rng(seed)
    kinds = [("live", "print", "live", EVIL)[i % 4] for i in range(120)]
    rows: list[tuple[str, float | None]] = [
        (kind, float(np.clip(random.normal(0.7 if kind == "live" else 0.35, 0.18), 0, 1))) for kind in kinds
    ]
    return make_scores([*rows, ("live", None)], [f"person{i // 10}" for i in range(121)])


DEV, TEST = made_up(0), made_up(1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with everything that a report can show."""
    lines = [{"kind": kind, "step": step, "loss": 1 / step} for step in (1, 2, 3) for kind in ("train", "dev")]
    folder = make_run(tmp_path_factory.mktemp("browser") / "run", DEV, TEST, records(*lines))
    of = {
        key: Details(
            device=f"phone {i % 3} with a rather long name",
            session=str(i % 2),
            width=640 if i % 2 else 1920,
            height=480 if i % 2 else 1080,
            video_seconds=1 + i / 30,
            frames_per_second=30.0,
            brightness=i / 121,
            frames=(3, 11, 19, 27),
            frame_p_live=(0.2, 0.9, 0.5, i / 121),
            frame_shares=(0.25,) * 4,
        )
        for i, key in enumerate(TEST.key.tolist())
    }
    clip_metadata.write(folder / "scores" / "test_details.csv", of)
    threshold = verdict.build(DEV, TEST)["threshold"]
    hard = {"blur": ("blurred: sigma of 4 pixels in 224", made_up(2)), "gray": ("recoloured: no colour", made_up(3))}
    write_json(folder / "robustness.json", robustness.build(TEST, hard, threshold))
    (folder / report_page.SALIENCY).mkdir()
    (folder / report_page.SALIENCY / "a.jpg").write_bytes(jpeg("", ())[0])
    clip = {"key": "clip0", "file": "a.jpg", "kind": "live", "p_live": 0.25, "speaks_for": "attack"}
    write_json(folder / report_page.SALIENCY / "saliency.json", {"method": "Grad-CAM.", "clips": [clip]})
    report_page.write(folder, pictures=jpeg, worst_clips=6)
    return folder


@pytest.fixture(scope="module")
def window() -> Iterator[webdriver.Chrome]:
    with chromium.browser() as opened:
        yield opened


@pytest.fixture
def page(window: webdriver.Chrome, run: Path) -> webdriver.Chrome:
    chromium.resize(window, 1280)
    window.get((run / "report.html").as_uri())
    return window


def rates(window: webdriver.Chrome) -> dict[str, str]:
    """Row → the rate at the slider's threshold, as shown."""
    script = """return Array.from(document.querySelectorAll("#rates tbody tr"))
        .map((row) => [row.dataset.rate || row.cells[0].textContent.replace("APCER ", ""),
                       row.cells[3].textContent.replace("\\u00a0", " ")])"""
    return dict(window.execute_script(script))


def expected(threshold: float) -> dict[str, str]:
    found = metrics.at_threshold(TEST, threshold)
    shown = found["apcer"] | {name: found[name] for name in ("apcer_max", "bpcer", "hter")}
    return {name: f"{100 * rate:.2f} %" for name, rate in shown.items()}


def test_nothing_is_asked_of_the_network(window: webdriver.Chrome, run: Path) -> None:
    chromium.requests(window)
    window.get((run / "report.html").as_uri())
    asked = chromium.requests(window)
    assert (run / "report.html").as_uri() in asked
    # chrome: the page that the browser itself starts with, which may still be loading.
    assert [url for url in asked if not url.startswith(("file:///", "data:", "chrome:"))] == []
    assert [entry for entry in window.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert "owned" not in window.title and "verdict" in window.title


def test_every_picture_is_drawn(page: webdriver.Chrome) -> None:
    script = "return Array.from(document.images).filter((image) => !image.naturalWidth || !image.alt).length"
    assert page.execute_script(script) == 0 and page.execute_script("return document.images.length") >= 5 + 6 + 1


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_it_fits_the_screen(page: webdriver.Chrome, width: int, tmp_path: Path) -> None:
    chromium.resize(page, width)
    assert page.execute_script("return document.documentElement.clientWidth") == width
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    data = chromium.screenshot(page, tmp_path / f"report-{width}.png")
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.width == width and picture.height > 2000
    small = """return Array.from(document.querySelectorAll("td, th, p, figcaption, small"))
        .filter((e) => e.textContent.trim() && parseFloat(getComputedStyle(e).fontSize) < 12).length"""
    assert page.execute_script(small) == 0


def test_the_slider_recomputes_the_rates_by_keyboard(page: webdriver.Chrome) -> None:
    frozen = verdict.build(DEV, TEST)["threshold"]
    assert rates(page) == expected(frozen)
    slide, said = page.find_element("id", "slide"), page.find_element("id", "said")
    stops = [0.0, *sorted(set(TEST.p_live[TEST.scored].tolist())), 1.0]
    seen = set()
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.PAGE_UP, Keys.END, Keys.HOME, Keys.ARROW_RIGHT):
        slide.send_keys(key)
        threshold = float(page.execute_script("return document.getElementById('at').textContent"))
        index = int(slide.get_attribute("value"))
        exact = slider.data(TEST, frozen)["stops"][index]
        assert threshold == pytest.approx(exact, abs=5e-5) and stops[0] <= exact <= stops[-1]
        assert rates(page) == expected(exact)
        assert said.text.startswith("Not the verdict") and expected(exact)["hter"] in said.text.replace(
            "\N{NO-BREAK SPACE}", " "
        )
        seen.add(exact)
    assert {0.0, 1.0} <= seen and len(seen) == 6
    back = page.find_element("id", "back")
    back.send_keys(Keys.ENTER)
    assert rates(page) == expected(frozen) and "frozen" in said.text and not back.is_enabled()


def test_everything_is_reached_by_keyboard(page: webdriver.Chrome) -> None:
    """Tab goes through all that can be used, in the order of the page, and the focus is seen."""
    usable = "a, input, summary, button:not([disabled]), [tabindex='0']"
    wanted = page.execute_script("return document.querySelectorAll(arguments[0]).length", usable)
    script = """const e = document.activeElement, all = Array.from(document.querySelectorAll("*"));
        return [all.indexOf(e), e.tagName, getComputedStyle(e).outlineStyle]"""
    reached = []
    for _ in range(wanted):
        page.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(page.execute_script(script))
    places = [place for place, _, _ in reached]
    assert places == sorted(set(places)), "each once, in order"
    assert {"A", "INPUT", "SUMMARY", "DIV"} <= {tag for _, tag, _ in reached}
    assert all(style != "none" for _, _, style in reached)


def test_print_shows_everything(page: webdriver.Chrome) -> None:
    """Closed parts are open, nothing that scrolls is cut, all but the slider's controls has a place on the paper."""
    page.execute_script(
        """window.closed = -1;
        addEventListener("beforeprint", () => {
          window.closed = document.querySelectorAll("details:not([open])").length; })"""
    )
    assert page.execute_script("return document.querySelectorAll('details:not([open])').length") == 3
    assert chromium.pdf(page).startswith(b"%PDF-")
    assert page.execute_script("return window.closed") == 0
    assert page.execute_script("return document.querySelectorAll('details:not([open])').length") == 3, "closed again"
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    chromium.resize(page, 720)  # about A4 between its margins
    try:
        script = """const hidden = [], cut = [];
            for (const e of document.querySelectorAll("main *:not(script)")) {
              if (!e.checkVisibility() || (!e.getClientRects().length && e.textContent.trim())) hidden.push(e.tagName);
              if (e.scrollWidth > e.clientWidth + 1 && !["visible", "clip"].includes(getComputedStyle(e).overflowX))
                cut.push(e.outerHTML.slice(0, 90));
            }
            return [hidden, cut, document.documentElement.scrollWidth]"""
        hidden, cut, width = page.execute_script(script)
        assert sorted(hidden) == ["BUTTON", "INPUT"] and cut == [] and width <= 720
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_the_page_has_what_a_screen_reader_needs(page: webdriver.Chrome) -> None:
    tree = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles: dict[str, list[str]] = {}
    for node in tree:
        if not node.get("ignored"):
            roles.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    assert {"main", "navigation", "banner", "heading", "table", "slider", "image"} <= roles.keys(), sorted(roles)
    assert all(roles["image"]) and all(roles["slider"]) and all(roles.get("region", ["x"]))
    assert page.execute_script("return document.documentElement.lang") == "en"
