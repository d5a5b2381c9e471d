"""The policy gradient's equations, against enumeration and hand-made numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from dvrl_tasks import generator, quick
from hypothesis import given
from hypothesis import strategies as st

from reprise.papers.dvrl import policy

rows = st.lists(st.tuples(st.floats(-60, 60), st.booleans()), min_size=1, max_size=12)
rewards_of = st.lists(st.floats(-5, 5), min_size=2, max_size=10)

EIGHT = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64)
LOGITS = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)
REWARDS = torch.tensor([0.1, -0.7, 1.3, 0.4, -2.0, 0.9, 0.2, 1.1], dtype=torch.float64)


def gradient(loss_of, logits):
    logits = logits.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss_of(logits), logits)
    return found


def chances():
    """Probability of each of the eight selections, by multiplication."""
    p = LOGITS.sigmoid()
    return (EIGHT * p + (1 - EIGHT) * (1 - p)).prod(1)


def gradient_of_expected_reward():
    """d E[R] / d l_i = p_i (1 - p_i) (E[R | s_i = 1] - E[R | s_i = 0])."""
    p, chance = LOGITS.sigmoid(), chances()
    slopes = []
    for i in range(3):
        chosen = EIGHT[:, i] == 1
        given_chosen = (chance * REWARDS)[chosen].sum() / p[i]
        given_left = (chance * REWARDS)[~chosen].sum() / (1 - p[i])
        slopes.append(p[i] * (1 - p[i]) * (given_chosen - given_left))
    return torch.stack(slopes)


@quick
@given(rows)
def test_log_probability_is_the_sum_of_bernoulli_log_probabilities(drawn):
    logits, selection = (torch.tensor(part, dtype=torch.float64) for part in zip(*drawn, strict=True))
    found = policy.log_probability(logits, torch.stack([selection, 1 - selection]))
    for g, chosen in enumerate((selection, 1 - selection)):
        one_by_one = torch.distributions.Bernoulli(logits=logits).log_prob(chosen).sum()
        by_formula = -np.logaddexp(0, np.where(chosen == 1, -logits, logits)).sum()
        assert found[g].item() == pytest.approx(one_by_one.item(), rel=1e-12, abs=1e-12)
        assert found[g].item() == pytest.approx(by_formula, rel=1e-12, abs=1e-12)


def test_log_probability_of_the_unlikely_stays_finite_in_single_precision():
    logits = torch.tensor([60.0, -60.0])
    assert policy.log_probability(logits, torch.tensor([[0.0, 1.0], [1.0, 0.0]])).tolist() == pytest.approx([-120, 0])
    slope = gradient(lambda v: policy.log_probability(v, torch.tensor([[0.0, 1.0]])).sum(), logits)
    assert slope.tolist() == [-1, 1]


def test_the_probabilities_of_all_selections_are_theirs_and_add_up_to_one():
    found = policy.log_probability(LOGITS, EIGHT).exp()
    torch.testing.assert_close(found, chances())
    assert found.sum().item() == pytest.approx(1)


def test_surrogate_gradient_is_the_hand_formula():
    selections = EIGHT[[1, 6, 7, 2]]
    advantages = torch.tensor([0.5, -1.0, 2.0, 0.25], dtype=torch.float64)
    by_hand = -(advantages.unsqueeze(1) * (selections - LOGITS.sigmoid())).sum(0) / 4
    torch.testing.assert_close(gradient(lambda v: policy.reinforce(v, selections, advantages), LOGITS), by_hand)


@pytest.mark.parametrize("baseline", [0.0, 0.8])
def test_expected_surrogate_gradient_is_that_of_the_expected_reward(baseline):
    expected = torch.zeros(3, dtype=torch.float64)
    for chance, selection, reward in zip(chances(), EIGHT, REWARDS, strict=True):
        advantage = (reward - baseline).unsqueeze(0)
        expected += chance * gradient(lambda v, s=selection, a=advantage: policy.reinforce(v, s[None], a), LOGITS)
    torch.testing.assert_close(-expected, gradient_of_expected_reward())


def test_leave_one_out_advantages_keep_the_gradient_unbiased():
    expected = torch.zeros(3, dtype=torch.float64)
    for first, second in itertools.product(range(8), repeat=2):
        pair = [first, second]
        advantages = policy.leave_one_out(REWARDS[pair])
        chance = chances()[first] * chances()[second]
        expected += chance * gradient(lambda v, p=pair, a=advantages: policy.reinforce(v, EIGHT[p], a), LOGITS)
    torch.testing.assert_close(-expected, gradient_of_expected_reward())


@quick
@given(rewards_of)
def test_leave_one_out_compares_with_the_mean_of_the_others(rewards):
    found = policy.leave_one_out(torch.tensor(rewards, dtype=torch.float64)).tolist()
    explicit = [r - float(np.mean(rewards[:g] + rewards[g + 1 :])) for g, r in enumerate(rewards)]
    assert found == pytest.approx(explicit, abs=1e-9)
    assert sum(found) == pytest.approx(0, abs=1e-9)


def test_moving_average_by_hand():
    delta = torch.tensor(0.0)
    for rewards, expected in (([1.0, 3.0], 0.5), ([4.5], 1.5), ([-2.0, -3.0], 0.5)):
        # window 4: 0 + 2/4; 0.5 * 3/4 + 4.5/4; 1.5 * 3/4 - 2.5/4
        delta = policy.moving_average(delta, torch.tensor(rewards), window=4)
        assert delta.item() == pytest.approx(expected)


def test_moving_average_of_window_one_is_the_last_mean():
    assert policy.moving_average(torch.tensor(7.0), torch.tensor([1.0, 2.0]), window=1).item() == pytest.approx(1.5)


@pytest.mark.parametrize("on", ["probability", "logit"])
@pytest.mark.parametrize("logits", [[0.0, 0.0], [2.1, 2.1], [-2.1, -2.1], [50.0, -50.0]])
def test_penalty_is_zero_inside_the_bounds(on, logits):
    logits = torch.tensor(logits)
    assert policy.exploration_penalty(logits, on).item() == 0
    assert gradient(lambda v: policy.exploration_penalty(v, on), logits).tolist() == [0, 0]


@pytest.mark.parametrize("sign", [1, -1])
def test_penalty_outside_the_bounds_by_hand(sign):
    logits = sign * torch.tensor([3.0, 5.0])
    mean = (1 / (1 + math.exp(-3)) + 1 / (1 + math.exp(-5))) / 2
    assert policy.exploration_penalty(logits, "probability").item() == pytest.approx(mean - 0.9, rel=1e-5)
    assert policy.exploration_penalty(logits, "logit").item() == pytest.approx(4 - math.log(9), rel=1e-5)
    assert policy.exploration_penalty(logits, "logit", bound=0.99).item() == 0  # log 99 is 4.6


@pytest.mark.parametrize("sign", [1, -1])
def test_only_the_penalty_on_logits_still_pulls_when_the_sigmoid_is_saturated(sign):
    logits = sign * torch.full((4,), 60.0)
    assert policy.exploration_penalty(logits, "probability").item() == pytest.approx(0.1)
    assert gradient(lambda v: policy.exploration_penalty(v, "probability"), logits).abs().max() < 1e-20
    assert gradient(lambda v: policy.exploration_penalty(v, "logit"), logits).tolist() == [sign * 0.25] * 4


def test_entropy_and_its_gradient_in_closed_form():
    p = LOGITS.sigmoid()
    closed = -(p * p.log() + (1 - p) * (1 - p).log()).mean()
    torch.testing.assert_close(policy.entropy(LOGITS), closed)
    torch.testing.assert_close(gradient(policy.entropy, LOGITS), -LOGITS * p * (1 - p) / 3)
    assert policy.entropy(torch.zeros(2)).item() == pytest.approx(math.log(2))
    assert policy.entropy(torch.tensor([60.0, -60.0])).item() == pytest.approx(0, abs=1e-6)


def test_selections_come_with_the_asked_frequencies():
    probabilities = torch.tensor([0.0, 0.1, 0.5, 0.93, 1.0])
    drawn = policy.select(probabilities, 20_000, generator())
    assert drawn.shape == (20_000, 5)
    assert set(drawn.unique().tolist()) == {0, 1}
    frequencies = drawn.mean(0)
    assert (frequencies[0], frequencies[4]) == (0, 1)
    bound = 4 * (probabilities * (1 - probabilities) / 20_000).sqrt()
    assert ((frequencies - probabilities).abs() <= bound).all()
    assert abs(torch.corrcoef(drawn[:, 1:3].T)[0, 1]) < 4 / math.sqrt(20_000)


def test_selections_depend_on_the_generator_alone():
    probabilities = torch.full((30,), 0.5)
    first, again, other = (policy.select(probabilities, 3, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_only_empty_selections_are_redrawn():
    selections = torch.zeros(4, 2_000)
    selections[1, 5] = 1
    selections[3] = 1
    before = selections.clone()
    filled = policy.fill_empty(selections, generator())
    assert torch.equal(selections, before)
    assert torch.equal(filled[[1, 3]], selections[[1, 3]])
    for g in (0, 2):
        assert filled[g].mean().item() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(2_000))
    assert not torch.equal(filled[0], filled[2])
