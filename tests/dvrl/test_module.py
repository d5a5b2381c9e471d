"""DVRL itself: one outer step by hand, its switches, whole runs on tiny data, and its signs of health."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from dvrl_tasks import fit, silent, small_data, small_dvrl
from pydantic import ValidationError
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from reprise.errors import UserError
from reprise.papers.dvrl import policy
from reprise.papers.dvrl.estimators import Estimator
from reprise.papers.dvrl.predictors import MLP, Linear


def standardised(columns):
    return (columns - columns.mean(0)) / columns.std(0)


@pytest.fixture(scope="module")
def data():
    return small_data()


@pytest.fixture
def drawn(monkeypatch):
    """Every draw of selections: probabilities and what came of them."""
    seen, original = [], policy.select

    def recorded(probabilities, count, generator):
        seen.append((probabilities, original(probabilities, count, generator)))
        return seen[-1][1]

    monkeypatch.setattr(policy, "select", recorded)
    return seen


def ready(data, **changes):
    """A module that can be stepped without a trainer."""
    module = silent(small_dvrl(data, **changes))
    module.prepare(data.task)
    return module


def rewarding(module, *rewards):
    """Make the fits' scores known: that many of ``rewards`` as predictors were fitted."""
    module.reward = lambda outputs, y: torch.tensor(rewards)[: outputs.shape[1]]
    return module


def surrogate(module, drawn, advantages, start):
    """-1/G sum_g A_g log pi(s_g) from the recorded draw, with the estimator as it was."""
    logits = start(*module.inputs)
    selections = drawn[-1][1]
    chosen = torch.where(selections == 1, logits.sigmoid().log(), (1 - logits.sigmoid()).log())
    return -(torch.tensor(advantages) * chosen.sum(1)).mean()


