"""What the right mask makes small: closed forms of values and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from reprise.errors import UserError
from reprise.papers.supsup.objectives import (
    COMPARED,
    OBJECTIVES,
    check_objective,
    entropy,
    g,
    objective_values,
    superfluous,
)

numbers = st.floats(-20, 20)


@st.composite
def logits_and_real(draw):
    """Logits ``[s]`` of which some are superfluous."""
    z = draw(st.lists(numbers, min_size=2, max_size=6))
    return torch.tensor(z, dtype=torch.float64), draw(st.integers(1, len(z) - 1))


def slope(function, z):
    z = z.clone().requires_grad_()
    return torch.autograd.grad(function(z).sum(), z)[0]


def test_by_hand():
    z = torch.tensor([[0.0, 0.0, 0.0, 0.0], [math.log(3), 0.0, -math.inf, -math.inf]]).nan_to_num(neginf=-1e4)
    quarter = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert entropy(z).tolist() == pytest.approx([math.log(4), quarter])
    assert g(z, 2).tolist() == pytest.approx([math.log(4), math.log(4)])
    assert superfluous(z, 1).tolist() == pytest.approx([math.log(4), math.log(4 / 3)])
    assert torch.equal(objective_values(z, "H", 1), entropy(z))
    assert torch.equal(objective_values(z, "G", 1), g(z, 1))


def test_the_entropy_of_extreme_logits_is_finite():
    z = torch.tensor([1e4, 0.0, -1e4])
    assert entropy(z).item() == 0
    assert torch.equal(slope(entropy, z), torch.zeros(3))


@given(logits_and_real())
def test_gradient_of_the_entropy(case):
    z, _ = case
    p, h = z.softmax(0), entropy(z)
    torch.testing.assert_close(slope(entropy, z), -p * (z.log_softmax(0) + h))


@given(logits_and_real())
def test_g_has_the_gradient_of_the_cross_entropy_through_superfluous_outputs_alone(case):
    z, real = case
    found = slope(lambda v: g(v, real), z)
    assert torch.equal(found[:real], torch.zeros(real, dtype=z.dtype))
    assert g(z, real).item() == pytest.approx(z.logsumexp(0).item())
    for label in range(real):  # Lemma 1
        supervised = slope(lambda v, label=label: F.cross_entropy(v[None], torch.tensor([label])), z)
        torch.testing.assert_close(found[real:], supervised[real:])


@given(logits_and_real())
def test_what_is_compared_between_masks(case):
    z, real = case
    assert superfluous(z, real) >= 0
    probability = z.softmax(0)[:real].sum()
    torch.testing.assert_close(superfluous(z, real).neg().exp(), probability)
    torch.testing.assert_close(slope(lambda v: superfluous(v, real), z)[real:], slope(lambda v: g(v, real), z)[real:])


def test_any_shape_in_front():
    z = torch.randn(2, 3, 5)
    assert OBJECTIVES.keys() == COMPARED.keys() == {"H", "G"}
    for objective in (*OBJECTIVES.values(), *COMPARED.values()):
        torch.testing.assert_close(objective(z, 2)[1, 2], objective(z[1, 2], 2))
        assert objective(z, 2).shape == (2, 3)


def test_g_without_superfluous_outputs_is_refused():
    check_objective("H", 10, 10)
    check_objective("G", 11, 10)
    with pytest.raises(UserError, match=r"objective=G .* all 10 outputs .* outputs above 10, or objective=H\.$"):
        check_objective("G", 10, 10)
    assert torch.equal(slope(lambda v: g(v, 3), torch.randn(3)), torch.zeros(3))


def test_an_unknown_objective_is_refused():
    with pytest.raises(UserError, match=r"no objective 'M'; known objectives: G, H\.$"):
        check_objective("M", 20, 10)
