"""The editor in a real browser: strokes of the mouse become edits, and nothing is lost by a reload."""

from __future__ import annotations

import re

import chromium
import pytest
import torch
from studio import pixels_of, serving, small

from reprise.data import scenes
from reprise.data.scenes import Label, Roof
from reprise.papers.rewriting import editable as editable_module
from reprise.papers.rewriting.metrics import grown, psnr
from reprise.papers.rewriting.request import bounding_box
from reprise.papers.rewriting.scene_requests import largest_piece
from reprise.randomness import generator as seeded

app = pytest.importorskip("reprise.papers.rewriting.editor.app", reason="the extra [editor] is not installed")
chromium.needed()


@pytest.fixture(scope="module")
def browser():
    with chromium.launched() as browser:
        yield browser


@pytest.fixture
def opened(browser):
    """Opens pages that must not complain, nor ask anybody but the editor."""
    complaints, context = [], browser.new_context(viewport={"width": 1280, "height": 800})

    def new(address):
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: r.url.startswith((address.split("#")[0], "data:")) or complaints.append(r.url))
        page.goto(address)
        return Page(page)

    yield new
    context.close()
    assert complaints == []


class Page:
    """What a person does."""

    def __init__(self, page):
        self.page = page
        self.idle()

    def idle(self):
        self.page.wait_for_selector("body[data-state=idle]", timeout=60_000)
        return self

    def get(self, name):
        return self.page.get_by_test_id(name)

    def press(self, name):
        self.get(name).click()
        return self.idle()

    def tool(self, name):
        self.get(f"tool-{name}").check(force=True)

    def drag(self, number, *points):
        """The mouse goes down at the first point and up at the last; points are shares of the image (x, y)."""
        self.get(f"image-{number}").scroll_into_view_if_needed()
        box = self.get(f"image-{number}").bounding_box()
        at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        self.page.mouse.move(*at[0])
        self.page.mouse.down()
        for point in at[1:]:
            self.page.mouse.move(*point, steps=5)
        self.page.mouse.up()

    def shown(self, number, which="after"):
        """The pixels of an image ``[3, s, s]`` in 0..1."""
        source = self.page.locator(f".tile:has([data-testid=image-{number}]) img.{which}").get_attribute("src")
        return torch.from_numpy(pixels_of(source)[..., :3].copy()).permute(2, 0, 1).float() / 255

    def message(self):
        return self.get("message").inner_text()

    def show(self, numbers):
        self.get("numbers").fill(",".join(map(str, numbers)))
        return self.press("show")


@pytest.fixture(scope="module")
def address():
    """Of an editor of a small network."""
    with serving(app.make_app(small())) as address:
        yield f"{address}/"


# An edit of scenes, from the first stroke on


@pytest.fixture(scope="module")
def world():
    """The scenes that the default generator draws, with labels, and what they would be with domes for flat roofs."""
    factors = scenes.sample(1000, 2, seeded(editable_module.SEED))
    other = factors.but(roof=torch.where(factors.roof == Roof.FLAT, int(Roof.DOME), factors.roof))
    drawn, labels = scenes.render(factors, 32)
    truth, _ = scenes.render(other, 32)
    return factors, labels, drawn, truth


def having(world, roof, count):
    """Numbers of scenes without a watermark that have a roof and no other kind but spires."""
    factors = world[0]
    good = (factors.roof == roof).any(1) & ((factors.roof == roof) | (factors.roof == Roof.SPIRE)).all(1)
    return (good & (factors.mark == 0)).nonzero().ravel().tolist()[:count]


def outline(world, number, label, above=0):
    """The box around a thing in shares of the image: its first and its last corner."""
    box = bounding_box(largest_piece(world[1][number] == int(label)), "test")
    return ((box.left - 0.2) / 32, (box.top - above - 0.2) / 32), ((box.right + 0.2) / 32, (box.bottom + 0.2) / 32)


