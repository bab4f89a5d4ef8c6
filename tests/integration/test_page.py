"""The report in a real browser: widths, colour schemes, keyboard, printing, accessibility, and no network."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from orchestrator import report
from orchestrator.report.server import listen
from orchestrator.store.records import ExperimentRecords
from orchestrator.store.storage import Storage
from tests.conftest import TOOLS, within
from tests.unit.synthetic import LABELS, make_records

AXE = TOOLS / "axe" / "axe.min.js"
BROWSER = TOOLS / "browser"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not BROWSER.exists():
        pytest.skip("there is no browser; make tools installs one")
    chromium = BROWSER.read_text().strip()
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything in it that planted records can have."""
    root = tmp_path_factory.mktemp("page")
    records = make_records(
        root / "x",
        {"keras": [0.5, 0.6, 0.7], "torch": [0.6, 0.65, 0.8], "third": [0.7, 0.75, 0.8]},
        epochs=12,
        speed={"keras": 900.0, "torch": 12000.0, "third": 5000.0},
    )
    records.keep_disagreements(
        {
            "indices": np.array([550, 900]),
            "labels": LABELS[[550, 900]],
            "images": np.zeros((2, 4, 4, 1), np.uint8),
            "test_labels": LABELS,
        }
    )
    report.write(records)
    return root / "x" / "report" / "report.html"


