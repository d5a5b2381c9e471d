import math

import harness
import numpy as np
import pytest
import torch
from harness import numbers
from linear_gaussian import generator

from reprise.data.point_clouds import sampled
from reprise.errors import UserError
from reprise.papers.crvae.clouds import CloudNetwork, PointMixture, RigidMotion, rotations
from reprise.papers.crvae.metrics import posteriors


@pytest.fixture
def built():
    torch.manual_seed(0)
    model = CloudNetwork(points=(8, 12), hidden=(10,), components=5).build((20, 3), 4, 5)
    return model, torch.randn(6, 20, 3, generator=generator())


def test_the_density_is_torchs_mixture():
    theta = torch.randn(2, 3, 4, 5, generator=generator(), dtype=torch.float64)
    x = torch.randn(3, 7, 3, generator=generator(1), dtype=torch.float64)
    found = PointMixture().log_prob(x, theta)
    for k in range(2):
        for n in range(3):
            centre, sigma = theta[k, n, :, :3], theta[k, n, :, 3].clamp(-5, 1).exp()
            normal = torch.distributions.Independent(torch.distributions.Normal(centre, sigma[:, None].expand(4, 3)), 1)
            mixture = torch.distributions.MixtureSameFamily(
                torch.distributions.Categorical(logits=theta[k, n, :, 4]), normal
            )
            assert torch.allclose(found[k, n], mixture.log_prob(x[n]).sum())


def test_the_density_by_hand():
    """One component at 0 with sigma 1, and a second one of no weight: two points at distance 0 and 2."""
    theta = torch.tensor([[0.0, 0, 0, 0, 50], [9.0, 9, 9, 0, -50]]).view(1, 1, 2, 5)
    x = torch.tensor([[[0.0, 0, 0], [0, 2, 0]]])
    expected = -2 - 2 * 1.5 * math.log(2 * math.pi)
    assert PointMixture().log_prob(x, theta).item() == pytest.approx(expected, rel=1e-5)


def test_the_density_integrates_to_one():
    steps = torch.linspace(-4, 4, 41, dtype=torch.float64)
    grid = torch.cartesian_prod(steps, steps, steps).unsqueeze(1)  # clouds of one point
    theta = torch.randn(1, 1, 3, 5, generator=generator(), dtype=torch.float64) * 0.3
    theta[..., 3] -= 0.7
    density = PointMixture().log_prob(grid, theta.expand(1, len(grid), 3, 5)).exp()
    assert (density.sum() * (steps[1] - steps[0]) ** 3).item() == pytest.approx(1, abs=1e-3)


def test_the_derivatives_of_the_density_are_autograds():
    theta = torch.randn(2, 3, 4, 5, generator=generator(), dtype=torch.float64) * 0.5
    theta[0, 0, 0, 3] = -7  # beyond the smallest sigma, where the derivative is 0
    x = torch.randn(3, 6, 3, generator=generator(1), dtype=torch.float64)
    theta.requires_grad_()
    assert torch.autograd.gradcheck(lambda t: PointMixture().log_prob(x, t), (theta,))
    (found,) = torch.autograd.grad(PointMixture().log_prob(x, theta).sum(), theta)
    assert found[0, 0, 0, 3] == 0


@pytest.mark.parametrize("far", [1.0, 1e3])
def test_points_far_from_all_components_do_not_overflow(far):
    theta = torch.zeros(1, 1, 2, 5)
    theta[..., 3] = -5
    theta.requires_grad_()
    found = PointMixture().log_prob(torch.full((1, 4, 3), far), theta)
    found.sum().backward()
    assert found.isfinite().all()
    assert theta.grad.isfinite().all()


def test_the_order_of_points_means_nothing(built):
    model, x = built
    shuffled = x[:, torch.randperm(20, generator=generator())]
    noise = model.noise(2, 6, generator())
    (level,), (other,) = model.levels(x, noise), model.levels(shuffled, noise)
    assert torch.allclose(level.z, other.z, atol=1e-6)
    theta = model.decode([level.z])
    assert theta.shape == (2, 6, 5, 5)
    assert torch.allclose(PointMixture().log_prob(x, theta), PointMixture().log_prob(shuffled, theta), atol=1e-3)
    assert PointMixture().mean(theta).shape == (2, 6, 5, 3)


@pytest.mark.parametrize("axis", ["z", "any"])
def test_motions_are_rigid_and_differ_from_cloud_to_cloud(axis):
    x = torch.randn(1, 15, 3, generator=generator()).expand(8, -1, -1)
    moved = RigidMotion(degrees=40, axis=axis, translate=0.3)(x, generator(1))
    assert torch.allclose(torch.cdist(moved, moved), torch.cdist(x, x), atol=1e-4)
    assert len(moved.flatten(1).unique(dim=0)) == 8
    assert torch.equal(moved, RigidMotion(degrees=40, axis=axis, translate=0.3)(x, generator(1)))
    if axis == "z":
        shift = moved[..., 2] - x[..., 2]
        assert torch.allclose(shift, shift[:, :1].expand_as(shift), atol=1e-5), "heights move together"


