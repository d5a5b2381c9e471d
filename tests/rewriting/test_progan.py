"""The network whose layers are linear: its definition, and that an edit of it is a matter of solving equations."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F

from reprise.config import fingerprint
from reprise.data import scenes
from reprise.errors import UserError
from reprise.papers.rewriting import evaluation, memory, solvers
from reprise.papers.rewriting.edits import EditStack
from reprise.papers.rewriting.generator import Plan, SceneGenerator
from reprise.papers.rewriting.memory import change, orthonormal, project
from reprise.papers.rewriting.progan import LinearLayer, ProGAN, normalised
from reprise.papers.rewriting.recipes import SHIPPED, SceneRecipe
from reprise.papers.rewriting.request import Box, Marked, Request
from reprise.papers.rewriting.rewriter import Recipe, Rewriter, feature_paste
from reprise.papers.rewriting.scene_requests import RULES
from reprise.papers.rewriting.solvers import Goal, finished

SMALL = Plan(channels=(6, 8, 7), style=8, hidden=8, object_layers=3, colours_from=16, architecture="progan")
BOXES = (Box(2, 1, 6, 6), Box(0, 3, 3, 8))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def network():
    torch.manual_seed(0)
    made = ProGAN((6, 5, 4), 7)
    for bias in made.biases.values():
        torch.nn.init.normal_(bias.bias)
    return made.requires_grad_(False)


@pytest.fixture
def ws():
    return draw(3, 5, 7, seed=1)


def layer(inputs=6, outputs=5, upsample=False):
    torch.manual_seed(2)
    return LinearLayer(inputs, outputs, upsample).requires_grad_(False)


def test_a_value_is_linear_in_the_weight_and_in_the_key():
    made, keys, weights = layer(), draw(2, 3, 6, 8, 8), draw(2, 5, 6, 3, 3, seed=1)
    ones = torch.ones(3, 6)
    (a, b), (k, m) = (2.0, -3.0), keys
    by_weight = [made.value_of(k, ones, w) for w in weights]
    both = made.value_of(k, ones, a * weights[0] + b * weights[1])
    assert torch.allclose(both, a * by_weight[0] + b * by_weight[1], atol=1e-4)
    by_key = made.value_of(a * k + b * m, ones)
    assert torch.allclose(by_key, a * made.value_of(k, ones) + b * made.value_of(m, ones), atol=1e-4)


def test_features_have_mean_square_one_at_every_place():
    x = draw(2, 6, 4, 4)
    assert torch.allclose(normalised(x).square().mean(1), torch.ones(2, 4, 4), atol=1e-5)
    assert torch.allclose(normalised(3 * x), normalised(x), atol=1e-6)


def test_a_key_is_doubled_before_the_convolution_where_the_resolution_changes():
    x = draw(1, 6, 2, 2)
    key = layer(upsample=True).key_of(x)
    assert torch.equal(key, normalised(x).repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_an_image_by_the_definition(network, ws):
    def biased(x, number):
        b = network.biases[str(number)]
        slot = ws[:, max(0, number - 2)]
        return F.leaky_relu(x + (slot @ b.weight.T / 7**0.5 + b.bias)[:, :, None, None], 0.2)

    x = (ws[:, 0] @ network.first.T / 7**0.5).view(3, 6, 4, 4)
    for number, inputs, up in ((2, 6, 1), (3, 6, 2), (4, 5, 1), (5, 5, 2), (6, 4, 1)):
        x = F.interpolate(normalised(biased(x, number - 1)), scale_factor=float(up))
        x = F.conv2d(x, network.layers[str(number)].weight * (2 / (9 * inputs)) ** 0.5, padding=1)
    rgb = network.rgbs["6"]
    expected = torch.einsum("nihw,oi->nohw", normalised(biased(x, 6)), rgb.weight[:, :, 0, 0]) / 4**0.5
    assert torch.allclose(network(ws), expected + rgb.bias.view(1, 3, 1, 1), atol=1e-5)
    assert network(ws).shape == (3, 3, 16, 16)


def test_layers_keys_and_values(network, ws):
    assert (list(network.numbers), network.slots) == ([2, 3, 4, 5, 6], 5)
    for number, (channels, side) in {2: (6, 4), 3: (6, 8), 4: (5, 8), 5: (5, 16), 6: (4, 16)}.items():
        key, scales = network.key(number, ws)
        assert key.shape == (3, channels, side, side)
        assert torch.equal(scales, torch.ones(3, channels))
        value = network.layers[str(number)].value_of(key, scales)
        assert torch.equal(value, network.start(ws, number + 1)[0])
        assert torch.equal(network.finish(network.start(ws, number), ws), network(ws))


def test_every_style_counts_and_only_after_its_layers_value(network, ws):
    for slot in range(network.slots):
        other = ws.clone()
        other[:, slot] += 1
        assert not torch.allclose(network(other), network(ws)), slot
        if slot:  # the first one makes the features, too
            values = [network.start(s, slot + 3)[0] for s in (ws, other)]  # the value of layer slot + 2
            assert torch.equal(*values)


@pytest.mark.parametrize("number", [2, 5, 6])
def test_a_weight_in_the_place_of_a_layers_own(network, ws, number):
    made = network.layers[str(number)]
    weight = made.weight + 0.1
    replaced = network.finish(network.start(ws, number), ws, {number: weight})
    made.weight.copy_(weight)
    assert torch.allclose(replaced, network(ws), atol=1e-6)


def goal(rank=2, reachable=False, upsample=False):
    """Two images of random keys, and a target that some change of the rank gives exactly, or any."""
    made, key, scales = layer(upsample=upsample), draw(2, 6, 8, 8, seed=3), torch.ones(2, 6)
    d = orthonormal(draw(rank, 6, seed=4))
    if reachable:
        target = made.value_of(key, scales, made.weight + change(draw(5, rank, 3, 3, seed=5), d))
    else:
        target = made.value_of(key, scales) + draw(2, 5, 8, 8, seed=6)
    return Goal(made, key, scales, target, BOXES), d


def squares(asked, weight):
    """Sum of squared distances in the boxes."""
    value = asked.layer.value_of(asked.key, asked.scales, weight)
    return sum(box.of(v - t).square().sum() for v, t, box in zip(value, asked.target, asked.boxes, strict=True))


@pytest.mark.parametrize("pairs", [1, 2, 4])
def test_the_closed_form_is_the_papers_memory(pairs):
    """Keys of a single place each: the least change of tr(dW C dW^T) that stores the pairs, at the middle tap."""
    made, keys, values = layer(), draw(pairs, 6, seed=7), draw(pairs, 5, seed=8)
    c = draw(60, 6, seed=9).double()
    c = c.T @ c / 60
    own = made.weight[:, :, 1, 1].double() * made.scale
    lam, directions = memory.insert(own, c, keys.double(), values.double())
    asked = Goal(
        made, keys[:, :, None, None], torch.ones(pairs, 6), values[:, :, None, None], (Box(0, 0, 1, 1),) * pairs
    )
    found = finished(solvers.least_squares(asked, orthonormal(directions)))
    assert torch.allclose(found.dw[:, :, 1, 1].double() * made.scale, lam @ directions, atol=1e-5)
    around = found.dw.clone()
    around[:, :, 1, 1] = 0
    assert around.abs().max() < 1e-6, "no other tap sees a key"
    value = made.value_of(asked.key, asked.scales, made.weight + found.dw)
    assert torch.allclose(value[:, :, 0, 0], values, atol=1e-5), "the pairs are stored"
    assert torch.linalg.matrix_rank(found.dw[:, :, 1, 1], atol=1e-4) == pairs


def test_for_one_key_the_direction_of_the_context_is_the_memorys():
    """The whole way: C, the context's direction, least squares; and Lambda = (v* - W k*) / (d k*) by hand."""
    made, key, value = layer(), draw(1, 6, seed=7), draw(1, 5, seed=8)
    moment = memory.Moment(6)
    moment.add(draw(4, 6, 5, 5, seed=9))
    d = memory.zca_directions(moment.matrix(), key.double(), torch.ones(1).double(), 1).float()
    asked = Goal(made, key[:, :, None, None], torch.ones(1, 6), value[:, :, None, None], (Box(0, 0, 1, 1),))
    found = finished(solvers.least_squares(asked, d))
    own = made.weight[:, :, 1, 1] * made.scale
    by_hand = (value[0] - own @ key[0]) / (d[0] @ key[0])
    assert torch.allclose(found.lam[:, 0, 1, 1] * made.scale, by_hand, atol=1e-5)
    lam, directions = memory.insert(own.double(), moment.matrix(), key.double(), value.double())
    assert torch.allclose((lam @ directions).float(), found.dw[:, :, 1, 1] * made.scale, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 6])
