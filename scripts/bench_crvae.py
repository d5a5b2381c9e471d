"""CR-VAE's speed: the two-view step against a DataLoader that transforms image by image, one view, and pythae's VAE."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import ROOT, in_turns

if TYPE_CHECKING:
    import torch
    from torch import Tensor

HIDDEN, LATENT, BATCH = (400, 400), 50, 128
IMAGES = 12_800  # a hundred batches
STEPS = 40  # per measurement
SAMPLES, JUDGED = 1000, 10_000
TWO = "two views, on the device"
PLAIN = "one view, plain VAE"
TORCHVISION = "two views, torchvision on PIL images"  # what its data sets hand out


def crvae(rounds: int, threads: int, pythae: str | None) -> None:
    """Training steps, an estimate of the likelihood, and pythae's trainer where a Python that has it is given."""
    import torch

    from reprise.memory import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{threads} threads, {os.cpu_count()} cores, load average {load:.1f} before the start")
    print(f"\nTraining, 784-400-400-2x{LATENT} and back, batches of {BATCH}; medians of {rounds} in turns")
    x = torch.rand(IMAGES, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    contestants = {
        PLAIN: steps(x, views=1),
        TWO: steps(x, views=2),
        "two views, factors rounded to bfloat16": steps(x, views=2, matmul="medium"),
        TORCHVISION: loader_steps(x, workers=0, pil=True),
        f"the same, {threads} workers": loader_steps(x, workers=threads, pil=True),
        "two views, torchvision on tensors": loader_steps(x, workers=0, pil=False),
    }
    medians = in_turns(contestants, rounds)
    for name, seconds in medians.items():
        rate = STEPS * BATCH / seconds
        print(f"{name:42} {rate:9.0f} images/s   a step takes {seconds / medians[PLAIN]:5.2f} x {PLAIN}")
    print(f"{TWO}: {medians[TORCHVISION] / medians[TWO]:.2f} x as fast as with torchvision's PIL images")
    if pythae:
        rival(pythae, threads, rounds, x)
    else:
        print(
            "pythae's VAE beside it: python3 -m venv rival && rival/bin/pip install pythae && "
            "python scripts/bench.py crvae --pythae rival/bin/python"
        )
    likelihood(threads)


def model() -> Any:
    """The network of all contestants, the same weights for each."""
    import torch

    from reprise.papers.crvae.networks import MLP

    torch.manual_seed(0)
    return MLP(hidden=HIDDEN).build((1, 28, 28), LATENT, 1)


def update(network: Any, optimizer: torch.optim.Optimizer, views: list[Tensor], draw: torch.Generator) -> None:
    """One step of the suite on views that are ready."""
    from reprise.papers.crvae.bounds import ELBO
    from reprise.papers.crvae.likelihoods import Bernoulli
    from reprise.papers.crvae.objective import consistent_loss, look
    from reprise.papers.crvae.penalties import Consistency

    seen = look(network, Bernoulli(), ELBO(), 1, views, draw)
    loss, _ = consistent_loss(seen, Consistency() if len(views) > 1 else None, 0.1)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def steps(x: Tensor, views: int, matmul: str = "highest") -> Callable[[], None]:
    """The suite's training: images on the device, one kernel for the views of a batch."""
    import torch

    from reprise.papers.crvae.likelihoods import binarise
    from reprise.papers.crvae.transforms import ImageTransformation

    network, draw = model(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
    transformation = ImageTransformation(15.0, 0.05, (0.9, 1.1), interpolation="nearest")

    def run() -> None:
        torch.set_float32_matmul_precision(matmul)
        order = torch.randperm(len(x), generator=draw)
        for step in range(STEPS):
            batch = x[order[step * BATCH : (step + 1) * BATCH]]
            seen = [binarise(batch, draw)]
            if views == 2:
                seen.append(binarise(transformation(batch, draw), draw))
            update(network, optimizer, seen, draw)
        torch.set_float32_matmul_precision("highest")

    return run


def loader_steps(x: Tensor, workers: int, pil: bool) -> Callable[[], None]:
    """The same network and loss, fed as the released code asks for: torchvision's transform, once per image."""
    import torch
    from torchvision.transforms import RandomAffine

    from reprise.papers.crvae.likelihoods import binarise

    network, draw = model(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
    data = Pairs(x, RandomAffine(15, (0.05, 0.05), (0.9, 1.1)), pil)
    loader = torch.utils.data.DataLoader(data, BATCH, num_workers=workers)

    def run() -> None:
        for views in loader:
            update(network, optimizer, [binarise(view, draw) for view in views], draw)

    return run


class Pairs:
    """A data set of images and their transformations, as many as a measurement needs."""

    def __init__(self, x: Tensor, transform: Callable[[Any], Any], pil: bool) -> None:
        from torchvision.transforms.functional import to_pil_image, to_tensor

        self.x = [to_pil_image(image) for image in x[: STEPS * BATCH]] if pil else x
        self.transform, self.ready = transform, to_tensor if pil else lambda image: image

    def __len__(self) -> int:
        return STEPS * BATCH

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.ready(self.x[row]), self.ready(self.transform(self.x[row]))


def rival(python: str, threads: int, rounds: int, x: Tensor) -> None:
    """A step of pythae's VAE with the same layers, batch and optimiser, in its own trainer; and ours beside it."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        np.save(path, x.numpy())
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        command = [python, ROOT / "scripts" / "bench_pythae.py", path, str(BATCH), str(LATENT), str(rounds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        print(f"pythae did not run: {done.stderr.strip().splitlines()[-1]}")
        return
    per_image = json.loads(done.stdout.splitlines()[-1])
    ours = in_turns({PLAIN: steps(x, 1), TWO: steps(x, 2)}, rounds)
    print(f"pythae's plain VAE, its own trainer        {1 / per_image:9.0f} images/s")
    for name, seconds in ours.items():
        print(
            f"{name:42} {STEPS * BATCH / seconds:9.0f} images/s   {per_image * STEPS * BATCH / seconds:5.2f} x pythae's"
        )


def likelihood(threads: int) -> None:
    """Seconds and memory of an NLL with many samples, in this process."""
    import torch

    from reprise.memory import peak_bytes
    from reprise.papers.crvae.likelihoods import Bernoulli, binarise
    from reprise.papers.crvae.metrics import nll

    network, draw = model(), torch.Generator().manual_seed(0)
    x = binarise(torch.rand(JUDGED, 1, 28, 28, generator=draw), draw)
    before, began = peak_bytes(), time.perf_counter()
    part = JUDGED // 10
    nll(network, Bernoulli(), x[:part], SAMPLES, draw)
    seconds = (time.perf_counter() - began) * JUDGED / part
    more = (peak_bytes() - before) / 2**20
    print(f"\nNLL of {JUDGED:,} images with {SAMPLES:,} samples: {seconds / 60:.1f} minutes on {threads} threads")
    print(f"(measured on {part:,} of them), {more:.0f} MiB more memory at the peak, whatever the number of images")
