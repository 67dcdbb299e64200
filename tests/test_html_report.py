"""The HTML report: its content, and its behaviour in a real browser."""

from __future__ import annotations

import json
import math
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segplus.classes import ClassMap
from segplus.metrics.evaluator import ImageScores
from segplus.reporting.charts import choose_ticks, draw_curves, draw_matrix, format_tick
from segplus.reporting.examples import Example
from segplus.reporting.gallery import MOST_IMAGES, Gallery
from segplus.reporting.html_report import write_html_report

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
NAMES = ["sky", "road", "lane <b>marking</b> & kerb", "car"]
CLASSES = ClassMap.build(NAMES)
EVALUATION = {
    "images": 1233,
    "mean_iou": 0.6004,
    "mean_accuracy": 0.71,
    "overall_accuracy": 0.913,
    "mean_dice": 0.72,
    "per_category_iou": [0.91, 0.05, 0.5, math.nan],
    "per_category_accuracy": [0.95, 0.3, 0.6, math.nan],
    "per_category_precision": [0.9, 0.35, 0.61, math.nan],
    "per_category_dice": [0.95, 0.095, 0.667, math.nan],
    "confusion_matrix": [[900, 10, 90, 0], [7, 3, 0, 0], [0, 20, 30, 0], [0, 0, 0, 0]],
    "intervals": {"mean_iou": [0.58, 0.62], "per_image_mean_iou": [0.4, 0.6]},
    "per_image_mean_iou": 0.515,
    "mean_precision": 0.65,
    "mean_boundary_iou": 0.41,
    "per_category_boundary_iou": [0.6, 0.1, 0.53, math.nan],
    "trimap_iou": {"1": 0.2, "10": 0.5},
    "hausdorff_95": 12.345,
    "per_category_hausdorff_95": [3.25, 30.0, math.nan, math.nan],
    "surface_dice": 0.77,
    "per_category_surface_dice": [0.9, 0.5, 0.0, math.nan],
    "expected_calibration_error": 0.031,
    "protocol": {"name": "sliding", "window_px": [320, 448], "overlap": 0.5, "blending": "gaussian", "scales": [1, 2]},
}
METRICS = {
    "model": "tiny-segformer",
    "dataset": "street </script><script>alert(1)</script>",
    "evaluations": {"validation": EVALUATION | {"images": 7}, "test": EVALUATION},
    "training": {"seconds": 1812.34, "steps": 20},
    "environment": {"device": "cpu", "versions": {"torch": "2.13.0"}},
}
LOG = [{"step": step, "loss": 2.0 / step, "learning_rate": 1e-4} for step in range(1, 21)]
LOG += [{"step": step, "eval_loss": 1.0, "eval_mean_iou": step / 40} for step in (10, 20)]
LOG += [{"step": step, f"eval_iou/{NAMES[0]}": step / 25, f"eval_iou/{NAMES[3]}": math.nan} for step in (10, 20)]
LOG += [{"step": 20, "train_runtime": 3.0, "loss": math.nan}]