def test_no_change_of_the_rank_is_nearer_to_the_target(rank):
    """Against brute force: the map from Lambda to the values in the boxes, column by column, in double precision."""
    asked, d = goal(rank)
    double = dataclasses.replace(asked, **{n: getattr(asked, n).double() for n in ("key", "scales", "target")})
    own, wide = asked.layer.weight.double(), d.double()

    def seen(weight):
        value = asked.layer.value_of(double.key, double.scales, weight)
        return torch.cat([box.of(v).flatten(1).T for v, box in zip(value, asked.boxes, strict=True)])  # [P, O]

    steps = torch.eye(rank * 9).double().view(-1, 1, rank, 3, 3).expand(-1, 5, -1, -1, -1)
    matrix = torch.stack([(seen(own + change(lam, wide)) - seen(own))[:, 0] for lam in steps], 1)
    wanted = torch.cat([box.of(t).flatten(1).T for t, box in zip(double.target, asked.boxes, strict=True)])
    best = torch.linalg.lstsq(matrix, wanted - seen(own)).solution.T.view(5, rank, 3, 3)
    found = finished(solvers.least_squares(asked, d))
    assert torch.allclose(found.lam.double(), best, atol=1e-4)
    flat = found.dw.movedim(1, -1).reshape(-1, 6)
    assert torch.linalg.matrix_rank(flat, atol=1e-4) == rank
    assert torch.allclose(project(found.dw, d), found.dw, atol=1e-4)