def test_flat_roofs_become_domes_and_back(opened, world):
    (dome,), flat = having(world, Roof.DOME, 1), having(world, Roof.FLAT, 10)
    spire = having(world, Roof.SPIRE, 1)
    numbers, unseen = [dome, *spire, *flat], flat[3:]
    _, _, drawn, truth = world
    with serving(app.make_app(editable_module.load())) as address:
        page = opened(f"{address}/").show(numbers)
        plain = {n: page.shown(n) for n in numbers}
        page.tool("rectangle")
        page.drag(dome, *outline(world, dome, Label.DOME))
        page.press("copy")
        page.drag(flat[0], *outline(world, flat[0], Label.FLAT_ROOF, above=4))
        page.press("paste")
        for number in flat[1:3]:
            page.drag(number, *outline(world, number, Label.FLAT_ROOF, above=1))
            page.press("add-context")
        assert page.get("unmark-context").count() == 2
        page.press("execute")
        assert re.fullmatch(rf"Layer \d changed by a rank of 1: image {dome} into {flat[0]}\.", page.message())
        edited = {n: page.shown(n) for n in numbers}
        assert all(torch.equal(page.shown(n, "before"), plain[n]) for n in numbers)

        # it changes what it should, in images that nobody marked, and leaves the rest
        wanted = torch.stack([truth[n] for n in unseen])
        gain = [psnr(2 * torch.stack([images[n] for n in unseen]) - 1, 2 * wanted - 1) for images in (plain, edited)]
        assert gain[1] > gain[0] + 1
        apart = torch.stack([(edited[n] - plain[n]).abs().mean(0) for n in unseen])
        meant = grown(torch.stack([(truth[n] - drawn[n]).abs().sum(0) > 0.1 for n in unseen]), 1)
        assert apart[meant].mean() > 4 * apart[~meant].mean()

        page.page.reload()
        page.idle()
        assert all(torch.equal(page.shown(n), edited[n]) for n in numbers)
        assert page.get("unmark-context").count() == 2
        page.press("undo")
        assert all(torch.equal(page.shown(n), plain[n]) for n in numbers)
        assert page.message() == f"Undone: image {dome} into {flat[0]}."


# The rest, on a small network


@pytest.fixture
def page(opened, address):
    page = opened(address)
    page.get("layer").select_option("5")
    page.idle().get("steps").fill("20")
    page.get("steps").press("Enter")
    return page.idle()


def mark(page):
    """A copy and a paste by strokes of the brush."""
    page.drag(0, (0.2, 0.2), (0.4, 0.4))
    page.press("copy")
    page.drag(1, (0.6, 0.6), (0.8, 0.6))
    page.press("paste")


def test_a_stroke_of_the_brush_is_the_mask(page):
    page.drag(0, (0.25, 0.5), (0.75, 0.5))
    page.press("copy")
    url = page.page.locator("#slot-copy .mask").evaluate("mask => mask.style.maskImage")
    found = pixels_of(re.search(r"data:[^\")]*", url).group())[..., 3]
    rows, columns = (found > 0).any(1).nonzero()[0], (found > 0).any(0).nonzero()[0]
    assert (rows.min(), rows.max()) == (7, 8)  # of 16: 26 of 256 wide
    assert columns.min() in (3, 4)
    assert columns.max() in (11, 12)


def test_the_eraser_takes_paint_off_and_one_mask_is_there_at_a_time(page):
    page.drag(0, (0.25, 0.5), (0.75, 0.5))
    page.tool("eraser")
    page.get("brush-size").fill("80")
    page.drag(0, (0.1, 0.5), (0.9, 0.5))
    page.press("copy")
    assert page.message() == "Paint on an image first."
    page.tool("brush")
    page.drag(0, (0.25, 0.5), (0.75, 0.5))
    page.drag(2, (0.25, 0.5), (0.75, 0.5))
    page.press("copy")
    assert page.get("unmark-copy").get_attribute("aria-label") == "Take back copy in image 2"


def test_everything_can_be_done_with_keys(page):
    page.get("tool-brush").focus()
    page.page.keyboard.press("ArrowRight")  # to the rectangle
    for number, key in ((0, "c"), (1, "v"), (2, "a")):
        page.get(f"image-{number}").focus()
        for stroke in ("ArrowLeft", "ArrowUp", "Shift+ArrowRight", "Space", key):
            page.page.keyboard.press(stroke)
        page.idle()
    assert [page.get(f"unmark-{what}").count() for what in ("copy", "paste", "context")] == [1, 1, 1]
    page.get("execute").focus()
    page.page.keyboard.press("Enter")
    page.idle()
    assert page.message().startswith("Layer 5 changed")
    page.get("strength-0").focus()
    page.page.keyboard.press("Home")
    page.idle()
    assert torch.equal(page.shown(3), page.shown(3, "before"))


