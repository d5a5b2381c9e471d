"""Training: what each regime trains on, that lambda 0 is VAE+Aug, and that the loss is what it says."""

from __future__ import annotations

import math

import harness
import pytest
import torch
from harness import numbers, small
from linear_gaussian import generator
from omegaconf import OmegaConf

from reprise.errors import UserError
from reprise.papers.crvae.bounds import ELBO
from reprise.papers.crvae.likelihoods import Bernoulli
from reprise.papers.crvae.networks import MLP, Conv
from reprise.papers.crvae.objective import consistent_loss, look
from reprise.papers.crvae.official import literal_loss
from reprise.papers.crvae.penalties import Consistency


@pytest.fixture
def no_figures(monkeypatch):
    """Figures take longer than the rest of a tiny run, and are drawn in other tests."""
    monkeypatch.setattr("reprise.papers.crvae.artifacts.figures", lambda *args: {})


@pytest.fixture
def pair():
    torch.manual_seed(0)
    model = MLP(hidden=(12,)).build((1, 4, 4), 3, 1)
    x = torch.rand(10, 1, 4, 4, generator=generator())
    return model, x.round(), (1 - x).round()


def seen(model, *views, seed=0, **options):
    return look(model, Bernoulli(), ELBO(), 1, views, generator(seed), **options)


def test_the_loss_is_the_papers_formula(pair):
    model, x, moved = pair
    clean, augmented = seen(model, x, moved)
    kl = augmented.levels[0].posterior.kl(clean.levels[0].posterior)
    expected = -clean.bound.elbo.mean() - augmented.bound.elbo.mean() + 0.3 * kl.mean()
    loss, apart = consistent_loss([clean, augmented], Consistency(), 0.3)
    assert torch.allclose(loss, expected)
    assert torch.allclose(apart, kl.mean())


def test_without_weight_or_penalty_it_is_the_sum_of_two_bounds(pair):
    model, x, moved = pair
    views = seen(model, x, moved)
    plain = consistent_loss(views, None, 0.3)[0]
    assert torch.equal(plain, consistent_loss(views, Consistency(), 0.0)[0])


def test_the_consistency_term_has_gradients_in_every_part_of_the_encoder(pair):
    model, x, moved = pair
    consistent_loss(seen(model, x, moved), Consistency(), 1.0)[1].backward()
    assert all((p.grad != 0).any() for p in model.encoder.parameters())
    assert all(p.grad is None for p in model.decoder.parameters())


def test_one_pass_or_two_is_the_same_without_batchnorm(pair):
    model, x, moved = pair
    together, apart = seen(model, x, moved), seen(model, x, moved, batching="separate")
    for a, b in zip(together, apart, strict=True):
        assert torch.allclose(a.bound.value, b.bound.value, atol=1e-4)
        assert torch.allclose(a.theta, b.theta, atol=1e-5)


def test_one_pass_or_two_is_not_the_same_with_batchnorm():
    model = Conv(width=2).build((1, 16, 16), 3, 1)
    x = torch.rand(6, 1, 16, 16, generator=generator()).round()
    views = x, torch.zeros_like(x)
    together, apart = seen(model, *views), seen(model, *views, batching="separate")
    assert not torch.allclose(together[0].levels[0].posterior.mean, apart[0].levels[0].posterior.mean, atol=1e-3)


def test_shared_noise_gives_equal_views_equal_samples(pair):
    model, x, _ = pair
    same, own = seen(model, x, x, shared_noise=True), seen(model, x, x)
    assert torch.allclose(same[0].levels[0].z, same[1].levels[0].z)
    assert not torch.allclose(own[0].levels[0].z, own[1].levels[0].z)


def test_the_released_scales(pair):
    """Pixels averaged, prior summed over the batch, consistency with squared variances averaged over the batch."""
    model, x, moved = pair
    views = seen(model, x, moved)
    loss, apart = literal_loss(views, 0.001)
    expected = 0.001 * apart
    for view in views:
        expected = expected - view.bound.reconstruction.mean() / 16 + view.bound.kl.mean() * 10
    assert torch.allclose(loss, expected)
    a, c = (view.levels[0].posterior for view in reversed(views))
    squared = 0.5 * (
        2 * (c.log_variance - a.log_variance)
        + (2 * (a.log_variance - c.log_variance)).exp()
        + (a.mean - c.mean) ** 2 * (-2 * c.log_variance).exp()
        - 1
    ).sum(-1)
    assert torch.allclose(apart, squared.mean(), rtol=1e-4)


def test_lambda_0_is_vae_aug_to_the_last_bit(no_figures, tmp_path):
    zero = harness.run(small("crvae", tmp_path, "method.module.weight=0"))
    assert numbers(zero) == numbers(harness.run(small("vae_aug", tmp_path)))


def test_more_lambda_brings_the_views_together(no_figures, tmp_path):
    more = "method.module.epochs=60", "method.module.latent=8", "method.module.network.hidden=[64]"
    apart = [
        numbers(harness.run(small("crvae", tmp_path / str(w), *more, f"method.module.weight={w}")))["consistency_kl"]
        for w in (0, 1, 30)
    ]
    assert apart[0] > apart[1] > apart[2]