def test_the_gradient_of_the_squares_vanishes_at_the_closed_form():
    asked, d = goal()
    found = finished(solvers.least_squares(asked, d))
    lam = found.lam.clone().requires_grad_()
    at_end = torch.autograd.grad(squares(asked, asked.layer.weight + change(lam, d)), lam)[0]
    start = torch.zeros_like(lam).requires_grad_()
    at_start = torch.autograd.grad(squares(asked, asked.layer.weight + change(start, d)), start)[0]
    assert at_end.abs().max() < 1e-4 * at_start.abs().max()


@pytest.mark.parametrize("rank", [1, 3])
def test_what_can_be_met_is_met_and_the_optimisers_find_the_same(rank):
    asked, d = goal(rank, reachable=True)
    found = finished(solvers.least_squares(asked, d))
    assert found.losses[-1] < 1e-5 < found.losses[0]
    assert asked.loss(asked.layer.weight + found.dw) < 1e-5, "the constraints hold"
    searched = finished(solvers.solve_lambda(asked, d, steps=800, lr=0.05))
    assert torch.allclose(searched.lam, found.lam, atol=0.02)
    assert searched.losses[-1] >= found.losses[-1]


def test_places_that_no_tap_tells_apart_take_the_smallest_change():
    """One place has nine taps and asks for one number: Lambda is what it must be along them and 0 across."""
    asked, d = goal(rank=1)
    asked = dataclasses.replace(asked, boxes=(Box(3, 3, 4, 4), Box(0, 0, 0, 0)))
    found = finished(solvers.least_squares(asked, d))
    assert squares(asked, asked.layer.weight + found.dw) < 1e-8
    patch = torch.einsum("ihw,i->hw", asked.key[0], d[0])[2:5, 2:5] * asked.layer.scale
    missing = (asked.target - asked.layer.value_of(asked.key, asked.scales))[0, :, 3, 3]
    assert torch.allclose(found.lam[:, 0], missing.view(-1, 1, 1) * patch / patch.square().sum(), atol=1e-5)


@pytest.mark.parametrize("boxes", [BOXES, (Box(0, 0, 8, 8), Box(7, 7, 8, 8))])
def test_a_cropped_goal_is_the_same_goal(boxes):
    asked, d = goal()
    asked = dataclasses.replace(asked, boxes=boxes)
    small = solvers.cropped(asked)
    assert small.noise is None
    weight = asked.layer.weight + change(draw(5, 2, 3, 3, seed=8), d)
    assert small.loss(weight).item() == pytest.approx(asked.loss(weight).item(), abs=1e-6)
    one, other = (finished(solvers.least_squares(g, d)).lam for g in (asked, small))
    assert torch.allclose(one, other, atol=1e-4)


@pytest.fixture
def generator():
    return SceneGenerator(SMALL).eval().requires_grad_(False)


@pytest.fixture
def rewriter(generator):
    def sample(count):
        return generator.ws(scenes.sample(count, 2, torch.Generator().manual_seed(7)))

    return Rewriter(generator.synthesis, sample, images=20, fingerprint=generator.fingerprint)


def block(top, left, side=6):
    mask = torch.zeros(16, 16)
    mask[top : top + side, left : left + side] = 1
    return mask


@pytest.fixture
def request_(rewriter):
    ws = rewriter.sample(5)
    contexts = tuple(Marked(w, block(8, 8)) for w in ws[2:])
    return Request(Marked(ws[0], block(2, 2)), Marked(ws[1], block(8, 8)), contexts)


@pytest.mark.parametrize("layer_number", [3, 4, 5, 6])
@pytest.mark.parametrize("solver", ["lambda", "adam_project", "closed_form", "learned_direction"])
def test_every_solver_edits_every_layer(rewriter, request_, generator, solver, layer_number):
    """The closed form also where the resolution changes, since the key is doubled before it."""
    edit, found = rewriter.edit([request_], Recipe(layer_number, solver, rank=2, steps=40))
    assert found.losses[-1] < found.losses[0]
    assert torch.allclose(project(edit.dw, edit.directions), edit.dw, atol=1e-3 * float(edit.dw.abs().max()))
    stack = EditStack(generator.synthesis, generator.fingerprint)
    stack.push(edit)
    before, after = stack.before_and_after(request_.paste.ws.unsqueeze(0))
    assert torch.equal(after, stack.images(request_.paste.ws.unsqueeze(0)))
    assert not torch.allclose(before, after)
    stack.undo()
    assert torch.equal(stack.images(request_.paste.ws.unsqueeze(0)), before)