def test_strength_order_and_original(page):
    mark(page)
    page.get("name").fill("mine")
    page.press("execute").press("execute")
    assert page.get("edits").locator(".name").all_inner_texts() == ["mine", "image 0 into 1"]
    page.press("down-0")
    assert page.get("edits").locator(".name").all_inner_texts() == ["image 0 into 1", "mine"]
    both = page.shown(3)
    page.press("remove-0")
    assert not torch.equal(page.shown(3), both)
    page.get("strength-0").fill("0.5")
    page.idle()
    assert page.get("edits").get_by_role("listitem").count() == 1
    page.press("toggle-original")
    assert page.get("toggle-original").get_attribute("aria-pressed") == "true"
    assert page.page.locator("#grid").evaluate("grid => grid.style.getPropertyValue('--split')") == "100%"
    page.page.reload()
    page.idle()
    assert page.get("toggle-original").get_attribute("aria-pressed") == "true"
    assert page.get("strength-0").input_value() == "0.5"


def test_a_search_and_the_matches(page):
    page.press("matches")
    assert "There is nothing to look for yet" in page.message()
    page.drag(7, (0.4, 0.4), (0.6, 0.6))
    page.press("search")
    assert page.message().startswith("The 24 images that match best")
    page.press("matches")
    glow = page.page.locator("img.match:visible")
    assert glow.count() == 24
    page.press("clear")
    assert glow.count() == 0


def begin(page):
    """An edit that takes long enough to be looked at."""
    page.get("steps").fill("5000")
    page.get("steps").press("Enter")
    page.idle()
    mark(page)
    page.get("execute").click()
    page.page.get_by_text(re.compile(r"of 5000, distance")).wait_for()


def test_a_running_search_is_seen_and_cancelled(page):
    begin(page)
    assert page.get("execute").is_disabled()
    page.page.reload()
    page.get("cancel").click()
    page.idle()
    assert page.message() == "Cancelled; nothing was changed."
    assert page.get("execute").is_enabled()


def test_answers_that_come_late_are_not_believed(page):
    """The server's answer to the first press reaches the page after its answer to the second."""
    held = []

    def hold(route):
        if held:
            return route.continue_()
        held.append((route, route.fetch()))

    page.page.route("**/show", hold)
    page.get("numbers").fill("7")
    page.get("show").click()
    page.page.wait_for_selector("body[data-state=busy]")
    page.get("numbers").fill("9")
    page.get("show").click()
    page.get("image-9").wait_for()
    route, answer = held[0]
    route.fulfill(response=answer)
    page.idle()
    assert page.get("image-9").count() == 1
    assert page.get("image-7").count() == 0


def test_another_session_in_the_address_is_opened_whatever_the_first_still_does(page, opened, address):
    other = opened(address)
    there = other.page.url.split("#")[1]
    begin(page)
    here = page.page.url.split("#")[1]
    page.page.evaluate(f"location.hash = '{there}'")
    page.get("unmark-copy").wait_for(state="detached")
    assert page.idle().page.url.endswith(there)
    page.page.evaluate(f"location.hash = '{here}'")
    page.get("cancel").click()
    page.idle()
    assert page.message() == "Cancelled; nothing was changed."


def test_files_are_saved_and_loaded(page, opened, address, tmp_path):
    mark(page)
    page.press("execute")
    for name in ("request", "edits", "grid"):
        with page.page.expect_download() as download:
            page.get(f"save-{name}").click()
        download.value.save_as(tmp_path / name)
    assert (tmp_path / "grid").read_bytes().startswith(b"\x89PNG")
    other = opened(address)
    assert other.get("unmark-copy").count() == 0, "another tab has a session of its own"
    other.get("load-request").set_input_files(tmp_path / "request")
    other.idle().get("load-edits").set_input_files(tmp_path / "edits")
    other.idle()
    assert other.get("unmark-copy").count() == 1
    assert torch.equal(other.shown(3), page.shown(3))
    other.get("load-edits").set_input_files(tmp_path / "grid")
    other.idle()
    assert other.message().startswith("The file is no file of edits")


def test_a_session_that_is_gone_is_said_to_be(opened, address):
    page = opened(f"{address}#session=nobody")
    assert page.message().startswith("There is no such session")
    assert page.message().endswith("A new one was opened.")
    page.show([5])
    assert page.get("image-5").count() == 1
    page.show(["0-1000000"])
    assert "names images that are not there" in page.message()


def test_every_control_has_a_name(page):
    nameless = page.page.evaluate(
        """() => {
          const name = (e) => e.textContent.trim() || e.getAttribute("aria-label") || e.labels?.[0]?.textContent.trim();
          const controls = [...document.querySelectorAll("button, a, input, select, canvas")];
          return controls.filter((e) => !name(e)).map((e) => e.outerHTML);
        }"""
    )
    assert nameless == []


def test_nothing_is_wider_than_the_window(page):
    for width in (1280, 1366, 800, 420):
        page.page.set_viewport_size({"width": width, "height": 768})
        assert page.page.evaluate("document.documentElement.scrollWidth") <= width