@pytest.mark.parametrize("base", ["vae", "beta_vae", "iwae", "hierarchical"])
@pytest.mark.parametrize(
    ("regime", "name"),
    [
        ("plain", "{base}"),
        ("aug_both", "{base}_aug"),
        ("aug_only", "{base}_aug_only"),
        ("cr", "cr{base}"),
        ("triplet", "{base}_triplet"),
        ("infonce", "{base}_infonce"),
        ("equal_compute", "{base}_equal_compute"),
    ],
)
def test_every_base_in_every_regime(no_figures, tmp_path, base, regime, name):
    cfg = small("crvae", tmp_path, f"base={base}", f"regime={regime}", "trainer.max_epochs=1")
    name = name.format(base=base)
    expected = {"crvae": "crvae", "crbeta_vae": "cr_beta_vae", "criwae": "cr_iwae", "crhierarchical": "cr_hierarchical"}
    assert cfg.method.name == expected.get(name, name)
    assert all(math.isfinite(value) for value in numbers(harness.run(cfg)).values())


@pytest.mark.parametrize(
    "choice",
    [
        *("likelihood=gaussian", "likelihood=discretised_logistic", "likelihood.binarise=static"),
        *("network=vae_conv_narrow", "method.module.view_batching=separate", "method.module.shared_noise=true"),
        *("method.module.keep=last", "method.module.clip=1", "method.module.warmup=2", "method.module.matmul=medium"),
        *("method.module.objective=official_literal", "transformation=large_jitter", "method.module.schedule=constant"),
        *("method.module.penalty.direction=w2", "method.module.penalty.stop_gradient=clean"),
        *("method.module.evaluation.inputs=10", "method.module.evaluation.probes=null", "transformation=natural"),
        "method.module.evaluation.frechet=null",
    ],
)
def test_every_choice_runs(no_figures, tmp_path, choice):
    choice = choice.replace("likelihood.binarise", "method.module.likelihood.binarise")
    cfg = small("crvae", tmp_path)
    if "conv" in choice:
        cfg = harness.compose(
            "method=crvae",
            *harness.ALWAYS,
            *(option for option in harness.SIZES["crvae"] if ".hidden=[" not in option),
            f"paths.output_dir={tmp_path}",
            choice,
            "method.module.network.width=2",
        )
    else:
        cfg = small("crvae", tmp_path, choice)
    found = numbers(harness.run(cfg))
    assert all(math.isfinite(value) for value in found.values())


def test_nats_of_grey_levels_are_told_as_bits_per_dimension(tmp_path):
    found = numbers(harness.run(small("vae", tmp_path, "likelihood=discretised_logistic")))
    assert found["bits_per_dim"] == pytest.approx(found["nll"] / (256 * math.log(2)))


def test_lambda_warms_up(tmp_path):
    module = built(warmup=2)
    assert module.steps_per_pass == 5
    assert module.weight_at(0) == pytest.approx(0.1 / 10)
    assert module.weight_at(4) == pytest.approx(0.05)
    assert module.weight_at(9) == module.weight_at(99) == 0.1


def built(**changes):
    from reprise import building
    from reprise.config import resolved

    cfg = small("crvae", "nowhere", *(f"method.module.{key}={value}" for key, value in changes.items()))
    config = resolved(cfg)
    data = building.datamodule(config, building.source(config))
    return building.module(config, data)


def test_equal_compute_makes_as_many_steps_again(tmp_path):
    cfg = OmegaConf.to_container(small("vae_equal_compute", tmp_path), resolve=True)
    assert cfg["method"]["module"]["compute"] == 2
    once, twice = built(), built(compute=2)
    assert twice.steps == 2 * once.steps


def test_every_pass_sees_every_input_once_in_an_order_of_its_own():
    module = built(batch_size=8)
    module._order = None
    passes = [torch.cat([module._rows(p * 10 + i) for i in range(10)]) for p in range(2)]
    for rows in passes:
        assert sorted(rows.tolist()) == list(range(80))
    assert not torch.equal(*passes)


def test_a_loss_that_is_no_number_says_where(tmp_path):
    cfg = small("crvae", tmp_path, "method.module.optimizer.lr=1e30")
    with pytest.raises(FloatingPointError, match=r"became (nan|inf|-inf) at step \d+: lower"):
        harness.run(cfg)
    assert harness.read(harness.folder_of(cfg) / "status.json")["state"] == "failed"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("regime=plain", "+method.module.penalty._target_=reprise.papers.crvae.penalties.Consistency"), "views=clean"),
        (("regime=plain", "method.module.objective=official_literal"), "a loss of two views"),
        (("method.module.optimizer.lr=-1",), "optimizer: Invalid learning rate"),
        (("network=lenet",), "no auto-encoder"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, changes, words):
    sizes = [option for option in harness.SIZES["crvae"] if ".hidden=[" not in option]
    cfg = harness.compose("method=crvae", *harness.ALWAYS, *sizes, f"paths.output_dir={tmp_path}", *changes)
    with pytest.raises(UserError, match=words):
        harness.run(cfg)
