"""The editor's server: what it answers, what it refuses, and that it stays up."""

from __future__ import annotations

import io
import random
import threading

import numpy as np
import pytest
from PIL import Image
from studio import ROOF, WALL, Tab, error, new_client, pixels_of, torch_box, url

pytest.importorskip("uvicorn", reason="the extra [editor] is not installed")
from reprise.papers.rewriting.editor import store as store_module
from reprise.papers.rewriting.session import RewriteSession

# What it answers


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "html"), ("/editor.js", "javascript"), ("/painting.js", "javascript"), ("/editor.css", "css")],
)
def test_the_page_needs_nothing_from_elsewhere(client, path, kind):
    answer = client.get(path)
    assert answer.headers["content-type"].startswith(f"text/{kind}")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "http://" not in answer.text.replace("http://www.w3.org/", "")
    assert "https://" not in answer.text


def test_a_new_session_says_what_can_be_edited(tab, editable):
    state = tab.state
    assert (state["size"], state["images"], state["title"]) == (16, 1000, "small")
    assert state["layers"] == [{"number": n, "side": s} for n, s in ((2, 4), (3, 8), (4, 8), (5, 16), (6, 16))]
    assert (state["fingerprint"], state["busy"], state["edits"]) == (editable.fingerprint, None, [])
    assert tab.get().json() == state


