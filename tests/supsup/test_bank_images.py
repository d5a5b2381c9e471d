"""What a bank says of images: their task, their label, and which images it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from banks import CLASSES, OUTPUTS, SHAPE, images, network, random_bank, random_masks, residual_bank

from reprise.errors import UserError
from reprise.papers.supsup import bank as bank_module
from reprise.papers.supsup.bank import MaskBank, pack
from reprise.papers.supsup.networks import Statistics


def test_predictions_are_the_largest_outputs_of_the_normalised_image():
    bank, x = random_bank(mean=[0.3], std=[0.2]), images(20)
    logits = bank.logits(1, (x - 0.3) / 0.2)
    assert torch.equal(bank.predict(x, task=1), logits.argmax(1))
    assert torch.equal(bank.predict(x.flatten(1), task=1), bank.predict(x, task=1))
    assert torch.equal(bank.predict(x.double(), task=1), bank.predict(x, task=1))


def test_each_channel_has_its_own_normalisation():
    whole = residual_bank()
    mean, std = [0.1, 0.2, 0.3], [1.0, 2.0, 4.0]
    bank = MaskBank(whole.network, 1, whole.packed, 5, whole.statistics, mean, std)
    x = torch.rand(4, 3, 8, 8)
    by_hand = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], 1)
    assert torch.equal(bank.predict(x, task=0), whole.logits(0, by_hand).argmax(1))


def test_without_a_task_each_image_is_read_with_the_mask_it_is_inferred_to_belong_to(monkeypatch):
    monkeypatch.setattr(bank_module, "IMAGES_AT_ONCE", 2)
    bank, x = random_bank(), images(40)
    tasks = bank.infer_task(x)
    assert len(tasks.unique()) > 1
    expected = torch.stack([bank.predict(x[i : i + 1], task=int(t))[0] for i, t in enumerate(tasks)])
    assert torch.equal(bank.predict(x), expected)


@pytest.mark.parametrize("objective", ["H", "G"])
def test_the_inferred_task_has_the_steepest_descent_in_its_coefficient(objective):
    bank, x = random_bank(mean=[0.3], std=[0.2]), images(12)
    normalised = (x - 0.3) / 0.2
    masks = [m.float() for m in random_masks(5, network().shapes)]
    slopes = []
    for image in normalised:
        alpha = torch.full((5,), 0.2, requires_grad=True)
        weights = [(torch.tensordot(alpha, m, 1) * w)[None] for m, w in zip(masks, bank.frozen, strict=True)]
        logits = bank.network(weights, image[None, None])[0, 0]
        if objective == "H":
            value = -(logits.softmax(0) * logits.log_softmax(0)).sum()
        else:
            value = torch.cat([logits[:CLASSES].detach(), logits[CLASSES:]]).logsumexp(0)
        slopes.append(torch.autograd.grad(value, alpha)[0])
    assert torch.equal(bank.infer_task(x, objective), (-torch.stack(slopes)).argmax(1))


def test_no_images_give_no_labels():
    bank, none = random_bank(), images(0)
    assert bank.predict(none).shape == bank.predict(none, task=1).shape == bank.infer_task(none).shape == (0,)


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (torch.rand(2, 1, 5, 3), r"shape \[1, 3, 5\], and these are \[1, 5, 3\]"),
        (torch.rand(1, 3, 5), r"shape \[1, 3, 5\], and these are \[3, 5\]"),
        (torch.rand(()), r"shape \[1, 3, 5\], and these are \[\]"),
        (torch.zeros(2, *SHAPE, dtype=torch.uint8), "divide 8-bit images by 255"),
        (np.zeros((2, *SHAPE), dtype=np.float32), "these are no tensor but ndarray"),
        (torch.rand(2, *SHAPE) - 0.5, r"numbers in 0\.\.1"),
        (torch.full((2, *SHAPE), 255.0), r"numbers in 0\.\.1"),
        (torch.full((2, *SHAPE), float("nan")), r"numbers in 0\.\.1"),
    ],
)
def test_what_is_no_raw_image_is_refused(x, sentence):
    for call in (lambda: random_bank().predict(x, task=0), lambda: random_bank().infer_task(x)):
        with pytest.raises(UserError, match=sentence):
            call()


@pytest.mark.parametrize("task", [5, -1, 1.5])
def test_a_task_that_is_not_there_is_refused(task):
    bank = random_bank()
    for call in (
        lambda: bank.predict(images(), task),
        lambda: bank.logits(task, images()),
        lambda: bank.weights([task]),
    ):
        with pytest.raises(UserError, match=f"no task {task}: this bank holds tasks 0 to 4"):
            call()


def test_tasks_that_cannot_be_inferred_are_refused():
    with pytest.raises(UserError, match="BatchNorm statistics per task"):
        residual_bank().predict(torch.rand(2, 3, 8, 8))
    net = network()
    all_real = MaskBank(net, 3, pack(random_masks(2, net.shapes)), OUTPUTS)
    with pytest.raises(UserError, match="without superfluous outputs"):
        all_real.infer_task(images(), "G")
    with pytest.raises(UserError, match="no objective 'entropy'"):
        all_real.infer_task(images(), "entropy")


def test_reading_never_moves_statistics():
    """Even if what the bank was made from was still training."""
    whole = residual_bank()
    mean, var = whole.statistics.mean.clone(), whole.statistics.var.clone()
    bank = MaskBank(whole.network, 1, whole.packed, 5, Statistics(mean.clone(), var.clone(), training=True))
    x, stored = torch.rand(6, 3, 8, 8), Statistics(mean[1:2], var[1:2], training=False)
    assert torch.equal(bank.logits(1, x), bank.network(bank.weights([1]), x[None], stored)[0])
    assert torch.equal(bank.statistics.mean, mean)
    assert torch.equal(bank.statistics.var, var)
