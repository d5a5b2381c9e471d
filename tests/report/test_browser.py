"""The page in a real browser: charts are drawn, sorting, filtering and links work, nothing sticks out or complains.

The page stands in a frame of the wanted width, since a headless window cannot be as narrow as a telephone. A probe in
it looks around and reports to the frame's owner, which Chromium prints when it is done.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)

OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-logging=stderr",
    "--allow-file-access-from-files",  # so that the frame belongs to its owner
    "--window-size=1500,950",
    "--virtual-time-budget=60000",
)

PROBE = """
<script type="module">
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
parent.postMessage(JSON.stringify(found), "*");
</script>
"""

OWNER = """<!doctype html><pre id="found"></pre><iframe src="index.html" width="{width}" height="900"></iframe>
<script>addEventListener("message", (event) => { document.getElementById("found").textContent = event.data; });</script>
"""


def looked_at(whole: str, width: int, folder) -> tuple[dict, str]:
    """What the probe found at this width, and what the browser's console said."""
    before, end, after = whole.rpartition("</body>")
    (folder / "index.html").write_text(before + PROBE + end + after, encoding="utf-8")
    (folder / "owner.html").write_text(OWNER.replace("{width}", str(width)))
    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    address = (folder / "owner.html").as_uri()
    done = subprocess.run([*command, address], capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    assert found, console
    assert found[1], console
    return json.loads(html.unescape(found[1])), console


@pytest.mark.skipif(CHROMIUM is None, reason=f"no browser: none of {', '.join(NAMES)} is on the path")
@pytest.mark.parametrize("width", [1440, 390])
def test_the_page_works_in_a_browser(whole, views, width, tmp_path):
    found, console = looked_at(whole, width, tmp_path)
    assert console == ""
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
