"""The search for a mask, where its outcome is known."""

from __future__ import annotations

from functools import partial

import pandas as pd
import pytest
import torch

from reprise.papers.supsup import recovery
from reprise.papers.supsup.hopfield import WRITE, energy
from reprise.papers.supsup.networks import signed_constants
from reprise.papers.supsup.objectives import entropy
from reprise.papers.supsup.recovery import Recovery, recover
from reprise.papers.supsup.unit_masks import UnitMasked, hard

WIDTHS = [60, 40]
SGD = partial(torch.optim.SGD, lr=0.5, momentum=0.9)


def setting(tasks=3, write="storkey"):
    """A network, random masks, Hopfield networks that hold them, and batches of noise."""
    generator = torch.Generator().manual_seed(4)
    network = UnitMasked(hidden=WIDTHS).bind((1, 2, 4), 5)
    weights = signed_constants(network.shapes, 3)
    stored = torch.randint(2, (tasks, sum(WIDTHS)), generator=generator) > 0
    psi = [torch.zeros(d, d) for d in WIDTHS]
    for z in 2 * stored.float() - 1:
        psi = [WRITE[write](p, part) for p, part in zip(psi, z.split(WIDTHS), strict=True)]
    batches = [torch.randn(6, 1, 2, 4, generator=generator) for _ in range(2)]
    return {"network": network, "weights": weights, "psi": psi, "batches": batches, "stored": stored}


@pytest.mark.parametrize("write", list(WRITE))
def test_energy_alone_leads_back_to_a_stored_mask(write):
    """From its own z with a tenth of the units turned, and hardly any entropy: gamma is large."""
    options = setting(write=write)
    z = 2 * options["stored"][1].float() - 1
    z[::10] *= -0.3
    found = recover(start=z.split(WIDTHS), steps=12, gamma=10.0, optimizer=SGD, **options)
    assert found.masks.shape == (13, 100)
    assert found.distances[0, 1] == 10
    assert found.distances[-1].tolist()[1] == 0
    assert found.nearest == 1
    assert torch.equal(found.mask, options["stored"][1])
    assert found.energies[-1] < found.energies[0]
    assert 0 < found.steps < 12
    assert not torch.equal(found.masks[found.steps - 1], found.mask)


def test_three_steps_by_autograd():
    """The loss as printed, by plain gradient descent; batches are taken in turn."""
    options = setting()
    start = torch.linspace(-0.3, 0.4, 100)
    rate, gamma, steps = 0.7, 0.01, 3
    found = recover(
        start=start.split(WIDTHS), steps=steps, gamma=gamma, optimizer=partial(torch.optim.SGD, lr=rate), **options
    )
    scores = [s.clone().requires_grad_() for s in start.split(WIDTHS)]
    for t in (1, 2, 3):
        units = [hard(s) for s in scores]
        x = options["batches"][(0, 1, 0)[t - 1]]
        h = entropy(options["network"].masked(options["weights"], [m[None] for m in units], x[None])[0]).mean()
        e = sum(energy(p, 2 * m - 1) for p, m in zip(options["psi"], units, strict=True))
        assert float(found.energies[t - 1]) == pytest.approx(e.item(), abs=1e-4)
        gradients = torch.autograd.grad((1 - t / steps) * h + gamma * t / steps * e, scores)
        scores = [(s - rate * g).detach().requires_grad_() for s, g in zip(scores, gradients, strict=True)]
        assert torch.equal(found.masks[t], torch.cat(scores) >= 0)
    assert not torch.equal(found.masks[0], found.masks[-1])


def test_what_is_found_does_not_depend_on_the_masks_it_is_compared_with():
    options, start = setting(), torch.zeros(100)
    first = recover(start=start.split(WIDTHS), steps=4, gamma=0.1, optimizer=SGD, **options)
    options["stored"] = ~options["stored"]
    second = recover(start=start.split(WIDTHS), steps=4, gamma=0.1, optimizer=SGD, **options)
    assert torch.equal(first.masks, second.masks)
    assert torch.equal(first.distances + second.distances, torch.full((5, 3), 100))
    assert torch.equal(start, torch.zeros(100)), "the mean is left alone"


def test_steps_count_to_the_first_time_that_the_mask_is_final():
    trail = torch.tensor([[0, 0], [1, 0], [1, 1], [1, 0], [1, 0]]) > 0
    assert Recovery(trail, torch.zeros(5), torch.zeros(5, 1)).steps == 1
    assert Recovery(trail[[1, 1, 1]], torch.zeros(3), torch.zeros(3, 1)).steps == 0
    assert Recovery(trail[:3], torch.zeros(3), torch.tensor([[0, 1, 2], [2, 3, 1], [4, 2, 2]])).nearest == 1


def test_files_of_a_run(tmp_path):
    one = Recovery(torch.zeros(2, 4) > 0, torch.tensor([-1.5, -2.0]), torch.tensor([[3, 1], [4, 0]]))
    other = Recovery(torch.zeros(3, 4) > 0, torch.tensor([-1.5, -3, -4]), torch.tensor([[3, 1], [2, 2], [1, 3]]))
    table, figure = recovery.write(tmp_path, [one, other])
    frame = pd.read_csv(table)
    assert frame.columns.tolist() == ["task", "step", "energy", "to_task_0", "to_task_1"]
    assert frame.values.tolist() == [
        [0, 0, -1.5, 3, 1],
        [0, 1, -2, 4, 0],
        [1, 0, -1.5, 3, 1],
        [1, 1, -3, 2, 2],
        [1, 2, -4, 1, 3],
    ]
    assert figure.read_bytes()[:4] == b"\x89PNG"
