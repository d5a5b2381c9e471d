"""Clouds of points: a network that does not mind their order, a density of them, and rigid motions.

The paper's experiment on three-dimensional data is known by its sentence alone: an auto-encoder of the folding kind
under random rigid motions, whose data, network and loss were not recovered. Folding networks are usually trained by
Chamfer's distance between point sets, which is not the logarithm of a density, so that neither an ELBO nor importance
sampling would mean what it says. Ours is another model: a mixture density, whose likelihood can be compared between
methods as that of images can.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from reprise.checks import NonNegativeFloat, PositiveInt, checked
from reprise.errors import UserError
from reprise.papers.crvae.model import Autoencoder, Level
from reprise.papers.crvae.networks import Widths, gaussian, perceptron

LOG_SIGMA = (-5.0, 1.0)  # of a component: from less than the noise of the points to more than the whole cloud


class CloudNetwork:
    """A perceptron on every point, the largest value of each feature over the points, and a perceptron on those.

    The decoder gives the means of a mixture's components (PointNet's encoder: Qi et al., 2017).

    Args:
        points: units of the layers that every point goes through.
        hidden: units of the layers after the pooling; the decoder has them in reverse.
        components: M, of the mixture.
    """

    @checked
    def __init__(self, points: Widths = (64, 128), hidden: Widths = (128,), components: PositiveInt = 64) -> None:
        self.points, self.hidden, self.components = points, hidden, components
        self.title = f"points {'-'.join(map(str, points))}, {'-'.join(map(str, hidden))}, {components} components"

    def build(self, shape: tuple[int, ...], latent: int, parameters: int) -> Autoencoder:
        """The network for clouds ``(points, 3)``.

        Raises:
            UserError: the inputs are no clouds.
        """
        if len(shape) != 2 or shape[1] != 3:
            raise UserError("network=vae_cloud reads clouds of points: use network=vae_mlp or vae_conv for images.")
        return CloudAutoencoder(self.points, self.hidden, self.components, latent, parameters)


class CloudAutoencoder(Autoencoder):
    """See `CloudNetwork`; ``decode`` gives ``[K, n, M, P]``, since a mixture has no parameters per point."""

    def __init__(
        self, points: Sequence[int], hidden: Sequence[int], components: int, latent: int, parameters: int
    ) -> None:
        super().__init__()
        self.sizes, self.components, self.parameters_per_component = (latent,), components, parameters
        self.each = perceptron((3, *points), "relu")
        self.encoder = perceptron((points[-1], *hidden, 2 * latent), "relu")
        self.decoder = perceptron((latent, *reversed(hidden), components * parameters), "relu")
        self._spread()

    @torch.no_grad()
    def _spread(self) -> None:
        """Let components start all over the cloud: those that start in one place learn the same, and part late."""
        bias = self.decoder[-1].bias.view(self.components, self.parameters_per_component)
        bias[:, :3].normal_(0, 0.5)
        bias[:, 3], bias[:, 4] = -1, 0

    def levels(self, x: Tensor, noise: Sequence[Tensor]) -> list[Level]:
        """The one level, of clouds ``[n, points, 3]``."""
        pooled = self.each(x).amax(1)
        posterior = gaussian(self.encoder(pooled.relu()).unsqueeze(0))
        return [Level(posterior, None, posterior.at(noise[0]))]

    def decode(self, z: Sequence[Tensor]) -> Tensor:
        """Components ``[K, n, M, P]``."""
        return self.decoder(z[0]).unflatten(-1, (self.components, self.parameters_per_component))


class PointMixture:
    """Points are drawn independently from a mixture of round normals: centre, log sigma and log weight of each.

    A density over continuous coordinates, so that its nats compare with no image's.
    """

    parameters = 5
    kinds = ("cloud",)
    binary = False
    static = False
    density = "mixture of round normals over points"

    def log_prob(self, x: Tensor, theta: Tensor) -> Tensor:
        """log p(x | z) ``[K, n]`` summed over points, of clouds ``[n, points, 3]``, parameters ``[K, n, M, 5]``."""
        centre, log_sigma, log_weight = self._parts(theta)
        constant = log_weight - 3 * log_sigma - 1.5 * math.log(2 * math.pi)
        return _MixtureLogProb.apply(x, centre, log_sigma, constant)

    @staticmethod
    def _parts(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Centres ``[..., M, 3]``, log sigma and log weight ``[..., M]``."""
        return theta[..., :3], theta[..., 3].clamp(*LOG_SIGMA), theta[..., 4].log_softmax(-1)

    def mean(self, theta: Tensor) -> Tensor:
        """Centres ``[K, n, M, 3]``, the heavier ones of which show the shape."""
        return self._parts(theta)[0]

    def check(self, x: Tensor) -> None:
        """Refuse what is not finite."""
        if not bool(x.isfinite().all()):
            raise UserError("the data set has coordinates that are not numbers: remove or repair those clouds.")