def test_a_free_change_and_a_removal(rewriter, request_):
    edit, free = rewriter.edit([request_], Recipe(4, "full_rank", steps=40))
    assert edit is None
    assert free.losses[-1] < free.losses[0]
    removal = Request(None, request_.paste, request_.context)
    _, gone = rewriter.edit([removal], Recipe(5, "closed_form", rank=2, units=3))
    assert [len(gone.losses), gone.losses[-1] < gone.losses[0]] == [4, True]


def test_pasted_features_reach_the_image(rewriter, request_):
    """A layer's whole value of another image: later layers see that one, with the styles of the first."""
    ws = rewriter.sample(4)
    net = rewriter.synthesis
    nothing = feature_paste(net, 4, ws, torch.zeros(4, 8, 8, 8), torch.zeros(4, 8, 8))
    assert torch.allclose(nothing, net(ws), atol=1e-6)
    everything = feature_paste(net, 6, ws, net.start(ws.flip(0), 7)[0], torch.ones(4, 16, 16))
    same = torch.equal(ws[:, -1], ws.flip(0)[:, -1])
    assert not same
    assert not torch.allclose(everything, net(ws))
    mixed = torch.cat([ws.flip(0)[:, :-1], ws[:, -1:]], 1)  # the last bias follows the value and is the first one's
    assert torch.allclose(everything, net(mixed), atol=1e-5)


def test_edits_are_judged_like_those_of_the_other_network(generator, rewriter):
    asked = evaluation.trial(generator, RULES["dome_to_spire"], scenes.sample(8, 2, torch.Generator().manual_seed(2)))
    assert set(evaluation.oracle(generator, asked, 5, margin=2)) == {"oracle/success", "oracle/l1_outside"}
    own = generator.synthesis.layers["4"].weight
    assert torch.equal(evaluation.redrawn(generator.synthesis, asked, 4, own), asked.before.images)
    assert not torch.allclose(evaluation.redrawn(generator.synthesis, asked, 4, own + 0.5), asked.before.images)


def test_objects_are_told_to_the_early_layers_alone(generator):
    f = scenes.sample(4, 2, torch.Generator().manual_seed(1))
    other = f.but(roof=(f.roof + 1) % 3)
    apart = (generator.ws(f) - generator.ws(other)).abs().amax((0, 2))
    assert [bool(a) for a in apart > 0] == [True, True, False, False, False]
    assert not torch.allclose(generator(f.but(light=f.light + 1)), generator(f))


def test_files_say_which_network_it_is(tmp_path, generator):
    path = generator.save(tmp_path / "g.safetensors")
    back, _ = SceneGenerator.load(path)
    assert isinstance(back.synthesis, ProGAN)
    assert back.plan == SMALL
    assert back.fingerprint == generator.fingerprint
    other = SceneGenerator(dataclasses.replace(SMALL, architecture="stylegan2"))
    assert other.fingerprint != generator.fingerprint
    with safe_open(other.save(path), framework="pt") as file:
        assert "architecture" not in json.loads(file.metadata()["plan"]), "nothing new about what there was before"
    object.__setattr__(other.plan, "architecture", "biggan")
    other.save(path)
    with pytest.raises(UserError, match="is no generator of scenes"):
        SceneGenerator.load(path)


def test_the_usual_network_is_not_named_in_a_file():
    """What was made before there were two keeps its fingerprint."""
    path = SHIPPED / "scenes_32.safetensors"
    with safe_open(path, framework="pt") as file:
        plan = json.loads(file.metadata()["plan"])
        assert "architecture" not in plan
        state = hashlib.sha256(json.dumps(plan, sort_keys=True).encode())
        for name in sorted(file.keys()):
            state.update(name.encode() + file.get_tensor(name).numpy().tobytes())
    model, _ = SceneGenerator.load(path)
    assert model.fingerprint == state.hexdigest()[:16]
    recipe = SceneRecipe(plan["channels"], 64, 128, 4, 16, 12000, 16, 3e-3, 0.5, 4.0, 9000)
    key = fingerprint([plan, 12000, 16, 3e-3, 0.5, 4.0, 9000])
    assert recipe.key(model.plan) == key
    assert recipe.key(dataclasses.replace(model.plan, architecture="progan")) != key
    assert recipe.title == "regression to rendered scenes, 12000 steps (not a GAN)"
