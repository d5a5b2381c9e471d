"""A session from the first mark to the saved file, on a small network with random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from studio import PLAN, ROOF, WALL, ready, torch_box, url

from reprise.errors import UserError
from reprise.papers.rewriting import session as module
from reprise.papers.rewriting.editable import of_scenes
from reprise.papers.rewriting.edits import load_edits
from reprise.papers.rewriting.generator import SceneGenerator
from reprise.papers.rewriting.rewriter import Recipe
from reprise.papers.rewriting.session import Cancelled, Progress, RewriteSession, Settings


@pytest.fixture(scope="module")
def rewriter(editable):
    return editable.rewriter()


@pytest.fixture
def session(editable, rewriter):
    made = RewriteSession(editable, rewriter)
    made.settings = Settings(layer=5, steps=20)
    return made


def pictures(session):
    return session.images(range(6))[1]


# Marks


def test_a_request_has_the_styles_and_masks_of_the_marked_images(session):
    request = ready(session).request()
    assert torch.equal(request.copy.ws, session.editable.sample([0])[0])
    assert torch.equal(request.copy.mask, torch_box(2, 2, 4, 4))
    assert torch.equal(request.paste.mask, torch_box(8, 8, 5, 4))
    assert [torch.equal(c.ws, session.editable.sample([n])[0]) for n, c in zip((2, 3), request.context, strict=True)]


def test_marks_take_the_place_of_earlier_ones(session):
    ready(session)
    session.copy(4, url(WALL))
    session.add_context(2, url(ROOF))
    assert [(what, mark.number) for what, mark, _ in session.masks()] == [
        *(("copy", 4), ("paste", 1), ("context", 3), ("context", 2)),
    ]
    assert torch.equal(session.masks()[-1][2].mask, torch_box(2, 2, 4, 4))


def test_marks_are_taken_back(session):
    ready(session).query(5, url(ROOF))
    session.unmark("context", 2)
    session.unmark("copy", 0)
    session.unmark("query", 5)
    assert [what for what, _, _ in session.masks()] == ["paste", "context"]
    with pytest.raises(UserError, match="image 2 has no context mark"):
        session.unmark("context", 2)
    session.clear()
    assert session.masks() == []


def test_what_was_noticed_about_masks_is_kept(session):
    session.copy(0, url(ROOF, (60, 60, 2, 2)))
    assert session.masks()[0][2].warnings == ("The copy mask had 1 stray piece, left out.",)


@pytest.mark.parametrize("number", [-1, 1000, 10**9])
def test_images_that_are_not_there_cannot_be_marked_or_shown(session, number):
    for act in (
        lambda: session.copy(number, url(ROOF)),
        lambda: session.add_context(number, url(ROOF)),
        lambda: session.show([0, number]),
        lambda: session.images([number]),
    ):
        with pytest.raises(UserError, match=f"there is no image {number}: they are 0 to 999"):
            act()


def test_a_wrong_mask_leaves_the_marks_as_they_were(session):
    before = ready(session).marks
    for act in (session.copy, session.paste, session.add_context, session.query):
        with pytest.raises(UserError, match="mask is empty"):
            act(0, url())
    assert session.marks == before


def test_contexts_are_bounded(session, monkeypatch):
    monkeypatch.setattr(module, "MOST", 2)
    ready(session)
    with pytest.raises(UserError, match="there are 2 contexts already"):
        session.add_context(4, url(ROOF))
    session.add_context(3, url(ROOF))  # in the place of an earlier one


@pytest.mark.parametrize("missing", ["copy", "paste"])
def test_what_is_missing_is_named(session, missing):
    session.marks = ready(session).marks.but(**{missing: None})
    with pytest.raises(UserError, match=f"nothing to {missing} yet"):
        session.execute()


# Images


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0-3", [0, 1, 2, 3]), ("5", [5]), (" 1 - 2, 999 ", [1, 2, 999]), ("3,3", [3, 3])],
)
def test_numbers_are_read(editable, text, numbers):
    assert editable.numbers(text, 64) == numbers


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no image number"),
        ("1,,2", "is no image number"),
        ("-1", "is no image number"),
        ("1e3", "is no image number"),
        ("٣", "is no image number"),
        ("4-2", "names images that are not there: they are 0 to 999"),
        ("1000", "names images that are not there"),
        ("0-1000000", "names images that are not there"),
        ("9" * 5000, "is no image number"),
        ("0-64", "too many images at once: choose 1 to 64"),
        (",".join(["0-9"] * 7), "too many images at once"),
    ],
)
def test_other_words_are_no_numbers(editable, text, why):
    with pytest.raises(UserError, match=why) as refused:
        editable.numbers(text, 64)
    assert len(str(refused.value)) < 150


def test_images_are_shown_once_each_and_not_too_many(session):
    session.show([5, 3, 5])
    assert session.shown == [5, 3]
    for wrong in ([], list(range(65))):
        with pytest.raises(UserError, match="choose 1 to 64"):
            session.show(wrong)


def test_images_are_the_generators_in_any_number(session):
    before, after = session.images(range(40))  # more than are drawn at once
    expected = session.editable.synthesis(session.editable.sample(range(40)))
    assert torch.allclose(before, expected, atol=1e-5)
    assert torch.equal(before, after)


def test_an_editable_always_has_the_same_images(editable):
    again = of_scenes(SceneGenerator(PLAN), "small")
    assert torch.equal(again.sample([3, 1]), editable.sample([3, 1]))
    assert torch.equal(editable.sample([1])[0], editable.sample([3, 1])[1])
    assert again.fingerprint == editable.fingerprint


def test_a_grid_has_the_images_before_above_those_after(session):
    ready(session).execute()
    before, after = session.images(range(10))
    page = session.grid(range(10))
    assert page.size == (8 * 18 - 2, 2 * 38 - 4)
    for row, images in ((0, before), (1, after)):
        expected = ((images[9].clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0)
        box = (18, 38 + row * 18, 18 + 16, 38 + row * 18 + 16)  # the second of the second row
        found = torch.from_numpy(np.array(page.crop(box)))
        assert torch.equal(found.float(), expected)


# Edits


def test_an_edit_changes_images_and_undo_gives_the_bits_back(session):
    plain = pictures(ready(session))
    edit = session.execute("mine")
    assert (edit.layer, edit.name, edit.fingerprint) == (5, "mine", session.editable.fingerprint)
    changed = pictures(session)
    assert not torch.allclose(changed, plain, atol=1e-3)
    assert torch.equal(session.images(range(6))[0], plain)
    assert session.undo() is edit
    assert torch.equal(pictures(session), plain)
    with pytest.raises(UserError, match="no edit to undo"):
        session.undo()


def test_an_edit_is_the_engines(session):
    edit = ready(session).execute()
    recipe = Recipe(5, steps=20, ridge=0.1)
    expected, _ = session.rewriter.edit([session.request()], recipe)
    assert torch.equal(edit.lam, expected.lam)
    assert edit.name == "image 0 into 1"


def test_a_second_edit_is_looked_for_on_the_edited_network(session):
    first = ready(session).execute()
    net = session.edited()
    assert torch.allclose(net.layers["5"].weight, session.editable.synthesis.layers["5"].weight + first.dw)
    assert torch.allclose(net(session.editable.sample(range(6))), pictures(session), atol=1e-5)
    losses = []
    session.execute(watch=lambda p: losses.append(p.loss) if p.loss is not None else None)
    assert losses[0] == pytest.approx(session.rewriter.on(net).goal([session.request()], 5).loss_of(
        session.rewriter.on(net).synthesis.start(session.request().paste.ws.unsqueeze(0), 6)[0]
    ).item(), rel=1e-4)  # fmt: skip
    assert len(session.stack.edits) == 2


def test_the_second_moment_stays_that_of_the_unedited_network(session):
    rewriter = session.editable.rewriter()
    session.rewriter = rewriter
    edited = RewriteSession(session.editable, session.rewriter)
    edited.settings = Settings(layer=3, steps=20)
    ready(edited).execute()
    late = rewriter.on(edited.edited()).moment(5).matrix()  # asked for after the edit of an earlier layer
    assert torch.equal(late, session.editable.rewriter().moment(5).matrix())


def test_progress_is_told_step_by_step(session):
    seen = []
    ready(session).execute(watch=seen.append)
    changes = [p for p in seen if p.phase == "changing layer 5"]
    assert [(p.step, p.steps) for p in changes] == [(n, 20) for n in range(1, 21)]
    assert changes[-1].loss < changes[0].loss


@pytest.mark.parametrize("phase", ["seeing the keys of layer", "choosing a layer", "changing layer"])
def test_who_watches_can_give_up_at_any_time(editable, phase):
    session = ready(RewriteSession(editable))
    session.settings = Settings(steps=5)

    def stop(progress: Progress):
        if progress.phase.startswith(phase):
            raise Cancelled

    with pytest.raises(Cancelled):
        session.execute(watch=stop)
    assert session.stack.edits == []
    assert torch.equal(*session.images([0]))


def test_strength_order_and_any_place(session):
    ready(session)
    for name in ("a", "b", "c"):
        session.execute(name)
    full = pictures(session)
    session.move(0, 2)
    assert [edit.name for edit in session.stack.edits] == ["b", "c", "a"]
    assert torch.allclose(pictures(session), full, atol=1e-4)
    session.strengthen(1, 0.0)
    without = pictures(session)
    assert session.remove(1).name == "c"
    assert [edit.name for edit in session.stack.edits] == ["b", "a"]
    assert torch.allclose(pictures(session), without, atol=1e-6)
    for act in (lambda: session.move(0, 2), lambda: session.strengthen(-1, 1.0), lambda: session.remove(5)):
        with pytest.raises(UserError, match="there are 2"):
            act()


def test_an_erasure_fits_the_value_without_the_busiest_units(session):
    session.add_context(2, url(WALL))
    session.paste(4, url(ROOF))
    requests = session.removals()
    assert [request.copy for request in requests] == [None, None]
    assert torch.equal(requests[0].paste.ws, session.editable.sample([4])[0])
    edit = session.erase()
    recipe = Recipe(5, steps=20, ridge=0.1, units=4)  # half of the layer's eight
    expected, _ = session.rewriter.edit(requests, recipe)
    assert torch.equal(edit.lam, expected.lam)


def test_an_erasure_needs_a_mark(session):
    session.copy(2, url(WALL))
    with pytest.raises(UserError, match="nothing is marked that could go"):
        session.erase()


def test_a_layer_that_is_not_there_is_named(session):
    ready(session).settings = Settings(layer=9)
    with pytest.raises(UserError, match="layer=9 cannot be edited: this generator's layers are 2 to 6"):
        session.execute()


@pytest.mark.parametrize(
    "wrong",
    [{"layer": 1}, {"layer": "best"}, {"rank": 0}, {"steps": 0}, {"steps": 10**6}, {"ridge": -1.0}, {"lr": 1}],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)


# A layer is chosen


def test_auto_tries_every_layer_and_takes_the_best(session):
    ready(session).settings = Settings(steps=20)
    edit = session.execute()
    assert sorted(c.layer for c in session.candidates) == [2, 3, 4, 5, 6]
    assert {c.rank for c in session.candidates} == {1}
    assert (
        edit.layer == min(session.candidates, key=lambda c: c.fit + 2 * c.change).layer == session.candidates[0].layer
    )


def test_auto_chooses_a_rank_for_a_given_layer(session):
    ready(session).settings = Settings(layer=5, rank="auto", steps=20)
    edit = session.execute()
    assert {(c.layer, c.rank) for c in session.candidates} == {(5, 1), (5, 2), (5, 3)}
    assert len(edit.directions) == session.candidates[0].rank


def test_auto_works_for_an_erasure(session):
    session.add_context(2, url(WALL))
    session.settings = Settings(steps=10)
    assert session.erase().layer == session.candidates[0].layer


def test_nothing_is_tried_where_nothing_is_left_open(session):
    ready(session).settings = Settings(layer=4, rank=2, steps=5)
    edit = session.execute()
    assert (edit.layer, len(edit.directions), session.candidates) == (4, 2, [])


# What is searched for


def test_the_query_matches_itself_with_one(session):
    session.query(7, url(WALL))
    (found,) = session.matches([7])
    assert found.shape == (8, 8)  # layer 5 upsamples from there
    mask = torch.nn.functional.interpolate(torch_box(8, 8, 5, 4)[None, None], (8, 8), mode="area")[0, 0]
    assert float((found * mask).sum() / mask.sum()) == pytest.approx(1, abs=1e-4)


def test_a_search_ranks_all_images_by_their_best_place(session):
    session.query(7, url(WALL))
    seen = []
    ranked = session.search(10, seen.append)
    best = session.matches(range(1000)).flatten(1).amax(1)
    assert [number for number, _ in ranked] == best.topk(10).indices.tolist()
    assert [score for _, score in ranked] == pytest.approx(best.topk(10).values.tolist(), abs=1e-5)
    assert session.shown == [number for number, _ in ranked]
    assert seen[-1].phase == "looking through the images"


def test_the_context_is_the_query_where_there_is_none(session):
    session.add_context(7, url(WALL))
    by_context = session.matches([0])
    session.clear()
    session.query(7, url(WALL))
    assert torch.equal(session.matches([0]), by_context)
    session.clear()
    with pytest.raises(UserError, match="nothing to look for"):
        session.matches([0])


def test_keys_are_compared_at_the_layer_of_the_last_edit(session):
    session.settings = Settings()
    assert session.layer == 5
    ready(session).settings = Settings(layer=3, steps=5)
    session.execute()
    session.settings = Settings()
    assert session.layer == 3


# What is kept


def test_edits_go_to_a_file_and_come_back(session, tmp_path, editable, rewriter):
    ready(session).execute("mine")
    session.strengthen(0, 0.5)
    path = session.save_edits(tmp_path / "edits.safetensors")
    assert [edit.strength for edit in load_edits(path)] == [0.5]
    other = RewriteSession(editable, rewriter)
    other.load_edits(path)
    assert torch.equal(pictures(other), pictures(session))


def test_edits_of_a_file_are_loaded_all_or_none(session, tmp_path):
    ready(session).execute()
    path = session.save_edits(tmp_path / "edits.safetensors")
    good = session.stack.edits[0]
    session.stack.edits = [good, good.__class__(5, good.lam, good.directions, "ffff", "foreign")]
    foreign = session.save_edits(tmp_path / "foreign.safetensors")
    session.stack.edits = [good]
    with pytest.raises(UserError, match="foreign was made for the generator ffff"):
        session.load_edits(foreign)
    assert session.stack.edits == [good]
    session.load_edits(path)
    assert len(session.stack.edits) == 2


def test_edits_are_bounded(session, tmp_path, monkeypatch):
    ready(session).execute()
    path = session.save_edits(tmp_path / "edits.safetensors")
    monkeypatch.setattr(module, "EDITS", 2)
    session.load_edits(path)
    for act in (session.execute, lambda: session.load_edits(path)):
        with pytest.raises(UserError, match="a session has room for 2 edits"):
            act()
    assert len(session.stack.edits) == 2


def test_requests_go_to_json_and_come_back_all_or_none(session, editable, rewriter):
    ready(session).query(9, url(ROOF))
    saved = session.save_request()
    other = RewriteSession(editable, rewriter)
    other.load_request(saved)
    assert other.marks == session.marks
    wrong = json.loads(saved) | {"key": [[4, url(ROOF)], [5, url()]]}
    with pytest.raises(UserError, match="context mask is empty"):
        other.load_request(json.dumps(wrong))
    with pytest.raises(UserError, match="there is no image 2000"):
        other.load_request(json.dumps(json.loads(saved) | {"paste": [2000, url(ROOF)]}))
    assert other.marks == session.marks


def test_large_images_are_drawn_a_few_at_a_time(session, monkeypatch):
    assert session.at_once == 16
    expected = session.images(range(5))
    monkeypatch.setattr(module, "PIXELS", 2 * 16 * 16)
    assert session.at_once == 2
    found = session.images(range(5))
    assert torch.allclose(found[0], expected[0], atol=1e-5)
