"""Seconds per image of pythae's plain VAE in its own trainer; started by ``bench.py crvae --pythae``.

The layers are those of bench_crvae.py. The time of one epoch less the time of none, so that start and end do not count.
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import sys
import tempfile
import time

import numpy as np
import torch
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.pipelines import TrainingPipeline
from pythae.trainers import BaseTrainerConfig
from torch import nn

HIDDEN = (400, 400)


class Encoder(BaseEncoder):
    """784-400-400-2d."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(784, HIDDEN[0]), nn.ReLU(), nn.Linear(HIDDEN[0], HIDDEN[1]), nn.ReLU()
        )
        self.mean, self.log_variance = nn.Linear(HIDDEN[1], latent), nn.Linear(HIDDEN[1], latent)

    def forward(self, x: torch.Tensor) -> ModelOutput:
        """Mean and log-variance."""
        h = self.body(x)
        return ModelOutput(embedding=self.mean(h), log_covariance=self.log_variance(h))


class Decoder(BaseDecoder):
    """d-400-400-784."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Linear(latent, HIDDEN[1]), nn.ReLU(), nn.Linear(HIDDEN[1], HIDDEN[0]), nn.ReLU()),
            *(nn.Linear(HIDDEN[0], 784), nn.Sigmoid()),
        )

    def forward(self, z: torch.Tensor) -> ModelOutput:
        """Expected pixels."""
        return ModelOutput(reconstruction=self.body(z).reshape(len(z), 1, 28, 28))


def epoch(images: np.ndarray, batch: int, latent: int, epochs: int) -> float:
    """Seconds of a training run of so many epochs."""
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=latent, reconstruction_loss="bce")
    model = VAE(config, encoder=Encoder(latent), decoder=Decoder(latent))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        training = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=epochs,
            per_device_train_batch_size=batch,
            learning_rate=1e-4,
            optimizer_cls="Adam",
            no_cuda=True,
        )
        began = time.perf_counter()
        TrainingPipeline(model=model, training_config=training)(train_data=images)
        return time.perf_counter() - began


def main() -> None:
    """Print the seconds per image."""
    path, batch, latent, rounds = sys.argv[1], *map(int, sys.argv[2:5])
    images = (np.load(path) > 0.5).astype(np.float32)
    each = [epoch(images, batch, latent, 3) - epoch(images, batch, latent, 1) for _ in range(rounds)]
    print(json.dumps(statistics.median(each) / 2 / len(images)))


if __name__ == "__main__":
    main()