def opened(browser: Browser, file: Path, *, width: int = 1280, scheme: str = "light") -> Page:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.requested = []  # type: ignore[attr-defined]
    page.on("request", lambda request: page.requested.append(request.url))  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto(file.as_uri())
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 768, 1280])
def test_it_is_usable_at_every_width_and_in_the_dark(
    browser: Browser, page_file: Path, width: int, scheme: str
) -> None:
    page = opened(browser, page_file, width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing is wider than the screen"
    asked = [url for url in page.requested if not url.startswith(("file:", "data:"))]  # type: ignore[attr-defined]
    assert asked == [], "it needs no network"
    page.add_script_tag(path=str(AXE))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    serious = [
        (violation["id"], violation["nodes"][0]["html"][:200])
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
    assert serious == []
    page.context.close()


def column(page: Page, number: int) -> list[str]:
    return page.locator("table.sortable").first.locator(f"tbody tr > :nth-child({number})").all_inner_texts()


def test_tables_sort_by_number_with_mouse_and_keyboard(browser: Browser, page_file: Path) -> None:
    page = opened(browser, page_file)
    head = page.locator("table.sortable").first.locator("thead th").nth(3)
    head.locator("button").click()
    assert [cell.split(" ")[0] for cell in column(page, 4)] == ["900", "5,000", "12,000"]
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert [name.split("\n")[0] for name in column(page, 1)] == ["torch", "third", "keras"]
    assert head.get_attribute("aria-sort") == "descending"
    page.context.close()


def test_every_figure_is_drawn_and_has_its_data_as_a_table_for_the_keyboard(
    browser: Browser, page_file: Path
) -> None:
    page = opened(browser, page_file)
    page.evaluate("document.querySelectorAll('details:has(figure)').forEach(more => more.open = true)")
    figures = page.locator("figure.chart")
    assert figures.count() > 8
    for number in range(figures.count()):
        figure = figures.nth(number)
        figure.scroll_into_view_if_needed()
        page.wait_for_function(
            "plot => plot.querySelector('.main-svg')", arg=figure.locator(".plot").element_handle()
        )
        assert figure.locator(".plot").get_attribute("aria-label")
        figure.locator("summary").focus()
        page.keyboard.press("Enter")
        figure.locator("tbody tr").first.wait_for()
    claim = figures.first.locator("tbody tr").nth(1)
    assert claim.locator("th, td").all_inner_texts() == ["1", "60.00 %", "65.00 %", "75.00 %"]
    page.context.close()


def test_the_legend_takes_an_arm_out_of_its_sections_figures(browser: Browser, page_file: Path) -> None:
    page = opened(browser, page_file)
    section = page.locator("section", has=page.locator("#learning"))
    section.scroll_into_view_if_needed()
    lines = section.locator(".plot").first.locator(".scatter .js-line[style*='rgb(0, 114, 178)']")
    lines.first.wait_for(state="attached")
    button = section.get_by_role("button", name="keras")
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert lines.count() == 0
    page.context.close()


@pytest.mark.parametrize(("scheme", "ink"), [("light", "rgb(26, 29, 33)"), ("dark", "rgb(232, 234, 237)")])
def test_figures_follow_the_colour_scheme(browser: Browser, page_file: Path, scheme: str, ink: str) -> None:
    page = opened(browser, page_file, scheme="dark" if scheme == "light" else "light")
    title = page.locator(".plot").first.locator(".xtitle")
    title.wait_for()
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.wait_for_function(
        "ink => getComputedStyle(document.querySelector('.plot .xtitle')).fill === ink", arg=ink
    )
    page.context.close()


def test_recipes_show_their_differences_alone_and_images_are_filtered(
    browser: Browser, page_file: Path
) -> None:
    page = opened(browser, page_file)
    rows = page.locator("table.configuration tbody tr:visible")
    everything = rows.count()
    page.get_by_label("Only differences").check()
    assert 0 < rows.count() < everything
    pictures = page.locator(".gallery li:visible")
    assert pictures.count() == 2
    page.get_by_label("Search classes").fill("no such class")
    assert pictures.count() == 0 and page.locator(".filter output").inner_text() == "0 of 2 images"
    page.context.close()


def test_it_prints_with_closed_tables_open_and_in_light_colours(
    browser: Browser, page_file: Path, tmp_path: Path
) -> None:
    page = opened(browser, page_file, scheme="dark")
    closed = page.locator("details:not([open])").count()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0 < closed
    assert page.locator(".plot").count() == page.locator(".plot .main-svg:first-child").count()
    fills = page.locator(".xtitle").evaluate_all(
        "titles => titles.map(title => getComputedStyle(title).fill)"
    )
    assert {*fills} == {"rgb(26, 29, 33)"}, "figures are drawn for paper"
    assert all(
        width <= 680 for width in page.locator(".plot").evaluate_all("all => all.map(one => one.clientWidth)")
    )
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() == closed
    page.emulate_media(media="print")
    breaks = page.locator("h2, h3").evaluate_all(
        "heads => heads.map(head => getComputedStyle(head).breakAfter)"
    )
    assert {*breaks} == {"avoid"}, "no heading is left alone at the end of a page"
    page.pdf(path=str(tmp_path / "report.pdf"))
    assert (tmp_path / "report.pdf").stat().st_size > 10_000
    page.context.close()


def test_fifty_arms_are_reported_within_ten_seconds_and_megabytes_on_thirty_screens(
    browser: Browser, tmp_path: Path
) -> None:
    records = make_records(
        tmp_path / "many",
        {f"arm{number:02d}": [0.4 + number / 100 + seed / 50 for seed in range(3)] for number in range(50)},
        epochs=10,
    )

    def cpu_seconds() -> float:
        started = time.process_time()
        report.write(records)
        return time.process_time() - started

    assert within(10, cpu_seconds)
    file = tmp_path / "many/report/report.html"
    assert file.stat().st_size < 10e6
    page = opened(browser, file)
    assert page.evaluate("document.documentElement.scrollHeight") < 30 * 900
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    page.context.close()


def test_a_hundred_runs_of_two_hundred_epochs_make_a_small_page_quickly(tmp_path: Path) -> None:
    records: ExperimentRecords = make_records(
        tmp_path / "big",
        {f"arm{number}": [0.5 + seed / 100 for seed in range(20)] for number in range(5)},
        epochs=200,
    )

    def cpu_seconds() -> float:
        started = time.process_time()
        report.write(records)
        return time.process_time() - started

    assert within(5, cpu_seconds)
    assert (tmp_path / "big/report/report.html").stat().st_size < 10e6


def test_served_reports_work_under_their_policy_and_cannot_read_each_other(
    browser: Browser, page_file: Path
) -> None:
    root = page_file.parents[2]
    report.write(make_records(root / "other", {"keras": [0.5, 0.6, 0.7], "torch": [0.6, 0.65, 0.8]}))
    server = listen(Storage(str(root)), "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_address[1]}"
    page = browser.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(base)
    page.get_by_role("searchbox").fill("nothing like it")
    assert page.locator("li:visible").count() == 0
    page.get_by_role("searchbox").fill("OTHER")
    assert page.locator("li:visible").count() == 1
    page.goto(f"{base}/x/report/report.html")
    assert page.locator("img").first.evaluate("image => image.decode().then(() => image.naturalWidth > 0)")
    page.locator(".plot .main-svg").first.wait_for()
    assert complaints == []
    read = "fetch('/other/report/results.json').then(response => response.text()).catch(() => 'refused')"
    assert page.evaluate(read) == "refused"
    server.shutdown()
    server.server_close()
