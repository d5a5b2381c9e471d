from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reprise.data import scenes
from reprise.errors import UserError
from reprise.papers.rewriting.edits import Edit, EditStack, load_edits, save_edits
from reprise.papers.rewriting.generator import Plan, SceneGenerator

SMALL = Plan(channels=(6, 5, 4), style=8, hidden=8, object_layers=3, colours_from=8)


@pytest.fixture
def generator():
    return SceneGenerator(SMALL)


@pytest.fixture
def ws(generator):
    return generator.ws(scenes.sample(3, 2, torch.Generator().manual_seed(0))).detach()


def edit(layer=4, seed=0, **more):
    g = torch.Generator().manual_seed(seed)
    inputs, outputs = {3: (6, 5), 4: (5, 5), 5: (5, 4)}[layer]
    return Edit(layer, torch.randn(outputs, 1, 3, 3, generator=g), torch.randn(1, inputs, generator=g), **more)


def test_edits_add_up_and_come_off_to_the_bit(generator, ws):
    stack = EditStack(generator.synthesis)
    plain = stack.images(ws)
    assert torch.equal(plain, generator.synthesis(ws))
    stack.push(edit(4))
    once = stack.images(ws)
    stack.push(edit(5, seed=1))
    assert not torch.equal(stack.images(ws), once)
    stack.undo()
    assert torch.equal(stack.images(ws), once)
    stack.undo()
    assert torch.equal(stack.images(ws), plain)
    with pytest.raises(UserError, match="no edit to undo"):
        stack.undo()


def test_who_reads_the_list_meanwhile_reads_all_of_one_state(generator):
    stack = EditStack(generator.synthesis)
    acts = [
        lambda: stack.push(edit(5)),
        lambda: stack.move(0, 1),
        lambda: stack.strengthen(0, 0.5),
        lambda: stack.undo(),
    ]
    stack.push(edit(4))
    for act in acts:
        seen, copy = stack.edits, tuple(stack.edits)
        act()
        assert tuple(seen) == copy
        assert stack.edits is not seen


def test_layers_that_no_edit_touches_stay(generator, ws):
    stack = EditStack(generator.synthesis)
    stack.push(edit(4))
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    stack.images(ws)
    assert all(torch.equal(before[name], value) for name, value in generator.state_dict().items())
    assert list(stack.weights()) == [4]


def test_strength_is_a_factor(generator):
    stack = EditStack(generator.synthesis)
    stack.push(edit(4))
    own = generator.synthesis.layers["4"].weight
    full = stack.weights()[4] - own
    stack.strengthen(0, 0.5)
    assert torch.allclose(stack.weights()[4] - own, 0.5 * full, atol=1e-6)
    stack.strengthen(0, 0.0)
    assert torch.equal(stack.weights()[4], own)


def test_two_edits_of_one_layer_are_a_sum_in_any_order(generator, ws):
    stack = EditStack(generator.synthesis)
    stack.push(edit(4))
    stack.push(edit(4, seed=1))
    first = stack.weights()[4]
    stack.move(0, 1)
    assert [e.lam[0, 0, 0, 0] for e in stack.edits] == [edit(4, seed=1).lam[0, 0, 0, 0], edit(4).lam[0, 0, 0, 0]]
    assert torch.allclose(stack.weights()[4], first, atol=1e-6)


def test_the_shared_prefix_changes_nothing(generator, ws):
    stack = EditStack(generator.synthesis)
    assert torch.equal(*stack.before_and_after(ws))
    stack.push(edit(5))
    stack.push(edit(4))
    before, after = stack.before_and_after(ws)
    assert torch.equal(before, generator.synthesis(ws))
    assert torch.equal(after, stack.images(ws))


def test_a_file_of_edits_holds_them_all(tmp_path, generator, ws):
    mine = [edit(4, name="dome -> spire", fingerprint="abc"), edit(5, seed=1, strength=0.5)]
    path = save_edits(tmp_path / "edits.safetensors", mine)
    assert path.stat().st_size < 5000
    back = load_edits(path)
    for one, other in zip(mine, back, strict=True):
        assert (one.layer, one.name, one.fingerprint, one.strength) == (
            *(other.layer, other.name, other.fingerprint, other.strength),
        )
        assert torch.equal(one.dw, other.dw)
    assert list(tmp_path.iterdir()) == [path]