def make_example(name: str, width: int = 48, height: int = 32) -> Example:
    truth = np.zeros((height, width), dtype=np.uint8)
    truth[height // 2 :] = 1
    truth[:2] = 255
    prediction = np.where(truth == 255, 0, truth).astype(np.uint8)
    prediction[:, : width // 4] = 2
    return Example(name, Image.new("RGB", (width, height), (120, 140, 180)), truth, prediction, 0.5)


EXAMPLES = {
    "Worst": [make_example("a.jpg"), make_example("b.jpg", 640, 480)],
    "Median": [],
    "Best": [make_example("c.jpg", 1, 70)],
}


def fill_gallery(images: int) -> Gallery:
    """Return a gallery of equal images whose road has an IoU of 1 % more in each, up to 99 %."""
    gallery = Gallery(CLASSES, images)
    example = make_example("x")
    for index in range(images):
        hits = min(index, 99)
        counts = np.array([[50, hits, 0, 0], [100, 100, 0, 0], [50, hits, 0, 0]])
        scores = ImageScores(index, f"photo {index}.jpg", counts)
        gallery.add(example.image, example.truth, example.prediction, scores)
    return gallery


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "run" / "report.html"
    write_html_report(
        path,
        METRICS,
        CLASSES,
        EXAMPLES,
        LOG,
        "data:\n  path: <here>\n",
        {"torch": "2.13.0"},
        gallery=fill_gallery(100),
    )
    return path


class PageReader(HTMLParser):
    """Collects tags with their attributes, and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data.strip())


def test_page_needs_nothing_else(report: Path) -> None:
    page = PageReader(report.read_text(encoding="utf-8"))
    links = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert len(links) > 15
    assert all(link is not None and link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", report.read_text(encoding="utf-8"))
    assert [entry.name for entry in report.parent.iterdir()] == ["report.html"]


def test_names_of_people_cannot_become_markup(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert "alert(1)</script>" not in text
    assert "<b>marking" not in text
    assert "lane &lt;b&gt;marking&lt;/b&gt; &amp; kerb" in text
    embedded = re.search(r'type="application/json">(.*?)</script>', text, re.DOTALL)
    assert embedded is not None
    colors = [list(color) for color in CLASSES.colors]
    matrix = EVALUATION["confusion_matrix"]
    assert json.loads(embedded[1]) == {"names": NAMES, "colors": colors, "background": 0, "matrix": matrix}


def test_page_shows_the_figures(report: Path) -> None:
    text = PageReader(report.read_text(encoding="utf-8")).text
    for expected in (
        "60.0",
        ": 58.0 to 62.0",
        "51.5",
        ": 40.0 to 60.0",
        "65.0 %",
        "41.0 %",
        "12.35",
        "77.0 %",
        "3.1 %",
        "Trimap IoU, 10 px",
        "Protocol sliding: windows of 320 x 448 px, overlap 0.5, blending gaussian, scales 1, 2. Each image is",
        "sky (not coloured)",
        "All 100 images of the test split",
        "40.0 → 80.0 %",
        "Hausdorff distances in pixels",
        "1,233 images",
        "tiny-segformer",
        "1,812",
        "2.13.0",
        "a.jpg",
        "c.jpg",
        "Worst",
        "Best",
        "50.0",
        "94.3",
        "validation",
        "path: <here>",
    ):
        assert any(expected in entry for entry in text), expected
    assert "Median" not in text
    assert any("over 3 of 4 classes" in entry for entry in text)
    assert text.count("2.13.0") == 1


def test_largest_confusions_are_ranked_by_share_of_the_true_class(report: Path) -> None:
    listed = re.findall(
        r"<li><span><b>(.*?)</b> taken for <b>(.*?)</b></span><span class=\"figure\">(.*?) %",
        report.read_text(encoding="utf-8"),
    )
    assert listed[:2] == [("road", "sky", "70.0"), ("lane &lt;b&gt;marking&lt;/b&gt; &amp; kerb", "road", "40.0")]
    assert [entry[2] for entry in listed] == ["70.0", "40.0", "9.0", "1.0"]


def test_report_of_an_evaluation_alone(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    metrics = {"evaluations": {"val": {"mean_iou": 0.5, "per_category_iou": [0.5] * 4}}}
    write_html_report(path, metrics, CLASSES, {}, [], "", {})
    page = PageReader(path.read_text(encoding="utf-8"))
    ids = {attributes.get("id") for tag, attributes in page.tags if tag == "section"}
    assert ids == {"scores", "classes", "recipe"}
    with pytest.raises(ValueError, match="no evaluation of the split 'test'"):
        write_html_report(path, metrics, CLASSES, {}, [], "", {}, split="test")


def test_ticks_are_round_and_reach_over_the_values() -> None:
    assert choose_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert choose_ticks(3, 97) == [0, 20, 40, 60, 80, 100]
    assert choose_ticks(0.0001, 0.00019) == [0.0001, 0.00012, 0.00014, 0.00016, 0.00018, 0.0002]
    flat = choose_ticks(5, 5)
    assert flat[0] <= 5 <= flat[-1]
    assert [format_tick(value) for value in (0, 0.5, 1500, 20000, 0.00015)] == ["0", "0.5", "1500", "20k", "1.5e-4"]
    assert choose_ticks(0, 0)[0] <= 0 <= choose_ticks(0, 0)[-1]


def test_curves_stay_in_the_frame_and_long_ones_are_thinned() -> None:
    svg = draw_curves({"loss": [(step, math.sin(step / 100)) for step in range(5000)], "one": [(0, 0.0)]}, "step")
    points = re.search(r'points="([^"]*)"', svg)
    assert points is not None
    points_drawn = [tuple(map(float, pair.split(","))) for pair in points[1].split()]
    assert len(points_drawn) == 400
    assert all(0 <= x <= 360 and 0 <= y <= 236 for x, y in points_drawn)
    assert svg.count("<circle") == 1
    assert draw_curves({"loss": [(1, math.nan)]}, "step") == ""


def test_the_axis_of_a_share_ends_at_one() -> None:
    flat = {"recall": [(0.1, 1.0), (0.9, 1.0)]}
    assert ">1.2<" in draw_curves(flat, "threshold")
    assert ">1.2<" not in draw_curves(flat, "threshold", 1.0)
    assert ">1<" in draw_curves(flat, "threshold", 1.0)


@pytest.mark.parametrize("count", [1, 19, 150, 300])
def test_matrix_of_any_size(count: int) -> None:
    svg, offset, cell = draw_matrix(np.eye(count), [f"class {index}" for index in range(count)])
    assert cell * count <= 640
    assert f'width="{cell * count}"' in svg
    assert offset >= 24
    assert ("class 0" in svg) == (cell >= 11)
    assert len(svg) < 100_000


class Browser:
    """A headless chromium, spoken to through chromedriver's W3C calls.

    Args:
        profile: An empty folder for the browser's profile.
    """

    def __init__(self, profile: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.process = subprocess.Popen(
            [str(shutil.which("chromedriver")), f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self._await_driver()
            arguments = [
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-sync",
                "--disable-background-networking",
                "--disable-component-update",
                f"--user-data-dir={profile}",
                "--window-size=1280,900",
            ]
            options = {"args": arguments, "binary": BROWSER}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
            session = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self.session = f"/session/{session['sessionId']}"
        except BaseException:
            self.process.kill()
            raise

    def _await_driver(self) -> None:
        for _ in range(100):
            try:
                self.call("GET", "/status")
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
            else:
                return
        raise TimeoutError("chromedriver does not answer")

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with self.opener.open(request, timeout=60) as response:
                return json.loads(response.read())["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.loads(error.read())["value"]["message"]) from error

    def open(self, path: Path) -> None:
        self.call("POST", f"{self.session}/url", {"url": path.as_uri()})

    def run(self, script: str) -> Any:
        return self.call("POST", f"{self.session}/execute/sync", {"script": script, "args": []})

    def control(self, command: str, **parameters: Any) -> Any:
        return self.call("POST", f"{self.session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def click(self, selector: str) -> None:
        found = self.call("POST", f"{self.session}/element", {"using": "css selector", "value": selector})
        self.call("POST", f"{self.session}/element/{next(iter(found.values()))}/click", {})

    def press(self, *keys: str) -> None:
        actions = [{"type": event, "value": key} for key in keys for event in ("keyDown", "keyUp")]
        self.call("POST", f"{self.session}/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def read_log(self, log_type: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.call("POST", f"{self.session}/se/log", {"type": log_type})
        return entries

    def close(self) -> None:
        try:
            self.call("DELETE", self.session)
        finally:
            self.process.terminate()
            self.process.wait(timeout=10)


ARROW_UP, ARROW_DOWN, ARROW_LEFT, ARROW_RIGHT, TAB, ENTER, HOME, ESCAPE = (
    "\ue013",
    "\ue015",
    "\ue012",
    "\ue014",
    "\ue004",
    "\ue007",
    "\ue011",
    "\ue00c",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if not BROWSER or not shutil.which("chromedriver"):
        pytest.skip("chromium and chromedriver are not installed (Debian: apt-get install chromium chromium-driver)")
    driver = Browser(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.close()


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Browser]:
    """Open the report freshly; at the end nothing may stand in the console, and nothing may have left the machine."""
    browser.control("Emulation.clearDeviceMetricsOverride")
    browser.read_log("performance")  # what the browser's own start page asked for
    browser.open(report)
    yield browser
    assert browser.read_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.read_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert report.as_uri() in asked


def read_column(page: Browser, column: int) -> list[str]:
    rows: list[str] = page.run(
        f"return [...document.querySelectorAll('#class-table tbody tr')].map(row => row.cells[{column}].textContent)"
    )
    return rows


def test_click_sorts_the_table_and_absent_classes_stay_below(page: Browser) -> None:
    assert read_column(page, 0) == NAMES
    page.click("#class-table button[data-column='1']")
    assert read_column(page, 1) == ["91.0", "50.0", "5.0", "—"]
    assert page.run("return document.querySelectorAll('#class-table th')[1].getAttribute('aria-sort')") == "descending"
    page.click("#class-table button[data-column='1']")
    assert read_column(page, 1) == ["5.0", "50.0", "91.0", "—"]
    assert read_column(page, 0) == ["road", NAMES[2], "sky", "car"]
    page.click("#class-table button[data-column='0']")
    assert read_column(page, 0) == ["car", NAMES[2], "road", "sky"]
    assert page.run("return document.querySelectorAll('[aria-sort=none]').length") == 8
    page.click("#class-table button[data-column='7']")
    assert read_column(page, 7) == ["30.0", "3.2", "—", "—"]


def test_keyboard_sorts_the_table(page: Browser) -> None:
    page.run("document.querySelector(\"#class-table button[data-column='0']\").focus()")
    page.press(TAB, ENTER)
    assert read_column(page, 1) == ["91.0", "50.0", "5.0", "—"]


def test_slider_moves_by_key_and_by_pointer(page: Browser) -> None:
    clip = "return getComputedStyle(document.querySelector('.prediction')).clipPath"
    assert page.run(clip) == "inset(0px 0px 0px 50%)"
    page.run("document.querySelector('.cut').focus()")
    page.press(ARROW_RIGHT, ARROW_RIGHT)
    assert page.run(clip) == "inset(0px 0px 0px 52%)"
    assert page.run("return getComputedStyle(document.querySelector('.truth')).clipPath") == "inset(0px 48% 0px 0px)"
    page.press(HOME)
    assert page.run(clip) == "inset(0px 0px 0px 0%)"
    page.click(".cut")
    assert page.run(clip) == "inset(0px 0px 0px 50%)"


def test_slider_compares_what_is_chosen(page: Browser) -> None:
    seen = """
        return ['truth', 'prediction', 'errors'].filter(
          name => getComputedStyle(document.querySelector('.' + name)).visibility === 'visible')"""
    assert page.run(seen) == ["truth", "prediction"]
    page.click(".modes label:nth-of-type(2) span")
    assert page.run(seen) == ["prediction"]
    page.press(ARROW_RIGHT)
    assert page.run(seen) == ["errors"]
    page.run("const s = document.getElementById('strength'); s.value = 20; s.dispatchEvent(new Event('input'))")
    assert page.run("return getComputedStyle(document.querySelector('.prediction')).opacity") == "0.2"


def test_image_enlarges(page: Browser) -> None:
    width = "return Math.round(document.querySelector('.stage').getBoundingClientRect().width)"
    before = page.run(width)
    page.click(".enlarge")
    assert page.run(width) > 1.5 * before
    pressed = "return document.querySelector('.enlarge').getAttribute('aria-pressed')"
    assert page.run(pressed) == "true"
    page.press(ESCAPE)
    assert page.run(width) == before
    assert page.run(pressed) == "false"


def test_pointing_at_a_image_names_its_classes(page: Browser) -> None:
    point = """
        const stage = document.querySelectorAll('.stage')[{0}], box = stage.getBoundingClientRect();
        const position = {{clientX: box.left + {1} * box.width, clientY: box.top + {2} * box.height, bubbles: true}};
        stage.dispatchEvent(new PointerEvent('pointermove', position));
        return stage.parentElement.querySelector('.pointed').textContent"""
    assert page.run(point.format(1, 0.9, 0.75)) == "truth: road · prediction: road"
    assert page.run(point.format(1, 0.1, 0.25)) == f"truth: sky · prediction: {NAMES[2]}"
    assert page.run(point.format(1, 0.1, 0.001)) == f"truth: ignored · prediction: {NAMES[2]}"
    assert page.run(point.format(2, 0.5, 0.75)) == "truth: road · prediction: road"
    assert page.run(point.format(2, 0.01, 0.5)) == ""


def test_a_class_is_shown_alone(page: Browser) -> None:
    """Who cannot tell two colours apart presses a class in the legend; only its pixels stay coloured."""
    count = """
        const image = document.querySelectorAll('.{0}')[1], canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
        const context = canvas.getContext('2d');
        context.drawImage(image, 0, 0);
        const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
        let shown = 0;
        for (let i = 3; i < data.length; i += 4) shown += data[i] > 0;
        return shown"""
    settled = "return [...document.images].every(image => image.complete && image.naturalWidth > 0)"

    def count_shown(layer: str) -> int:
        deadline = time.monotonic() + 10
        while not page.run(settled) and time.monotonic() < deadline:
            time.sleep(0.02)
        return int(page.run(count.format(layer)))

    size = 640 * 480
    whole = [size // 2 + 2 * 640, size * 5 // 8]  # the sky, which fills most of the images, is transparent
    assert [count_shown("truth"), count_shown("prediction")] == whole
    page.run("document.querySelector(\".legend button[data-class='1']\").focus()")
    page.press(ENTER)
    assert [count_shown("truth"), count_shown("prediction")] == [size // 2, size * 3 // 8]
    assert page.run("return document.querySelectorAll('.legend [aria-pressed=true]').length") == 1
    page.click(".legend button[data-class='2']")
    assert [count_shown("truth"), count_shown("prediction")] == [size // 2, size * 5 // 8]
    point = """
        const stage = document.querySelectorAll('.stage')[1], box = stage.getBoundingClientRect();
        const position = {clientX: box.left + 0.9 * box.width, clientY: box.top + 0.25 * box.height, bubbles: true};
        stage.dispatchEvent(new PointerEvent('pointerdown', position));
        return stage.parentElement.querySelector('.pointed').textContent"""
    assert page.run(point) == "truth: sky · prediction: sky"
    page.click(".legend button[data-class='1']")
    page.click(".legend button[data-class='2']")
    assert [count_shown("truth"), count_shown("prediction")] == whole
    page.click(".legend button[data-class='0']")
    assert [count_shown("truth"), count_shown("prediction")] == [size // 2 - 2 * 640, size * 3 // 8]


def test_the_gallery_is_filtered_by_class_and_score(page: Browser) -> None:
    read = "return [...document.querySelectorAll('#thumbnails figcaption')].map(e => e.textContent)"
    choose = """
        const control = document.getElementById('gallery-{}');
        control.value = '{}';
        control.dispatchEvent(new Event('input'))"""
    shown = page.run(read)
    assert shown[:2] == ["photo 0.jpg25.0 %", "photo 1.jpg25.5 %"]  # the worst first: the means of sky 50 and road
    lengths = [len(shown)]
    while page.run("return !document.getElementById('gallery-more').hidden"):
        page.click("#gallery-more")
        lengths.append(len(page.run(read)))
    assert lengths == [24, 48, 72, 96, 100]
    page.run(choose.format("class", 1))
    page.run(choose.format("low", 30))
    page.run(choose.format("high", 34.5))

    assert page.run(read) == [f"photo {hits}.jpg{hits}.0 %" for hits in range(30, 35)]
    page.run(choose.format("order", "best"))
    assert page.run(read) == [f"photo {hits}.jpg{hits}.0 %" for hits in range(34, 29, -1)]
    assert page.run("return document.getElementById('gallery-found').textContent") == "Found: 5."
    seen = """
        return ['photo', 'truth', 'prediction', 'errors'].filter(
          name => getComputedStyle(document.querySelector('#thumbnails .' + name)).visibility === 'visible')"""
    assert page.run(seen) == ["photo", "prediction"]
    page.run("document.querySelector('#gallery input[value=errors]').click()")
    assert page.run(seen) == ["photo", "errors"]


def test_a_large_split_is_shown_in_part() -> None:
    gallery = Gallery(CLASSES, 2 * MOST_IMAGES + 1)
    example = make_example("x")
    counts = np.ones((3, 4), dtype=np.int64)
    for index in (0, 1, 2, 3, 6):
        scores = ImageScores(index, f"{index}", counts)
        gallery.add(example.image, example.truth, example.prediction, scores)
    assert [entry["name"] for entry in gallery.describe()] == ["0", "3", "6"]
    other = Gallery(CLASSES, 2 * MOST_IMAGES + 1)
    other.add(example.image, example.truth, example.prediction, ImageScores(9, "9", counts * 0))
    gallery.merge([other, gallery])
    entries = gallery.describe(background=0)
    assert [entry["name"] for entry in entries] == ["0", "3", "6", "9"]
    assert entries[0]["classes"] == dict.fromkeys("0123", 100.0)
    assert (entries[3]["score"], entries[3]["classes"]) == (None, {})
    assert sum(len(entries[0][layer]) for layer in ("photo", "truth", "prediction", "errors")) < 4000


def test_every_control_is_reached_by_keyboard(page: Browser) -> None:
    page.run("document.querySelector('nav a').focus()")
    seen = set()
    for _ in range(80):
        page.press(TAB)
        described = "const e = document.activeElement; return e.className || e.id || e.name || e.tagName"
        seen.add(page.run(described))
    wanted = {"A", "mode", "strength", "class", "cut", "enlarge", "matrix-box", "SUMMARY", "BUTTON"}
    wanted |= {"layer", "gallery-class", "gallery-low", "gallery-high", "gallery-order"}
    assert wanted <= {"matrix-box" if "matrix-box" in name else name for name in seen}


def test_every_image_loads(page: Browser) -> None:
    sizes = page.run(
        "return [...document.querySelectorAll('#images img')].map(image => [image.complete, image.naturalWidth])"
    )
    assert len(sizes) == 12
    assert all(complete and width > 0 for complete, width in sizes)


def test_matrix_reads_out_its_cells(page: Browser) -> None:
    page.run("document.getElementById('matrix').focus()")
    page.press(ARROW_DOWN, ARROW_RIGHT, ARROW_RIGHT)
    text = "return document.getElementById('readout').textContent"
    assert page.run(text) == f"9.0 % of sky taken for {NAMES[2]} (90 pixels)"
    page.press(ARROW_LEFT, ARROW_LEFT, ARROW_UP)
    assert page.run(text) == "90.0 % of sky recognised (900 pixels)"
    page.press(ARROW_DOWN, ARROW_DOWN, ARROW_DOWN, ARROW_DOWN)
    assert page.run(text) == "car does not occur"


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_page_never_scrolls_sideways(page: Browser, width: int) -> None:
    page.control("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    too_wide = """
        return [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, pre'))
          .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80))"""
    assert page.run(too_wide) == []
    assert page.run("return document.documentElement.scrollWidth") <= width
    assert page.run("return parseFloat(getComputedStyle(document.querySelector('td')).fontSize)") >= 13


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_schemes(page: Browser, scheme: str) -> None:
    page.control("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    script = """
        const read = (name) => {
          const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim().slice(1);
          const full = hex.length === 3 ? [...hex].map(c => c + c).join('') : hex;
          const [r, g, b] = [0, 2, 4].map(i => parseInt(full.slice(i, i + 2), 16) / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        return ['--ink', '--soft', '--accent', '--second', '--third'].map(name => {
          const [low, high] = [read(name), read('--paper')].sort((a, b) => a - b);
          return (high + 0.05) / (low + 0.05);
        });"""
    contrasts = page.run(script)
    assert min(contrasts) >= 4.5  # WCAG 2.2, 1.4.3
    background = page.run("return getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 22, 26)"}[scheme]


def test_example_without_a_score_shows_its_errors_only(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    unscored = [replace(make_example("a.jpg"), score=None)]
    write_html_report(path, METRICS, CLASSES, {"Some": unscored}, [], "", {})
    assert '<span class="figure">25.0 % of pixels wrong</span>' in path.read_text(encoding="utf-8")


def test_frequencies_lie_on_a_logarithmic_axis(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    ticks = re.findall(r'<span style="left:([\d.]+)%">([\d.]+)</span>', text)
    assert ticks == [("0.0", "0.1"), ("33.3", "1"), ("66.7", "10"), ("100.0", "100")]
    rows = re.findall(r'class="predicted" style="left:([\d.]+)%"></i><i style="left:([\d.]+)%">', text)
    total = 1060
    expected = [(907, 1000), (120, 50), (33, 10), (0, 0)]
    for (predicted, truth), (predicted_pixels, truth_pixels) in zip(rows, expected, strict=True):
        for position, pixels in ((predicted, predicted_pixels), (truth, truth_pixels)):
            share = pixels / total
            assert float(position) == pytest.approx(
                max(0.0, 100 * (1 + math.log10(share) / 3)) if share else 0.0, abs=0.06
            )
