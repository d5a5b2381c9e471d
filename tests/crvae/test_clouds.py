import harness
import pytest
import torch
from harness import numbers
from linear_gaussian import generator

from reprise.errors import UserError
from reprise.papers.crvae.clouds import CloudNetwork, PointMixture, RigidMotion, rotations


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


def test_no_motion_is_none():
    x = torch.randn(3, 5, 3, generator=generator())
    assert torch.allclose(RigidMotion(degrees=0, translate=0)(x, generator()), x, atol=1e-6)


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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("transformation=simple", "use transformation=rigid"),
        ("network=vae_conv_narrow", "reads images"),
        ("likelihood=bernoulli", "works on image data"),
        ("dataset=digits", "made for cloud data"),
    ],
)
def test_what_is_for_images_is_refused(tmp_path, change, words):
    sizes = [option for option in SMALL if "network" not in option and "dataset" not in option]
    with pytest.raises(UserError, match=words):
        harness.run(harness.compose(*sizes, change, f"paths.output_dir={tmp_path}"))