def test_factors_are_saved_however_they_lie_in_memory(tmp_path):
    one = edit(4)
    across = replace(one, lam=one.lam.transpose(2, 3).contiguous().transpose(2, 3))
    assert not across.lam.is_contiguous()
    assert torch.equal(load_edits(save_edits(tmp_path / "e.safetensors", [across]))[0].lam, one.lam)


def test_names_in_files_are_one_short_line(tmp_path):
    path = save_edits(tmp_path / "edits.safetensors", [edit(name="a\nb " + 1000 * "c")])
    assert load_edits(path)[0].name == "a b " + 196 * "c"


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_a_file_that_holds_no_edits_is_refused(tmp_path, content):
    path = tmp_path / "edits.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is no file of edits"):
        load_edits(path)


def test_edits_of_another_generator_are_refused(generator):
    stack = EditStack(generator.synthesis, generator.fingerprint)
    stack.push(edit(4, fingerprint=generator.fingerprint))
    with pytest.raises(UserError, match="was made for the generator abc"):
        stack.push(edit(4, fingerprint="abc"))
    with pytest.raises(UserError, match="layers are 2 to 6"):
        stack.push(Edit(9, torch.zeros(1, 1, 3, 3), torch.zeros(1, 1)))
    with pytest.raises(UserError, match="belongs to another generator"):
        stack.push(Edit(4, torch.zeros(7, 1, 3, 3), torch.zeros(1, 5), name="x"))


@pytest.mark.parametrize(
    "damage",
    [
        {"lam": torch.zeros(())},
        {"lam": torch.zeros(5, 2, 3, 3)},
        {"lam": torch.zeros(5, 1, 1, 1)},
        {"lam": torch.full((5, 1, 3, 3), float("nan"))},
        {"directions": torch.zeros(5)},
        {"strength": float("inf")},
        {"strength": 1e300},
        {"lam": torch.zeros(5, 1, 3, 3, dtype=torch.int32)},
        {"directions": torch.zeros(1, 5, dtype=torch.complex64)},
    ],
)
def test_damaged_edits_are_refused(generator, damage):
    with pytest.raises(UserError, match="the edit mine is damaged"):
        EditStack(generator.synthesis).push(replace(edit(4, name="mine"), **damage))


def test_generators_are_saved_whole(tmp_path, generator, ws):
    path = generator.save(tmp_path / "g.safetensors", {"steps": 3})
    back, about = SceneGenerator.load(path)
    assert about == {"steps": 3}
    assert back.fingerprint == generator.fingerprint
    assert torch.equal(back.synthesis(ws), generator.synthesis(ws))
    with torch.no_grad():
        back.synthesis.layers["4"].bias[0] += 1e-6
    assert back.fingerprint != generator.fingerprint
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="no generator of scenes"):
        SceneGenerator.load(path)


def test_objects_are_told_to_the_early_layers_alone(generator):
    f = scenes.sample(4, 2, torch.Generator().manual_seed(1))
    other = f.but(roof=(f.roof + 1) % 3)
    apart = (generator.ws(f) - generator.ws(other)).abs().amax((0, 2))
    told = SMALL.object_layers - 1
    assert (apart[:told] > 0).all()
    assert (apart[told:] == 0).all()
    assert generator(f).shape == (4, 3, 16, 16)
    assert torch.equal(SceneGenerator(SMALL)(f), generator(f)), "weights and noise follow from the seed"


def test_coarse_layers_add_no_colours():
    synthesis = SceneGenerator(SMALL).synthesis
    assert [bool(rgb.weight.any()) for rgb in synthesis.rgbs.values()] == [False, True, True]
    assert [rgb.weight.requires_grad for rgb in synthesis.rgbs.values()] == [False, True, True]