def test_rotations_are_proper_and_by_the_angle():
    axis = torch.nn.functional.normalize(torch.randn(9, 3, generator=generator()), dim=1)
    angle = torch.linspace(-3, 3, 9)
    r = rotations(axis, angle)
    assert torch.allclose(r @ r.transpose(1, 2), torch.eye(3).expand(9, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(r), torch.ones(9), atol=1e-5)
    assert torch.allclose((r @ axis.unsqueeze(2))[..., 0], axis, atol=1e-5), "the axis stays"
    assert torch.allclose((r.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2, angle.cos(), atol=1e-5)
    quarter = rotations(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([torch.pi / 2]))
    assert torch.allclose(quarter[0] @ torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)


def test_angles_and_axes_are_even():
    """A quarter of the angles in each quarter of the range; axes without a preferred direction, E[a a'] = I / 3."""
    x = torch.eye(3, dtype=torch.float64).expand(4000, 3, 3)  # so that x~ is the transposed rotation
    upright = RigidMotion(degrees=60, axis="z", translate=0)(x, generator())
    angle = torch.atan2(upright[:, 0, 1], upright[:, 0, 0]).rad2deg()
    assert angle.abs().max() <= 60
    assert (angle.histc(4, -60, 60) / 4000).tolist() == pytest.approx([0.25] * 4, abs=0.03)
    r = RigidMotion(degrees=60, axis="any", translate=0)(x, generator(1)).transpose(1, 2)
    cosine = (r.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2
    assert cosine.clamp(-1, 1).acos().rad2deg().max() <= 60 + 1e-6
    turned = torch.stack([r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]], 1)
    axis = torch.nn.functional.normalize(turned, dim=1)
    assert torch.allclose(axis.T @ axis / 4000, torch.eye(3, dtype=torch.float64) / 3, atol=0.03)
    shift = RigidMotion(degrees=0, translate=0.2)(torch.zeros(4000, 1, 3), generator(2))[:, 0]
    assert shift.abs().max() <= 0.2
    assert (shift.histc(4, -0.2, 0.2) / 12000).tolist() == pytest.approx([0.25] * 4, abs=0.03)


def test_no_motion_is_none():
    x = torch.randn(3, 5, 3, generator=generator())
    assert torch.allclose(RigidMotion(degrees=0, translate=0)(x, generator()), x, atol=1e-6)


def test_a_few_steps_lower_the_loss_and_tell_clouds_apart():
    x = torch.from_numpy(sampled(40, 64, 0.01, seed=100)[0]).float()
    torch.manual_seed(0)
    likelihood = PointMixture()
    model = CloudNetwork(points=(16, 32), hidden=(32,), components=12).build((64, 3), 4, likelihood.parameters)
    optimizer, draw = torch.optim.Adam(model.parameters(), 5e-3), generator()
    losses = []
    for _ in range(400):
        (level,) = model.levels(x, model.noise(1, len(x), draw))
        loss = (level.kl() - likelihood.log_prob(x, model.decode([level.z]))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 20
    with torch.no_grad():
        theta = model.decode([posteriors(model, x)[0].mean.unsqueeze(0)])
        own, another = likelihood.log_prob(x, theta), likelihood.log_prob(x, theta.roll(1, 1))
    assert (own > another).float().mean() > 0.8, "a cloud is likelier by its own code than by one of another class"


SMALL = (
    *("experiment=crvae/point_clouds", *harness.ALWAYS, "dataset.points=24", "dataset.train=90", "dataset.test=30"),
    *("method.module.network.points=[8]", "method.module.network.hidden=[8]", "method.module.network.components=6"),
    *("method.module.latent=3", "method.module.epochs=3", "method.module.batch_size=16"),
    *("method.module.evaluation.samples=4", "method.module.evaluation.probes.hidden=0"),
)


@pytest.mark.parametrize("regime", ["plain", "cr"])
def test_clouds_train_and_are_judged(tmp_path, regime):
    folder = harness.run(harness.compose(*SMALL, f"regime={regime}", f"paths.output_dir={tmp_path}"))
    found = numbers(folder)
    assert {"nll", "probe/linear", "consistency_kl"} <= set(found)
    assert "frechet" not in found, "a space of features for images"
    assert (folder / "clouds.png").exists()


def test_a_file_of_the_user_s_clouds_trains(tmp_path):
    x, y = sampled(60, 30, 0.01, seed=100)
    np.savez(tmp_path / "mine.npz", points=x, labels=y)
    harness.run(harness.compose(*SMALL, f"dataset.path={tmp_path / 'mine.npz'}", f"paths.output_dir={tmp_path}"))
    assert list(tmp_path.rglob("clouds.png"))


def test_numbers_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="coordinates that are not numbers"):
        PointMixture().check(torch.tensor([[[0.0, float("nan"), 0.0]]]))
    with pytest.raises(UserError, match="use network=vae_mlp"):
        CloudNetwork().build((1, 28, 28), 4, 5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("method.datamodule.transformation.degrees=200", "transformation.degrees=200.* cannot be used"),
        ("method.datamodule.transformation.axis=x", "transformation.axis='x' cannot be used"),
        ("method.module.network.components=0", "network.components=0 cannot be used"),
        ("method.module.network.points=[]", "network.points=.* cannot be used"),
        ("dataset.noise=-1", "dataset.noise=-1.* cannot be used"),
        ("transformation=simple", "use experiment=crvae/point_clouds"),
        ("network=vae_conv_narrow", "reads images"),
        ("likelihood=bernoulli", "works on image data"),
        ("dataset=digits", "made for cloud data"),
    ],
)
def test_what_is_for_images_is_refused(tmp_path, change, words):
    sizes = [option for option in SMALL if "network" not in option and "dataset" not in option]
    with pytest.raises(UserError, match=words):
        harness.run(harness.compose(*sizes, change, f"paths.output_dir={tmp_path}"))
