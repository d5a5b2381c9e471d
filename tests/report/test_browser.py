"""The page in a real browser: charts are drawn, sorting, filtering and links work, nothing sticks out or complains."""

from __future__ import annotations

import chromium
import pytest

chromium.needed()

PROBE = """async () => {
const found = {};
const $$ = (selector) => [...document.querySelectorAll(selector)];
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const visible = () => $$("#all-claims tbody tr").filter((row) => !row.hidden);
const choose = (name, value) => {
  const field = document.getElementById("filters").elements[name];
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
};
while (!$$(".plot").every((plot) => plot.dataset.drawn === "yes")) await pause(50);
found.plots = $$(".plot").length;
found.marks = $$(".plot svg").filter((svg) => svg.querySelectorAll("path").length > 5).length;
found.wide = document.documentElement.scrollWidth - innerWidth;
found.fits = $$(".plot svg").every((svg) => svg.getBoundingClientRect().width <= svg.closest(".plot").clientWidth + 1);
found.claims = visible().length;
choose("paper", "dvrl");
found.dvrl = [...new Set(visible().map((row) => row.dataset.paper))];
choose("verdict", "REFUTED"); choose("scale", "cpu");
found.refuted = [...new Set(visible().map((row) => row.dataset.cpu))];
choose("text", "no such words"); found.none = visible().length;
choose("text", ""); choose("paper", ""); choose("verdict", "");
found.all = visible().length;
const seeds = $$("table.data th button").find((b) => b.textContent === "Hours to fit");
const numbers = () => [...seeds.closest("table").tBodies[0].rows].map((row) => parseFloat(row.cells[3].textContent));
seeds.click(); found.up = numbers();
seeds.click(); found.down = numbers();
const legend = document.querySelector(".legend button");
const points = () => legend.closest("figure").querySelectorAll(".plot path[aria-roledescription]").length;
const before = points(); legend.click(); await pause(300); found.fewer = points() < before;
const link = document.querySelector(".links a");
location.hash = link.hash; await pause(100);
found.opened = document.getElementById(link.hash.slice(1)).open;
const box = document.querySelector("details.numbers");
box.open = true; await pause(100); found.numbers = box.querySelectorAll("tbody tr").length;
return found;
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium.launched() as browser:
        yield browser


def looked_at(browser, whole: str, width: int, folder) -> tuple[dict, list[str]]:
    """What the probe found at this width, and what the browser's console said."""
    (folder / "index.html").write_text(whole, encoding="utf-8")
    page, console = browser.new_page(viewport={"width": width, "height": 900}), []
    page.on("console", lambda message: console.append(message.text))
    page.on("pageerror", lambda error: console.append(str(error)))
    page.goto((folder / "index.html").as_uri())
    found = page.evaluate(PROBE)
    page.close()
    return found, console


@pytest.mark.parametrize("width", [1440, 390])
def test_the_page_works_in_a_browser(browser, whole, views, width, tmp_path):
    found, console = looked_at(browser, whole, width, tmp_path)
    assert console == []
    panels = sum(len(figure.panels) for view in views for figure in view.figures if hasattr(figure, "panels"))
    claims = sum(len(view.claims) for view in views)
    assert (found["plots"], found["marks"]) == (panels, panels)
    assert found["wide"] <= 0
    assert found["fits"]
    assert (found["claims"], found["none"], found["all"]) == (claims, 0, claims)
    assert (found["dvrl"], found["refuted"]) == (["dvrl"], ["REFUTED"])
    assert found["up"] == sorted(found["up"])
    assert found["down"] == found["up"][::-1]
    assert found["fewer"]
    assert found["opened"]
    assert found["numbers"] > 3
