import pytest
import torch
from linear_gaussian import generator

from reprise.errors import UserError
from reprise.papers.crvae.bounds import ELBO
from reprise.papers.crvae.ladder import LadderMLP
from reprise.papers.crvae.likelihoods import Bernoulli
from reprise.papers.crvae.metrics import posteriors
from reprise.papers.crvae.model import LOG_VARIANCE
from reprise.papers.crvae.networks import MLP, Conv
from reprise.papers.crvae.nvae import NVAE
from reprise.papers.crvae.objective import look

SMALL = {
    "mlp": (MLP(hidden=(16, 12)), (1, 8, 8)),
    "conv": (Conv(width=4), (3, 32, 32)),
    "framed": (Conv(width=4), (1, 28, 28)),
    "nvae": (NVAE(channels=4, scales=2, groups=2), (1, 8, 8)),
    "ladder": (LadderMLP(hidden=(16,), levels=3), (1, 8, 8)),
}


def built(name, latent=5, parameters=2):
    architecture, shape = SMALL[name]
    torch.manual_seed(0)
    return architecture.build(shape, latent, parameters), shape


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("samples", [1, 3])
def test_shapes(name, samples):
    model, shape = built(name)
    x = torch.rand(4, *shape, generator=generator())
    levels = model.levels(x, model.noise(samples, 4, generator()))
    assert [level.z.shape for level in levels] == [(samples, 4, d) for d in model.sizes]
    assert all(level.posterior.mean.shape[1:] == level.z.shape[1:] for level in levels)
    assert model.decode([level.z for level in levels]).shape == (samples, 4, 2, *shape)
    assert posteriors(model, x)[0].mean.shape == (4, sum(model.sizes))
    assert model.decode(model.prior(model.noise(1, 7, generator()))).shape == (1, 7, 2, *shape)


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_learns(name):
    model, shape = built(name, parameters=1)
    x = torch.rand(6, *shape, generator=generator()).round()
    (seen,) = look(model, Bernoulli(), ELBO(), 1, [x], generator())
    seen.bound.value.sum().backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not (p.grad != 0).any()]
    assert still == []


@pytest.mark.parametrize("name", SMALL)
def test_what_is_found_depends_on_input_and_noise_alone(name):
    model, shape = built(name)
    model.eval()
    x, noise = torch.rand(4, *shape, generator=generator()), model.noise(2, 4, generator(1))
    once, again = model.levels(x, noise), model.levels(x, noise)
    for a, b in zip(once, again, strict=True):
        assert torch.equal(a.z, b.z)
        assert torch.equal(a.posterior.mean, b.posterior.mean)


@pytest.mark.parametrize("name", SMALL)
def test_samples_are_decoded_one_by_one(name):
    """Batching over samples changes nothing."""
    model, shape = built(name)
    model.eval()
    x, noise = torch.rand(4, *shape, generator=generator()), model.noise(3, 4, generator(1))
    together = model.decode([level.z for level in model.levels(x, noise)])
    for k in range(3):
        alone = model.decode([level.z for level in model.levels(x, [e[k : k + 1] for e in noise])])
        assert torch.allclose(together[k], alone[0], atol=1e-5)


@pytest.mark.parametrize("name", ["ladder", "nvae"])
def test_a_hierarchy_without_changes_is_its_prior(name):
    model, shape = built(name)
    model.eval()
    for network in model.changes:
        last = network[-1] if name == "ladder" else network
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
    x = torch.rand(4, *shape, generator=generator())
    noise = model.noise(1, 4, generator(1))
    for level, sample in zip(model.levels(x, noise), model.prior(noise), strict=True):
        assert level.kl().abs().max() < 1e-6
        assert torch.allclose(level.z, sample)


def test_a_wild_encoder_stays_within_what_exp_can_do():
    model, shape = built("mlp")
    with torch.no_grad():
        model.encoder[-1].bias.fill_(1e6)
    (level,) = model.levels(torch.rand(2, *shape), model.noise(1, 2, generator()))
    assert level.posterior.log_variance.max() == LOG_VARIANCE[1]
    assert level.kl().isfinite().all()


def test_the_released_network_has_its_layers():
    model = Conv(width=128).build((3, 32, 32), 32, 1)
    # Conv 4x4: 3-128-256-512-1024 without bias, their BatchNorms, Linear(4096, 64); Linear(32, 4096) and back to 3
    encoder = 16 * (3 * 128 + 128 * 256 + 256 * 512 + 512 * 1024) + 2 * (128 + 256 + 512 + 1024) + 4096 * 64 + 64
    decoder = 32 * 4096 + 4096 + 16 * (1024 * 512 + 512 * 256 + 256 * 128 + 128 * 3) + 2 * (512 + 256 + 128)
    assert sum(p.numel() for p in model.parameters()) == encoder + decoder


def test_a_frame_is_cut_off_where_it_was_put():
    model, shape = built("framed", parameters=1)
    frame, cut = model.encoder[0], model.decoder[-1]
    x = torch.rand(2, *shape)
    assert frame(x).shape == (2, 1, 32, 32)
    assert torch.equal(cut(frame(x)), x)


@pytest.mark.parametrize(("shape", "words"), [((1, 8, 8), "halves an image 4 times"), ((128, 3), "reads images")])
def test_inputs_that_cannot_be_halved_are_refused(shape, words):
    with pytest.raises(UserError, match=words):
        Conv(width=4).build(shape, 5, 1)


@pytest.mark.parametrize(("shape", "words"), [((1, 10, 8), "multiple of 4"), ((128, 3), "reads images")])
def test_sides_that_cannot_be_halved_are_refused(shape, words):
    with pytest.raises(UserError, match=words):
        NVAE(scales=2).build(shape, 5, 1)


@pytest.mark.parametrize("wrong", [{"hidden": ()}, {"hidden": (0,)}, {"hidden": (4,), "activation": "sine"}])
def test_layers_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match=r"hidden|activation"):
        MLP(**wrong)
