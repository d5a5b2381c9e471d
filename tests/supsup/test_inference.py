"""Which task an image belongs to: every shortcut against autograd through the stacked masks, or a plain loop."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reprise.errors import UserError
from reprise.papers.supsup import inference
from reprise.papers.supsup.bank import MaskBank, pack
from reprise.papers.supsup.inference import (
    INFERENCE,
    alpha_gradients,
    binary,
    exhaustive,
    gradient_descent,
    one_shot,
    stacked_gradients,
    uniformity,
)
from reprise.papers.supsup.networks import FullyConnected, Network
from reprise.papers.supsup.objectives import COMPARED, objective_values


def bank_of(masks, hidden=(5, 4), inputs=7, outputs=6, classes=3, seed=0, network=None):
    """Random masks (so many, or those given) of a small network, in double precision."""
    net = (network or FullyConnected(hidden=list(hidden))).bind((1, 1, inputs), outputs)
    if isinstance(masks, int):
        draw = torch.Generator().manual_seed(seed)
        masks = [torch.rand(masks, *shape, generator=draw) < 0.6 for shape in net.shapes]
    bank = MaskBank(net, seed, pack(masks), classes)
    bank.frozen = [w.double() for w in bank.frozen]
    return bank


def images(n, inputs=7, seed=1):
    return torch.randn(n, 1, 1, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def landmarks(tasks=5, pixels=3, outputs=6, classes=2):
    """A bank where the answer is known, and images with their tasks.

    An image of task t is lit at t's pixels, the only ones that mask t reads. There it raises the logit of the first
    class and lowers those of superfluous outputs; other masks see nothing and answer evenly.
    """
    inputs = tasks * pixels
    reads = torch.eye(tasks, dtype=torch.bool).repeat_interleave(pixels, 1)
    bank = bank_of([reads[:, None].expand(-1, outputs, -1)], (), inputs, outputs, classes)
    sign = torch.tensor([1.0, 0.0] + [-1.0] * (outputs - 2), dtype=torch.float64)
    bank.frozen = [sign[:, None].expand(-1, inputs).contiguous()]
    owner = torch.arange(4 * tasks) * 3 % tasks
    light = torch.rand(len(owner), inputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    return bank, (light * reads[owner])[:, None, None], owner


class Opaque(Network):
    """A network that does not show its layers."""

    name = "opaque"

    def __init__(self, network):
        self.network = network

    def _shapes(self):
        return self.network.bind(self.inputs, self.outputs).shapes

    def describe(self):
        return self.network.describe()

    def __call__(self, weights, x, statistics=None):
        return self.network(weights, x)


@settings(deadline=None, max_examples=40)
@given(
    hidden=st.lists(st.integers(1, 6), max_size=3),
    inputs=st.integers(1, 9),
    k=st.integers(1, 6),
    n=st.integers(1, 4),
    seed=st.integers(0, 1000),
    objective=st.sampled_from(["H", "G"]),
    per_image=st.booleans(),
    chunk=st.sampled_from([None, 1, 200]),
    data=st.data(),
)
def test_the_identity_is_autograd_through_the_stack(hidden, inputs, k, n, seed, objective, per_image, chunk, data):
    bank, x = bank_of(k, hidden, inputs, seed=seed), images(n, inputs, seed)
    chosen = data.draw(st.none() | st.lists(st.integers(0, k - 1), min_size=1, unique=True))
    candidates = None if chosen is None else torch.tensor(chosen)
    expected = stacked_gradients(bank, x, objective, candidates, per_image)
    found = alpha_gradients(bank, x, objective, candidates, per_image, chunk)
    assert found.shape == (n if per_image else 1, k if chosen is None else len(chosen))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("objective", ["H", "G"])
def test_the_stack_agrees_with_finite_differences(objective):
    bank, x = bank_of(4), images(3)
    masks = [torch.cat(layer) for layer in zip(*[m for _, m in bank.chunks(3)], strict=True)]
    step = 1e-5

    def entropy_at(alpha):
        weights = [torch.einsum("k,kij->ij", alpha, m)[None] * w for m, w in zip(masks, bank.frozen, strict=True)]
        z = bank.network(weights, x[None])[0]
        if objective == "H":
            return objective_values(z, "H", 3)
        return z[:, 3:].exp().sum(1)  # what moves in G; its logarithm's slope has all outputs below

    even = torch.full((4,), 0.25, dtype=torch.float64)
    rises = torch.stack(
        [
            (entropy_at(even + step * e) - entropy_at(even - step * e)) / (2 * step)
            for e in torch.eye(4, dtype=torch.float64)
        ],
        1,
    )
    if objective == "G":
        rises /= bank.network(bank.mean_weights(), x[None])[0].exp().sum(1, keepdim=True)
    torch.testing.assert_close(alpha_gradients(bank, x, objective), rises, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(alpha_gradients(bank, x, objective, per_image=False), rises.mean(0, keepdim=True))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 70) | st.sampled_from([128, 250, 512]), st.integers(0, 2**31), st.data())
def test_bit_planes_are_the_same_product(masks, weights, seed, data):
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(masks, weights, generator=generator) < 0.5
    along = torch.randn(weights, generator=generator, dtype=torch.float64)
    dead = data.draw(st.integers(0, weights))
    along[dead : dead + data.draw(st.integers(0, weights))] = 0  # whole words of it, which are left out
    torch.testing.assert_close(inference._by_planes(pack([kept]), along), kept.double() @ along)


@pytest.mark.parametrize("together", [1, 2, 100])
def test_any_network_will_do(together, monkeypatch):
    monkeypatch.setattr(inference, "_together", lambda bank, device: together)
    bank, x = bank_of(4, network=Opaque(FullyConnected(hidden=[5, 4]))), images(5)
    torch.testing.assert_close(alpha_gradients(bank, x, "H"), stacked_gradients(bank, x, "H", per_image=True))
    plain = bank_of(4)
    for infer in INFERENCE.values():
        assert torch.equal(infer(bank, x, "G", candidates=None, per_image=True), infer(plain, x, "G"))


def test_many_images_go_in_parts(monkeypatch):
    bank, x = bank_of(4), images(7)
    whole = alpha_gradients(bank, x, "H")
    monkeypatch.setattr(inference, "IMAGES_AT_ONCE", 3)
    torch.testing.assert_close(alpha_gradients(bank, x, "H"), whole)


def test_single_precision_and_no_gradients_around():
    net = FullyConnected(hidden=[9]).bind((1, 1, 7), 6)
    masks = [torch.rand(5, *shape, generator=torch.Generator().manual_seed(2)) < 0.5 for shape in net.shapes]
    bank, x = MaskBank(net, 0, pack(masks), 3), images(4).float()
    with torch.no_grad():
        found = alpha_gradients(bank, x, "H")
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found, stacked_gradients(bank, x, "H", per_image=True), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", INFERENCE)
@pytest.mark.parametrize("objective", ["H", "G"])
def test_where_the_answer_is_known(method, objective):
    bank, x, owner = landmarks()
    assert torch.equal(INFERENCE[method](bank, x, objective, candidates=None, per_image=True), owner)
    for task in range(5):
        together = INFERENCE[method](bank, x[owner == task], objective, candidates=None, per_image=False)
        assert together.tolist() == [task]
    two = torch.tensor([3, 1])
    among = INFERENCE[method](bank, x[torch.isin(owner, two)], objective, candidates=two, per_image=True)
    assert torch.equal(among, owner[torch.isin(owner, two)])


@pytest.mark.parametrize("method", INFERENCE)
@pytest.mark.parametrize("per_image", [True, False])
def test_one_mask_leaves_no_choice(method, per_image):
    x = images(3)
    expected = [0] * (3 if per_image else 1)
    assert INFERENCE[method](bank_of(1), x, "H", candidates=None, per_image=per_image).tolist() == expected
    only = torch.tensor([2])
    found = INFERENCE[method](bank_of(4), x, "H", candidates=only, per_image=per_image)
    assert found.tolist() == [2] * len(expected)


@pytest.mark.parametrize("method", INFERENCE)
def test_without_masks_there_is_nothing_to_infer(method):
    for bank, candidates in ((bank_of(0), None), (bank_of(2), torch.tensor([], dtype=torch.int64))):
        with pytest.raises(UserError, match=r"no mask to choose .* train at least one task"):
            INFERENCE[method](bank, images(2), "H", candidates=candidates)


@pytest.mark.parametrize("method", INFERENCE)
@pytest.mark.parametrize("per_image", [True, False])
@pytest.mark.parametrize("k", range(1, 10))
def test_of_equal_masks_the_first_wins(method, per_image, k):
    dark = images(3) * 0  # all masks answer evenly and no slope is other than 0, to the last bit
    found = INFERENCE[method](bank_of(k), dark, "H", candidates=None, per_image=per_image)
    assert found.tolist() == [0] * (3 if per_image else 1)
    if k > 2:
        candidates = torch.tensor([k - 1, 1])
        found = INFERENCE[method](bank_of(k), dark, "H", candidates=candidates, per_image=per_image)
        assert found.tolist() == [1] * (3 if per_image else 1)


def test_one_shot_is_the_steepest_descent():
    bank, x = bank_of(6), images(9)
    assert torch.equal(one_shot(bank, x), stacked_gradients(bank, x, "H", per_image=True).argmin(1))
    assert torch.equal(one_shot(bank, x, "G", per_image=False), stacked_gradients(bank, x, "G").argmin(1))
    assert len(one_shot(bank, x).unique()) > 1
    chosen = torch.tensor([5, 0, 3])
    within = stacked_gradients(bank, x, "H", chosen, per_image=True).argmin(1)
    assert torch.equal(one_shot(bank, x, "H", chosen), chosen[within])


def halved(bank, x, objective, candidates):
    """Binary search for one decision, as one writes it down: the task, the rounds, and how near a call it was."""
    rounds, margin = 0, math.inf
    while len(candidates) > 1:
        gradients = stacked_gradients(bank, x, objective, torch.tensor(candidates))[0].tolist()
        ranked = sorted(zip(gradients, candidates, strict=True))
        keep = (len(candidates) + 1) // 2
        margin = min(margin, ranked[keep][0] - ranked[keep - 1][0])
        candidates = sorted(c for _, c in ranked[:keep])
        rounds += 1
    return candidates[0], rounds, margin


@settings(deadline=None, max_examples=20)
@given(
    k=st.integers(1, 11), seed=st.integers(0, 500), objective=st.sampled_from(["H", "G"]), together=st.integers(1, 4)
)
def test_binary_is_the_plain_loop(k, seed, objective, together):
    bank, x = bank_of(k, seed=seed), images(4, seed=seed)
    everything, odd = list(range(k)), list(range(0, k, 2))
    plain = [halved(bank, x[i : i + 1], objective, everything) for i in range(4)]
    mean, some = halved(bank, x, objective, everything), halved(bank, x[:1], objective, odd)
    assume(min(case[2] for case in (*plain, mean, some)) > 1e-9)  # else rounding decides
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "_together", lambda bank, device: together)
        assert binary(bank, x, objective).tolist() == [case[0] for case in plain]
    assert all(case[1] == math.ceil(math.log2(k)) for case in plain)
    assert binary(bank, x, objective, per_image=False).item() == mean[0]
    assert binary(bank, x[:1], objective, torch.tensor(odd)).item() == some[0]


@pytest.mark.parametrize("k", [1, 2, 3, 8, 9, 13])
def test_binary_ends_in_time_even_when_all_masks_are_equal(k, monkeypatch):
    sizes = []
    original = inference.alpha_gradients

    def counted(*arguments, **options):
        gradients = original(*arguments, **options)
        sizes.append(gradients.shape[1])
        return gradients

    monkeypatch.setattr(inference, "alpha_gradients", counted)
    one = [torch.ones(shape, dtype=torch.bool) for shape in [(4, 7), (6, 4)]]
    binary(bank_of([mask.expand(k, -1, -1) for mask in one], (4,)), images(3), per_image=False)
    assert len(sizes) <= math.ceil(math.log2(k)) + 1
    assert all(after == (before + 1) // 2 for before, after in itertools.pairwise(sizes))


@pytest.mark.parametrize("objective", ["H", "G"])
@pytest.mark.parametrize("chosen", [None, [4, 1, 2]])
def test_exhaustive_is_a_loop_over_masks(objective, chosen, monkeypatch):
    monkeypatch.setattr(inference, "_room", lambda device: (1000, 2**13))  # two images and a few masks at once
    bank, x = bank_of(6), images(5)
    among = sorted(chosen or range(6))
    values = torch.stack([COMPARED[objective](bank.logits(task, x), 3) for task in among], 1)
    candidates = None if chosen is None else torch.tensor(chosen)
    places = torch.tensor(among)
    assert torch.equal(exhaustive(bank, x, objective, candidates), places[values.argmin(1)])
    together = exhaustive(bank, x, objective, candidates, per_image=False)
    assert together.tolist() == [places[values.mean(0).argmin()].item()]


@pytest.mark.parametrize("per_image", [True, False])
def test_gradient_descent_is_autograd_step_by_step(per_image, monkeypatch):
    monkeypatch.setattr(inference, "_together", lambda bank, device: 2)
    bank, x = bank_of(6, seed=3), images(5, seed=4)
    masks = next(m for _, m in bank.chunks(6))
    rows = x[:, None] if per_image else x[None]
    alpha = torch.full((len(rows), 6), 1 / 6, dtype=torch.float64)
    seen = []
    original = inference._stepped
    monkeypatch.setattr(inference, "_stepped", lambda *a: seen.append(original(*a)) or seen[-1])
    found = gradient_descent(bank, x, "H", per_image=per_image, steps=4, rate=0.5)
    for _ in range(4):
        alpha = alpha.detach().requires_grad_()
        weights = [torch.einsum("tk,kij->tij", alpha, m) * w for m, w in zip(masks, bank.frozen, strict=True)]
        objective_values(bank.network(weights, rows), "H", 3).mean(1).sum().backward()
        slope = alpha.grad - alpha.grad.mean(1, keepdim=True)
        moved = (alpha.detach() - 0.5 * slope).clamp(min=0)
        alpha = moved / moved.sum(1, keepdim=True)
    assert torch.equal(found, alpha.argmax(1))
    torch.testing.assert_close(seen[-1], alpha[-len(seen[-1]) :])
    assert torch.equal(
        gradient_descent(bank, x, "H", per_image=per_image, steps=1), one_shot(bank, x, "H", None, per_image)
    )


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-50, 50)), min_size=1, max_size=6), st.floats(0.01, 10))
def test_a_step_stays_on_the_simplex(pairs, rate):
    alpha = torch.tensor([[a + 1e-3 for a, _ in pairs]], dtype=torch.float64)
    stepped = inference._stepped(alpha / alpha.sum(), torch.tensor([[s for _, s in pairs]], dtype=torch.float64), rate)
    assert (stepped >= 0).all()
    assert stepped.sum().item() == pytest.approx(1)


def test_mixed_weights_are_the_weighted_mean_of_masks():
    bank, alpha = bank_of(4), torch.rand(3, 4, dtype=torch.float64)
    masks = next(m for _, m in bank.chunks(4))
    for found, mask, w in zip(inference._mixed_weights(bank, bank.packed, alpha), masks, bank.frozen, strict=True):
        torch.testing.assert_close(found, torch.einsum("tk,kij->tij", alpha, mask) * w)


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=8))
def test_uniformity_is_the_largest_share_of_the_mean(slopes):
    gradients = torch.tensor(slopes)
    v = [-s for s in gradients.double().tolist()]
    expected = math.exp(max(v)) / (sum(map(math.exp, v)) / len(v))
    assert uniformity(gradients) == pytest.approx(expected)
    assert 1 - 1e-9 <= uniformity(gradients) <= len(v) + 1e-9


def test_images_are_new_when_no_mask_stands_out():
    k, eps = 5, 0.125
    edge = math.log((1 + eps) * (k - 1) / (k - 1 - eps))  # e^v / ((e^v + k - 1) / k) = 1 + eps
    for excess, new in ((edge - 1e-3, True), (edge + 1e-3, False), (0.0, True)):
        gradients = torch.zeros(k)
        gradients[3] = -excess
        assert (uniformity(gradients) < 1 + eps) is new
        assert (uniformity(gradients + 7) < 1 + eps) is new
        assert (uniformity(gradients.flip(0)) < 1 + eps) is new


def test_with_one_mask_everything_is_new():
    for slope in (-100.0, 0.0, 100.0):
        assert uniformity(torch.tensor([slope])) == 1
