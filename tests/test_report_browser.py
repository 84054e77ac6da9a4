"""The page in a real browser: at every width, in the dark, on paper, and by the keyboard."""

import base64
import io
import shutil

import numpy as np
import pytest
from PIL import Image
from records import log_line, record, scores

from fairdd_jax import report

pytest.importorskip("selenium")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="no Chromium with its driver"),
]
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
)


@pytest.fixture(scope="module")
def browser():
    """A browser without a window."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in FLAGS.split():
        options.add_argument(flag)
    with webdriver.Chrome(options=options, service=Service(DRIVER)) as driver:
        yield driver


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A page of two runs with many groups and long names."""
    classes = ("a class with quite a long name", "dog")
    groups = tuple(f"group {index}" for index in range(12))
    cells = np.linspace(0, 1, 24).reshape(2, 12)
    runs = []
    for name in ("a_run_with_a_long_name_ipc10_seed0", "two"):
        evaluations = [scores(cells, step=2), scores(cells, step=4)]
        run = record(name, classes=classes, groups=groups, evaluations=evaluations,
                     log=[log_line(2), log_line(4)])  # fmt: skip
        run.results["dataset"]["train_cell_counts"] = np.ones((2, 12), int).tolist()
        runs.append(run)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report.page(runs))
    return path.as_uri()


def show(browser, address, *, width, scheme="light", media=""):
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    browser.get(address)


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_only_tables_scroll_sideways(browser, address, width):
    show(browser, address, width=width)
    wide = browser.execute_script("return document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0
    beyond = browser.execute_script("""
        return [...document.querySelectorAll("p, h1, h2, h3, svg, pre, .grid img")]
            .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
            .map(e => e.outerHTML.slice(0, 80))""")
    assert beyond == []


def luminance(colour):
    channels = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(browser, address, scheme):
    """At least 4.5, as WCAG 2.1 asks for; the number in the darkest cell included."""
    show(browser, address, width=1280, scheme=scheme)
    pixels = np.asarray(Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("L"))
    assert (np.median(pixels) > 128) == (scheme == "light")
    colours = browser.execute_script("""
        const ground = getComputedStyle(document.body).backgroundColor;
        const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
        const shown = colour => {
            canvas.fillStyle = ground; canvas.fillRect(0, 0, 1, 1);
            canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
            const [r, g, b] = canvas.getImageData(0, 0, 1, 1).data;
            return `rgb(${r}, ${g}, ${b})`;
        };
        return [...document.querySelectorAll("p, td, th, svg text, pre")].map(e => {
            const style = getComputedStyle(e);
            const ink = e.tagName == "text" ? style.fill : style.color;
            return [shown(ink), shown(style.backgroundColor), e.textContent.slice(0, 40)];
        })""")
    assert len(colours) > 100
    for ink, ground, text in colours:
        high, low = sorted([luminance(ink), luminance(ground)], reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ink, ground)


def test_tables_that_scroll_are_reached_by_the_keyboard(browser, address):
    show(browser, address, width=390)
    scrolling = browser.execute_script("""
        return [...document.querySelectorAll("*")].filter(e => e.scrollWidth > e.clientWidth + 1
            && getComputedStyle(e).overflowX == "auto").map(e => [e.tabIndex, e.ariaLabel])""")
    assert len(scrolling) > 3
    assert all(index == 0 and label for index, label in scrolling)


def test_it_prints(browser, address):
    show(browser, address, width=1280)
    content = browser.execute_cdp_cmd("Page.printToPDF", {})["data"]
    pages = base64.b64decode(content).count(b"/Type /Page\n")
    assert 2 <= pages <= 12


def test_the_browser_has_nothing_to_complain_of(browser, address):
    browser.get_log("browser")  # of other tests
    show(browser, address, width=1280)
    assert [entry["message"] for entry in browser.get_log("browser")] == []