class Fixed(nn.Module):
    """An estimator whose answer is given."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, *inputs):
        return self.logits

    def dead_fraction(self, *inputs):
        return torch.tensor(0.0)


@pytest.mark.parametrize("baseline", ["leave_one_out", "moving_average", "fixed"])
def test_one_step_gives_a_finite_loss_and_gradients_in_the_estimator_only(data, baseline):
    module = ready(data, baseline=baseline, penalty_weight=10.0, entropy_weight=0.1, shortcut=True, label_branch=0.5)
    loss = module.training_step(0)
    loss.backward()
    assert loss.isfinite()
    assert {name.split(".")[0] for name, _ in module.named_parameters()} == {"estimator"}
    for p in module.estimator.parameters():
        assert p.grad.isfinite().all()
    assert sum(p.grad.abs().sum() for p in module.estimator.parameters()) > 0
    assert not any(b.requires_grad for b in module.buffers())
    (group,) = module.configure_optimizers().param_groups
    assert len(group["params"]) == len(list(module.estimator.parameters()))


def test_leave_one_out_loss_by_hand(data, drawn):
    module = rewarding(ready(data), 1.0, 2.0, 3.0, 6.0)
    loss = module.training_step(0)
    # means of the others: 11/3, 10/3, 3, 2
    by_hand = surrogate(module, drawn, [-8 / 3, -4 / 3, 0.0, 4.0], module.estimator)
    torch.testing.assert_close(loss, by_hand)
    assert module.delta == 0


def test_moving_average_loss_by_hand(data, drawn):
    module = rewarding(ready(data, baseline="moving_average", baseline_window=4), 1.0, 2.0, 3.0, 6.0)
    # Algorithm 1: delta starts at 0 and is updated after it was used
    for delta in (0.0, 3 / 4, 3 / 4 + (3 - 3 / 4) / 4):
        assert module.delta.item() == pytest.approx(delta)
        by_hand = [r - delta for r in (1.0, 2.0, 3.0, 6.0)]
        loss = module.training_step(0)
        torch.testing.assert_close(loss, surrogate(module, drawn, by_hand, module.estimator))


def test_fixed_baseline_is_the_predictor_of_all_rows(data, drawn):
    module = rewarding(ready(data, baseline="fixed"), 1.5, 2.0, 3.0, 6.0)
    loss = module.training_step(0)
    assert module.delta == 1.5  # asked for one predictor's score
    torch.testing.assert_close(loss, surrogate(module, drawn, [0.0, 0.5, 1.5, 4.5], module.estimator))

    module = ready(data, baseline="fixed")
    module.training_step(0)
    everything = module.reward(module.outputs_on_valid(torch.ones(1, 30), module.predictor.steps), module.task.y_valid)[
        0
    ]
    torch.testing.assert_close(module.delta, everything)


def test_better_selections_become_more_likely(data, drawn):
    module = rewarding(ready(data, baseline="fixed", selections=1), 1.0)
    module.delta.fill_(0.0)
    module._score_of_all_rows = lambda: torch.tensor(0.0)
    module.training_step(0).backward()
    before = policy.log_probability(module.ranking(), drawn[-1][1])
    with torch.no_grad():
        for p in module.estimator.parameters():
            p -= 1e-3 * p.grad
    assert policy.log_probability(module.ranking(), drawn[-1][1]) > before


def test_running_scale_divides_by_the_standard_deviation(data, drawn):
    module = rewarding(ready(data, advantage_scale="running"), 1.0, 2.0, 3.0, 6.0)
    loss = module.training_step(0)
    spread = math.sqrt(14 / 3)  # squared distances 4, 1, 0, 9 from the mean, over 4 - 1
    by_hand = [a / spread for a in (-8 / 3, -4 / 3, 0.0, 4.0)]
    torch.testing.assert_close(loss, surrogate(module, drawn, by_hand, module.estimator))
    assert module.reward_variance.item() == pytest.approx(spread**2)


def test_penalty_and_entropy_enter_the_loss(data, drawn):
    module = rewarding(ready(data, penalty_weight=7.0, penalty_on="logit", entropy_weight=0.3), *[1.0] * 4)
    logits = torch.full((30,), 4.0)
    logits[:10] = 2.0
    module.estimator = Fixed(logits)
    mean = (20 * 4 + 10 * 2) / 30
    entropy = torch.distributions.Bernoulli(logits=logits).entropy().sum()
    # equal rewards leave no advantage, so the penalty and the entropy are all there is
    expected = 7 * (mean - math.log(9)) - 0.3 * entropy.item()
    assert module.training_step(0).item() == pytest.approx(expected, rel=1e-5)


def test_predictor_init_continues_or_resets(data):
    for init, f in itertools.product(("reset", "continue"), ("linear", "mlp")):
        predictor = Linear(3, 6, 1.0, 1e-3) if f == "linear" else MLP(3, 6, 0.01, 1e-3, [5])
        module = ready(data, predictor_init=init, predictor=predictor)
        before = [getattr(module, name).clone() for name in module.theta_names]
        module.training_step(0)
        after = [getattr(module, name).clone() for name in module.theta_names]
        assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [init == "reset"] * len(before)
        module.training_step(0)
        third = [getattr(module, name) for name in module.theta_names]
        assert [torch.equal(a, b) for a, b in zip(after, third, strict=True)] == [init == "reset"] * len(before)


def test_copies_of_a_module_share_no_storage(data):
    module = small_dvrl(data, predictor=MLP(3, 6, 0.01, 1e-3, [5]))
    twin = copy.deepcopy(module)
    ours, theirs = ({t.untyped_storage().data_ptr() for t in m.state_dict().values()} for m in (module, twin))
    assert not ours & theirs
    assert len(ours) == len(module.state_dict())


def test_outer_batch_offers_some_rows_only(data, drawn):
    module = ready(data, outer_batch=7)
    offered = []
    original = module.estimator.forward
    module.estimator.forward = lambda x, y, m: offered.append(x) or original(x, y, m)
    module.training_step(0)
    probabilities, selections = drawn[0]
    assert selections.shape == (4, 7)
    torch.testing.assert_close(probabilities, original(*module.inputs).sigmoid()[_rows(module, offered[0])])
    assert ready(data, outer_batch=30).training_step(0).isfinite()


def _rows(module, x):
    """Which training rows these are."""
    return torch.cdist(x, module.inputs[0]).argmin(1)


def test_inner_fits_get_the_selected_rows_and_empty_selections_a_coins_choice(data):
    module = ready(data)
    module.estimator = Fixed(torch.full((30,), -200.0))  # selects nothing
    seen = []
    original = module.predictor.fit
    module.predictor.fit = lambda x, t, weights, *rest: seen.append(weights) or original(x, t, weights, *rest)
    loss = module.training_step(0)
    assert 0.2 < seen[0].mean() < 0.8
    assert loss.isfinite()


def test_marginal_information_is_the_distance_to_the_validation_model(data):
    module = ready(data, standardise=False)
    x, y, m = module.inputs
    assert torch.equal(x, data.task.x_train)
    assert y.argmax(1).equal(data.task.y_train)
    torch.testing.assert_close(m, (y - module.validation_predictions).abs())
    given = m[torch.arange(30), data.task.y_train]
    torch.testing.assert_close(given, 1 - module.validation_score())


def test_standardised_inputs(data):
    module = ready(data)
    for part in (module.inputs[0], module.inputs[2]):
        torch.testing.assert_close(part.mean(0), torch.zeros(part.shape[1]), atol=1e-5, rtol=0)
        torch.testing.assert_close(part.std(0), torch.ones(part.shape[1]))


def test_cost_is_counted(data):
    module = ready(data)
    module.training_step(0)
    module.training_step(0)
    assert (int(module.fits), int(module.updates)) == (8, 8 * 3)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"baseline": "moving_average", "predictor_init": "continue", "selections": 1, "outer_batch": 20},
        {"baseline": "fixed", "selections": 1, "standardise": False, "activation": "relu", "reward": "accuracy"},
    ],
    ids=["stable", "paper", "official"],
)
def test_the_seed_decides_the_values(data, changes):
    predictor = MLP(3, 6, 0.01, 1e-3, [5], batch_size=8)
    runs = [fit(small_dvrl(data, seed=seed, predictor=predictor, **changes), data) for seed in (1, 1, 2)]
    first, again, other = (run.ranking() for run in runs)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.isfinite().all()
    assert runs[0].epochs * runs[0].steps_per_epoch == 4


def test_every_step_draws_afresh(data, drawn):
    fit(small_dvrl(data, learning_rate=1e-12), data)
    probabilities, selections = zip(*drawn, strict=True)
    torch.testing.assert_close(probabilities[0], probabilities[3])
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(selections, 2))


def test_building_a_module_leaves_the_global_randomness_alone(data):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    small_dvrl(data)
    assert torch.equal(torch.rand(3), expected)


def test_values_are_logits_and_weights_their_probabilities(data):
    module = ready(data)
    torch.testing.assert_close(module.weights(), 1 / (1 + (-module.ranking()).exp()))
    module.estimator = Fixed(torch.linspace(50, 90, 30))
    assert len(module.weights().unique()) == 1
    assert len(module.ranking().unique()) == 30


def test_cosine_schedule_ends_at_a_hundredth(data):
    module = small_dvrl(data, schedule="cosine", outer_steps=10, learning_rate=0.5)
    chosen = module.configure_optimizers()
    for _ in range(10):
        chosen["optimizer"].step()
        chosen["lr_scheduler"]["scheduler"].step()
    assert chosen["optimizer"].param_groups[0]["lr"] == pytest.approx(0.005)
    assert chosen["lr_scheduler"]["interval"] == "step"


def test_dvrl_learns_to_leave_damaged_rows_out():
    data = small_data(rows=300, train=80, validation=60, noise=0.3)
    predictor = Linear(steps=10, final_steps=30, learning_rate=1.0, l2=1e-3)
    options = {"outer_steps": 60, "selections": 8, "advantage_scale": "running", "shortcut": True}
    module = fit(small_dvrl(data, predictor=predictor, learning_rate=0.03, **options), data)
    metrics = module.final_metrics(data)
    assert metrics["discovery/auroc"] > 0.85
    assert metrics["health/collapsed"] == metrics["health/inverted"] == 0
    damaged = data.task.corrupted
    assert module.weights()[damaged].mean() < module.weights()[~damaged].mean() - 0.1
    assert metrics["cost/predictor_fits"] == 60 * 8
    assert metrics["cost/predictor_updates"] == 60 * 8 * 10


def test_regression_end_to_end():
    data = small_data(classes=0, rows=120, train=40, noise=0.3)
    predictor = Linear(steps=5, final_steps=300, learning_rate=1.0, l2=1e-3)
    options = {"outer_steps": 6, "advantage_scale": "running", "reward": "accuracy", "shortcut": True}
    module = fit(small_dvrl(data, predictor=predictor, **options), data)
    metrics = module.final_metrics(data)
    assert all(math.isfinite(value) for value in metrics.values())
    assert {"weighted/test_rmse", "best_subset/test_rmse", "discovery/auroc", "health/collapsed"} <= set(metrics)
    assert metrics["reference/clean_only"] < metrics["reference/all"]
    assert module.inputs[1].shape == module.inputs[2].shape == (40, 1)
    assert module.ranking().shape == (40,)


def test_healthy_values(data):
    module = ready(data)
    module.estimator = Fixed(3 * standardised(module.validation_score().unsqueeze(1)).squeeze(1))
    found = module.health()
    assert (found["health/collapsed"], found["health/inverted"]) == (0, 0)
    assert found["health/agreement_with_validation_model"] == pytest.approx(1)
    assert found["health/mean_probability"] == pytest.approx(module.weights().mean().item())
    assert found["health/probability_std"] == pytest.approx(module.weights().std().item())


def test_negated_values_are_inverted(data):
    module = ready(data)
    module.estimator = Fixed(-3 * standardised(module.validation_score().unsqueeze(1)).squeeze(1))
    found = module.health()
    assert (found["health/collapsed"], found["health/inverted"]) == (0, 1)
    assert found["health/agreement_with_validation_model"] == pytest.approx(-1)


@pytest.mark.parametrize("level", [0.0, 0.3, -60.0, 60.0])
def test_equal_values_are_collapsed(data, level):
    module = ready(data)
    module.estimator = Fixed(torch.full((30,), level))
    found = module.health()
    assert found["health/collapsed"] == 1
    assert found["health/inverted"] == 0
    assert all(math.isfinite(value) for value in found.values())


@pytest.mark.parametrize("sign", [1, -1])
def test_selecting_everything_or_nothing_is_a_collapse_even_when_a_row_differs(data, sign):
    module = ready(data)
    logits = torch.full((30,), 60.0 * sign)
    logits[3] = 0.1
    module.estimator = Fixed(logits)
    found = module.health()
    assert found["health/probability_std"] > 0.05
    assert found["health/collapsed"] == 1


def test_dead_units_show_in_the_health(data):
    module = ready(data)
    with torch.no_grad():
        for p in module.estimator.parameters():
            p.zero_()
    assert module.health()["health/dead_units"] == 1
    assert module.health()["health/collapsed"] == 1


def test_a_predictor_that_starts_afresh_cannot_continue(data):
    trees = Estimator(classifier=DecisionTreeClassifier(max_depth=2))
    with pytest.raises(UserError, match="DecisionTreeClassifier is fitted afresh each time: set"):
        small_dvrl(data, predictor=trees, predictor_init="continue")


def test_leave_one_out_needs_two_selections(data):
    with pytest.raises(UserError, match=r"method\.module\.selections >= 2"):
        small_dvrl(data, selections=1)


def test_a_running_scale_needs_two_selections(data):
    with pytest.raises(UserError, match=r"method\.module\.selections >= 2"):
        small_dvrl(data, selections=1, baseline="moving_average", advantage_scale="running")


@pytest.mark.parametrize("wrong", [{"outer_steps": 0}, {"baseline": "none"}, {"learning_rate": 0}, {"penalty_on": "p"}])
def test_wrong_options_are_refused(data, wrong):
    with pytest.raises(ValidationError):
        small_dvrl(data, **wrong)