class _MixtureLogProb(torch.autograd.Function):
    """sum_p log sum_m exp(a_m - |x_p - c_m|^2 / (2 s_m^2)) ``[K, n]``.

    Of points x ``[n, P, 3]``, centres c ``[K, n, M, 3]``, log s and constants a ``[K, n, M]``. With responsibilities r,
    all derivatives follow from the sums of r, r x and r |x|^2 over points. So the one large tensor, of points by
    components, is made once and read once, where torch's own chain goes over it many times. None is given for x: data.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, centre: Tensor, log_sigma: Tensor, constant: Tensor) -> Tensor:
        precision = (-2 * log_sigma).exp()
        rest = constant - 0.5 * precision * centre.square().sum(-1)
        columns = torch.cat([centre * precision.unsqueeze(-1), torch.stack([-0.5 * precision, rest], -1)], -1)
        points = torch.cat([x, x.square().sum(-1, keepdim=True), torch.ones_like(x[..., :1])], -1)
        logits = points @ columns.transpose(-1, -2)
        top = logits.amax(-1, keepdim=True)
        shares = logits.sub_(top).exp_()
        total = shares.sum(-1, keepdim=True)
        ctx.save_for_backward(points, centre, precision, shares, total)
        return (total.log() + top).sum((-2, -1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        points, centre, precision, shares, total = ctx.saved_tensors
        sums = shares.transpose(-1, -2) @ (points * (gradient[..., None, None] / total))
        first, second, mass = sums[..., :3], sums[..., 3], sums[..., 4]
        to_centre = (first - centre * mass.unsqueeze(-1)) * precision.unsqueeze(-1)
        squared = second - 2 * (centre * first).sum(-1) + centre.square().sum(-1) * mass
        return None, to_centre, squared * precision, mass


class RigidMotion:
    """A random rotation and shift of every cloud.

    Angles are uniform, so that even 180 degrees about any axis is not the uniform distribution of rotations.

    Args:
        degrees: largest rotation to either side.
        axis: ``z``, the upright one; or ``any``, drawn evenly from all directions.
        translate: largest shift along each axis, in units of the cloud's radius.
    """

    kinds = ("cloud",)

    @checked
    def __init__(
        self,
        degrees: Annotated[float, Field(ge=0, le=180)] = 15.0,
        axis: Literal["z", "any"] = "any",
        translate: NonNegativeFloat = 0.05,
    ) -> None:
        self.degrees, self.axis, self.translate = degrees, axis, translate

    @property
    def title(self) -> str:
        """Ranges in a few words."""
        about = "the upright axis" if self.axis == "z" else "any axis"
        return f"rotation {self.degrees:g} about {about}, shift {self.translate:g}"

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """x~ ``[n, points, 3]`` of x ``[n, points, 3]``."""

        def draw(columns: int) -> Tensor:
            shape = (len(x), columns)
            return 2 * torch.rand(shape, generator=generator, device=x.device, dtype=x.dtype) - 1

        angle = draw(1)[:, 0] * math.radians(self.degrees)
        shift = self.translate * draw(3)
        if self.axis == "z":
            axis = x.new_tensor((0.0, 0.0, 1.0)).expand(len(x), 3)
        else:
            axis = torch.randn(len(x), 3, generator=generator, device=x.device, dtype=x.dtype)
            axis = axis / axis.norm(dim=1, keepdim=True).clamp_min(1e-6)
        return x @ rotations(axis, angle).transpose(1, 2) + shift.unsqueeze(1)


def rotations(axis: Tensor, angle: Tensor) -> Tensor:
    """Rotation matrices ``[n, 3, 3]`` about unit vectors ``[n, 3]`` by angles ``[n]`` in radians (Rodrigues)."""
    x, y, z = axis.unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3)
    identity = torch.eye(3, device=axis.device, dtype=axis.dtype)
    sine, cosine = angle.sin().view(-1, 1, 1), angle.cos().view(-1, 1, 1)
    return identity + sine * cross + (1 - cosine) * (cross @ cross)