def test_images_are_those_of_the_session(tab, editable):
    found = tab.images("0,7")
    before, _ = RewriteSession(editable).images([0, 7])
    expected = ((before[1].clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.array_equal(pixels_of(found["7"]["before"])[..., :3], expected)
    assert found["7"]["before"] == found["7"]["after"]
    assert found["7"]["match"] is None


def test_from_copy_to_edit_and_back(tab):
    plain = tab.ready().images()
    assert [mark["what"] for mark in tab.get().json()["marks"]] == ["copy", "paste", "context", "context"]
    started = tab.do("execute", name="mine")
    assert started["busy"]["kind"] == "Execute"
    events = tab.events()
    assert events[-1][0] == "end"
    end = events[-1][1]
    assert end["edits"] == [{"name": "mine", "layer": 5, "rank": 1, "strength": 1.0}]
    assert (end["message"], end["failed"]) == ("Layer 5 changed by a rank of 1: mine.", False)
    assert end["version"] > started["version"]
    changed = tab.images()
    assert all(changed[n]["after"] != plain[n]["after"] for n in changed)
    assert all(changed[n]["before"] == plain[n]["before"] for n in changed)
    tab.do("strength", place=0, strength=0.0)
    assert tab.images() == plain
    tab.do("strength", place=0, strength=1.0)
    assert tab.images() == changed
    assert tab.do("undo")["message"] == "Undone: mine."
    assert tab.images() == plain


def test_progress_is_told_while_it_works(tab, monkeypatch):
    steps = iter(range(1, 100))
    go = threading.Event()

    def slow(session, name, watch):
        for _ in range(3):
            watch(store_module.Progress("working", next(steps), 3, 0.5))
            go.wait(0.3)
        raise store_module.UserError("the mask is empty: paint a larger one.")

    monkeypatch.setattr(RewriteSession, "execute", slow)
    tab.ready().do("execute")
    events = tab.events()
    assert [name for name, _ in events] == ["progress"] * (len(events) - 1) + ["end"]
    assert ("working", 2, 3, 0.5) in [
        (e["phase"], e["step"], e["steps"], e["loss"]) for name, e in events if name == "progress"
    ]
    assert (events[-1][1]["message"], events[-1][1]["failed"]) == ("The mask is empty: paint a larger one.", True)


def test_other_requests_are_answered_meanwhile(tab, client, endless):
    tab.ready().do("execute")
    other = Tab(client).ready()
    assert len(other.images()) == 6
    assert len(tab.images()) == 6
    assert tab.get().json()["busy"]["kind"] == "Execute"
    tab.do("mark", what="context", number=9, mask=url(ROOF))  # marks may be prepared for the next edit
    for path, content in (("execute", {}), ("search", {}), ("undo", {}), ("move", {"place": 0, "to": 0})):
        assert "The session is busy (Execute)" in error(tab.post(path, **content), 409)
    assert "busy" in error(client.put(f"{tab.base}/request", content=b"{}"), 409)
    tab.do("cancel")
    assert tab.wait()["message"] == "Cancelled; nothing was changed."


def test_what_is_asked_for_is_what_was_marked_then(tab, client, monkeypatch):
    """Also where it has to wait for others' work before it begins."""
    wait, execute = threading.Event(), RewriteSession.execute

    def late(session, name, watch):
        assert wait.wait(30)
        return execute(session, name, watch)

    expected = Tab(client).ready()
    expected.do("execute")
    expected = expected.wait() and expected.images()
    monkeypatch.setattr(RewriteSession, "execute", late)
    tab.ready().do("execute")
    tab.do("settings", layer=3, rank=1, steps=20, ridge=0.1)
    tab.do("clear")
    wait.set()
    assert tab.wait()["message"] == "Layer 5 changed by a rank of 1: image 0 into 1."
    assert tab.images() == expected


def test_a_search_is_not_disturbed_by_another_layer(tab, monkeypatch):
    go, begun, search = threading.Event(), threading.Event(), RewriteSession.search

    def held(session, limit, watch):
        def look(progress):
            if progress.phase == "looking through the images":
                begun.set()
                assert go.wait(30)

        return search(session, limit, look)

    monkeypatch.setattr(RewriteSession, "search", held)
    tab.ready().do("search")
    assert begun.wait(30)
    tab.do("settings", layer=3, rank=1, steps=20, ridge=0.1)
    go.set()
    assert tab.wait()["failed"] is False


def test_the_newer_of_two_answers_can_be_told(tab):
    serials = [tab.state["serial"], tab.ready().get().json()["serial"], tab.do("execute")["serial"]]
    serials += [tab.wait()["serial"], tab.do("undo")["serial"], tab.get().json()["serial"]]
    assert serials == sorted(serials)
    assert len(set(serials)) == 5, "only looking changes nothing"


def test_work_that_was_given_up_while_it_waited_is_not_begun(tab, client, editable, monkeypatch):
    begun = []
    go = threading.Event()

    def execute(session, name, watch):
        begun.append(name)
        assert go.wait(30)

    monkeypatch.setattr(RewriteSession, "execute", execute)
    others = [Tab(client).ready() for _ in range(store_module.WORKERS)]
    for other in others:
        other.do("execute", name="other")
    tab.ready().do("execute", name="mine")
    tab.do("cancel")
    go.set()
    assert tab.wait()["message"] == "Cancelled; nothing was changed."
    assert "mine" not in begun
    for other in others:
        other.wait()


def test_a_job_that_fails_is_said_to_and_leaves_the_session_usable(tab, monkeypatch):
    def broken(session, name, watch):
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(RewriteSession, "execute", broken)
        tab.ready().do("execute")
        end = tab.wait()
    assert end["failed"]
    assert end["message"] == "Execute failed for a reason that the editor's terminal shows."
    tab.do("execute")
    assert len(tab.wait()["edits"]) == 1


def test_what_is_missing_is_said_at_once(tab):
    assert error(tab.post("execute"), 422) == "There is nothing to copy yet: paint on an image and press Copy."
    assert "Nothing is marked" in error(tab.post("erase"), 422)
    assert "nothing to look for" in error(tab.post("search"), 422)
    assert "nothing to look for" in error(tab.get("/images?numbers=0&matches=1"), 422)
    assert error(tab.post("undo"), 422) == "There is no edit to undo."


def test_a_search_shows_the_best_and_matches_glow(tab, editable):
    tab.do("settings", layer=5, rank=1, steps=20, ridge=0.1)
    tab.do("mark", what="query", number=7, mask=url(WALL))
    tab.do("show", numbers="0-9")
    tab.do("search")
    end = tab.wait()
    session = RewriteSession(editable)
    session.settings = session.settings.__class__(layer=5)
    session.query(7, url(WALL))
    assert end["shown"] == [number for number, _ in session.search(10)]
    assert end["message"] == f"The 10 images that match best; image {end['shown'][0]} first."
    best = end["shown"][0]
    glow = pixels_of(tab.get(f"/images?numbers={best}&matches=1").json()[str(best)]["match"])
    assert glow.shape == (16, 16, 4)
    assert glow[..., 3].max() > 200 > glow[..., 3].min()


def test_an_erasure_and_a_choice_of_layer(tab):
    tab.do("settings", layer="auto", rank=1, steps=5, ridge=0.1)
    tab.do("mark", what="context", number=2, mask=url(WALL))
    tab.do("erase", name="gone")
    end = tab.wait()
    assert end["edits"][0]["name"] == "gone"
    assert end["edits"][0]["layer"] == end["candidates"][0]["layer"]


def test_masks_come_back_cleaned_with_what_was_noticed(tab):
    state = tab.do("mark", what="copy", number=0, mask=url(ROOF, (60, 60, 2, 2)))
    (mark,) = state["marks"]
    assert mark["warnings"] == ["The copy mask had 1 stray piece, left out."]
    assert np.array_equal(pixels_of(mark["mask"])[..., 3] > 0, torch_box(2, 2, 4, 4).bool().numpy())
    assert tab.do("unmark", what="copy", number=0)["marks"] == []


def test_the_view_is_kept(tab):
    tab.do("show", numbers="3, 8-9")
    tab.do("original", on=True)
    state = tab.get().json()
    assert (state["shown"], state["original"]) == ([3, 8, 9], True)


def test_files_go_out_and_come_back_into_another_session(tab, client):
    tab.ready().do("execute", name="mine")
    changed = tab.wait() and tab.images()
    other = Tab(client)
    request, edits = tab.get("/request.json"), tab.get("/edits.safetensors")
    assert 'filename="edits.safetensors"' in edits.headers["content-disposition"]
    assert client.put(f"{other.base}/request", content=request.content).json()["marks"] == tab.get().json()["marks"]
    assert client.put(f"{other.base}/edits", content=edits.content).json()["message"] == "Edits loaded."
    assert other.images() == changed
    page = Image.open(io.BytesIO(tab.get("/grid.png").content))
    assert page.size == (8 * 18 - 2, 3 * 38 - 4)


def test_each_tab_has_its_own_session(tab, client):
    other = Tab(client)
    tab.ready()
    assert len(tab.get().json()["marks"]) == 4
    assert other.get().json()["marks"] == []


# Sessions are bounded


def test_the_session_that_was_not_used_for_longest_makes_room(client):
    tabs = [Tab(client) for _ in range(4)]
    tabs[0].get()
    newest = Tab(client)
    assert "closed to make room: the editor keeps the 4 used last" in error(tabs[1].get(), 410)
    assert "closed to make room" in error(tabs[1].post("undo"), 410)
    for kept in (tabs[0], tabs[2], tabs[3], newest):
        assert kept.get().status_code == 200
    assert error(client.get("/api/sessions/nobody"), 404).startswith("There is no such session")


def test_a_busy_session_makes_no_room(client, endless):
    busy = Tab(client).ready()
    busy.do("execute")
    others = [Tab(client) for _ in range(4)]
    assert busy.get().status_code == 200
    assert others[0].get().status_code == 410
    busy.do("cancel")
    busy.wait()


def test_no_room_is_said_when_all_are_busy(editable, endless):
    with new_client(editable, most=1) as client:
        busy = Tab(client).ready()
        busy.do("execute")
        assert "All 1 sessions are busy" in error(client.post("/api/sessions", json={}), 503)
        busy.do("cancel")
        busy.wait()


def test_a_thousand_mixed_requests_lose_no_session(editable):
    """From three tabs at once, with a good part of nonsense."""
    with new_client(editable, most=3) as client:
        tabs = [Tab(client).ready() for _ in range(3)]
        failures, counts = [], []

        def use(tab, seed):
            draw, done = random.Random(seed), 0
            acts = [
                lambda: tab.get(),
                lambda: tab.get(f"/images?numbers={draw.randrange(1000)}"),
                lambda: tab.post("show", numbers=f"{draw.randrange(1200)}-{draw.randrange(1200)}"),
                lambda: tab.post("mark", what="context", number=draw.randrange(1100), mask=url(ROOF)),
                lambda: tab.post("unmark", what="context", number=draw.randrange(20)),
                lambda: tab.post("mark", what="copy", number=0, mask="data:,"),
                lambda: tab.post("settings", layer=draw.randrange(2, 9), rank=1, steps=3, ridge=0.1),
                lambda: tab.post("execute", name=f"edit {seed}"),
                lambda: tab.post("strength", place=draw.randrange(3), strength=draw.uniform(-4, 4)),
                lambda: tab.post("move", place=draw.randrange(3), to=draw.randrange(3)),
                lambda: tab.post("undo"),
                lambda: tab.post("cancel"),
                lambda: tab.client.post(f"{tab.base}/show", content=b"{", headers={"content-type": "application/json"}),
                lambda: tab.client.put(f"{tab.base}/edits", content=b"no"),
                lambda: tab.client.get(f"/{draw.random()}"),
            ]
            while done < 340:
                status = draw.choice(acts)().status_code
                done += 1
                if status not in (200, 400, 404, 409, 422):
                    failures.append(status)
            counts.append(done)

        threads = [threading.Thread(target=use, args=(tab, seed)) for seed, tab in enumerate(tabs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(counts) >= 1000
        assert failures == []
        for seed, tab in enumerate(tabs):
            end = tab.wait()
            assert end["id"] == tab.state["id"]
            assert {edit["name"] for edit in end["edits"]} <= {f"edit {seed}"}
            tab.do("settings", layer=5, rank=1, steps=3, ridge=0.1)
            tab.do("clear")
            tab.ready().do("execute", name="last")
            assert tab.wait()["edits"][-1]["name"] == "last"
