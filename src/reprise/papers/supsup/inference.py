"""Which task an image belongs to, when nobody says: the gradient of an objective through a superposition of masks.

With coefficients alpha the superposed network has weights W~ = W * sum_i alpha_i M^i (equation 2). As W~ is linear in
alpha, dO/dalpha_i = sum_l <M^i_l, A_l> with A_l = W_l * dO/dW~_l: one pass forward and back through the mean mask gives
A for every i, and what is left is a product of A with the bits of all masks. Neither masks nor gradients are ever held
as a stack of floats: bits are unpacked a block of columns at a time, while the block is in the cache.

For single images A is an outer product per layer, A_l = W_l * (delta_l a_{l-1}^T), made block by block as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from reprise.errors import UserError
from reprise.papers.supsup.bank import MaskBank, unpack
from reprise.papers.supsup.networks import products
from reprise.papers.supsup.objectives import COMPARED, objective_values

IMAGES_AT_ONCE = 512  # that go through the mean mask together
ROWS_AT_ONCE = 16  # masks whose bits are numbers in a cache at once

Blocks = Iterable[tuple[int, Tensor]]  # first column, and A [n, columns] from there on


def _room(device: torch.device) -> tuple[int, int]:
    """Numbers in a block that is worked on at once, and in weights that are held for a group of images."""
    return (2**20, 2**23) if device.type == "cpu" else (2**26, 2**28)


def alpha_gradients(
    bank: MaskBank,
    x: Tensor,
    objective: str,
    candidates: Tensor | None = None,
    per_image: bool = True,
    chunk: int | None = None,
) -> Tensor:
    """dO/dalpha_i at alpha_i = 1/k over k candidates, by the identity above.

    Args:
        bank: the masks.
        x: images ``[n, *inputs]``.
        objective: ``H`` or ``G``.
        candidates: places of the masks that are superposed; ``None`` = all of the bank.
        per_image: each image on its own, or the mean over images.
        chunk: numbers worked on at once; ``None`` = what suits the device. It changes nothing but the time.

    Returns:
        ``[n, k]`` (``[1, k]`` for the mean), in the order of the candidates.
    """
    packed = bank.packed if candidates is None else bank.packed[candidates]
    weights = bank.mean_weights(candidates)
    if not per_image or len(x) == 1:
        return _products(packed, _sensitivities(bank, weights, x[None], objective), chunk)
    if hasattr(bank.network, "traced"):
        room = (chunk or _room(x.device)[0]) // (len(packed) + min(len(x), IMAGES_AT_ONCE))
        parts = x.split(IMAGES_AT_ONCE)
        return torch.cat([_contract(packed, _outer_products(bank, weights, part, objective, room)) for part in parts])
    groups = x[:, None].split(_together(bank, x.device))
    return torch.cat([_products(packed, _sensitivities(bank, weights, part, objective), chunk) for part in groups])


def _sensitivities(bank: MaskBank, weights: Sequence[Tensor], x: Tensor, objective: str) -> Tensor:
    """A ``[T, N]``, all layers in a row, of the mean objective over each row of images ``[T, B, *inputs]``.

    Weights are ``[T, *shape]``, or ``[1, *shape]`` for the same in every row.
    """
    with torch.enable_grad():
        leaves = [w.detach().expand(len(x), *w.shape[1:]).requires_grad_() for w in weights]
        value = objective_values(bank.network(leaves, x), objective, bank.classes).mean(1).sum()
        slopes = torch.autograd.grad(value, leaves)
    return torch.cat([(slope * w).flatten(1) for slope, w in zip(slopes, bank.frozen, strict=True)], 1)


def _outer_products(
    bank: MaskBank, weights: Sequence[Tensor], x: Tensor, objective: str, room: int
) -> Iterator[tuple[int, Tensor]]:
    """A of each image under the same weights ``[1, *shape]``: blocks of whole output units, some ``room`` columns."""
    with torch.enable_grad():
        # a graph begins at something that asks for gradients; those of the images themselves are not worked out
        logits, inputs, sums = bank.network.traced(weights, x[None].detach().requires_grad_())
        slopes = torch.autograd.grad(objective_values(logits, objective, bank.classes).sum(), sums)
    start = 0
    for w, a, delta in zip(bank.frozen, inputs, slopes, strict=True):
        units = max(1, room // w.shape[1])
        for part, slope in zip(w.split(units), delta[0].split(units, dim=1), strict=True):
            yield start, (slope[:, :, None] * part).mul_(a[0].detach()[:, None]).flatten(1)
            start += part.numel()


def _products(packed: Tensor, along: Tensor, chunk: int | None = None) -> Tensor:
    """sum_j A_tj M^i_j ``[T, k]`` from A ``[T, N]`` and packed masks ``[k, bytes]``."""
    if len(along) == 1:
        return _by_planes(packed, along[0])[None]
    width = max(64, (chunk or _room(along.device)[0]) // (len(packed) + len(along)))
    starts = range(0, along.shape[1], width)
    return _contract(packed, ((start, along[:, start : start + width]) for start in starts))


def _contract(packed: Tensor, blocks: Blocks) -> Tensor:
    """The same from blocks of columns of A."""
    total: Tensor | None = None
    masks = _Unpacked(packed)
    for start, along in blocks:
        bits = masks.columns(start, start + along.shape[1], along.dtype)
        part = products(along[None], bits[None])[0]
        total = part if total is None else total.add_(part)
    return total


def _by_planes(packed: Tensor, along: Tensor) -> Tensor:
    """The same ``[k]`` for one A ``[N]``, each byte as eight numbers that hold one of its bits.

    Unpacking would write and read every bit once more for a single product. A byte with one bit left is a power of two
    or 0, and A is divided by that power, which is exact.
    """
    packed, along = _live_words(packed, F.pad(along, (0, 8 * packed.shape[1] - len(along))))
    bits = torch.arange(8, device=packed.device)
    planes = (along.view(-1, 8) / 2.0**bits).T.flatten()
    alone = (1 << bits).to(torch.uint8)[:, None]
    groups = packed.split(ROWS_AT_ONCE)
    return torch.cat([(rows[:, None] & alone).to(along.dtype).flatten(1) @ planes for rows in groups])


def _live_words(packed: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
    """Packed masks ``[k, bytes]`` and A ``[8 bytes]`` without words of 8 bytes along which A is 0.

    A is 0 for every weight into a unit that its ReLU holds at 0: for a single image, about half of them.
    """
    if packed.shape[1] % 8:
        return packed, along
    words = along.view(-1, 64)
    live = words.count_nonzero(1).nonzero()[:, 0]
    return packed.view(torch.int64).index_select(1, live).view(torch.uint8), words[live].flatten()


def _mixed_weights(bank: MaskBank, packed: Tensor, alpha: Tensor) -> list[Tensor]:
    """W * sum_i alpha_i M^i per layer ``[T, *shape]`` of packed masks ``[k, bytes]`` and coefficients ``[T, k]``."""
    size = bank.network.size
    width = max(64, _room(alpha.device)[0] // (alpha.shape[1] + len(alpha)))
    mixed, masks = alpha.new_empty(len(alpha), size), _Unpacked(packed)
    for start in range(0, size, width):
        stop = min(start + width, size)
        mixed[:, start:stop] = alpha @ masks.columns(start, stop, alpha.dtype)
    parts = mixed.split([w.numel() for w in bank.frozen], dim=1)
    return [part.view(-1, *w.shape) * w for part, w in zip(parts, bank.frozen, strict=True)]


class _Unpacked:
    """Columns of packed masks as numbers, all blocks in the same memory: fresh pages cost more than unpacking."""

    def __init__(self, packed: Tensor) -> None:
        self.packed = packed
        self.memory: Tensor | None = None

    def columns(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """0 and 1 ``[k, stop - start]``, until the next call."""
        first = start // 8
        bits = unpack(self.packed[:, first : -(-stop // 8)], stop - 8 * first)
        if self.memory is None or self.memory.numel() < bits.numel():
            self.memory = torch.empty(bits.numel(), dtype=dtype, device=bits.device)
        return self.memory[: bits.numel()].view(bits.shape).copy_(bits)[:, start - 8 * first :]


def _together(bank: MaskBank, device: torch.device) -> int:
    """Images whose own weights are held at once."""
    return max(1, _room(device)[1] // bank.network.size)


def _own_gradients(bank: MaskBank, x: Tensor, objective: str, packed: Tensor, alpha: Tensor) -> Tensor:
    """dO/dalpha ``[T, k]`` at any coefficients ``[T, k]``, one row of images ``[T, B, *inputs]`` for each."""
    along = _sensitivities(bank, _mixed_weights(bank, packed, alpha), x, objective)
    return _products(packed, along)


def stacked_gradients(
    bank: MaskBank, x: Tensor, objective: str, candidates: Tensor | None = None, per_image: bool = False
) -> Tensor:
    """The same as `alpha_gradients` by the book: all masks as floats, and autograd through their weighted sum.

    For tests and for measuring; it holds k times the network, and for single images n times more.
    """
    chunks = [masks for _, masks in bank.chunks(bank.size, candidates)]
    stack = [torch.cat(layer) for layer in zip(*chunks, strict=True)]
    rows = x[:, None] if per_image else x[None]
    k = len(stack[0])
    with torch.enable_grad():
        alpha = torch.full((len(rows), k), 1 / k, dtype=stack[0].dtype, device=x.device, requires_grad=True)
        weights = [torch.tensordot(alpha, masks, 1) * w for masks, w in zip(stack, bank.frozen, strict=True)]
        value = objective_values(bank.network(weights, rows), objective, bank.classes).mean(1).sum()
        return torch.autograd.grad(value, alpha)[0]


def one_shot(
    bank: MaskBank, x: Tensor, objective: str = "H", candidates: Tensor | None = None, per_image: bool = True
) -> Tensor:
    """Tasks ``[n]`` (``[1]`` when all images decide together): the largest -dO/dalpha_i at alpha_i = 1/k (equation 4).

    Only stored masks can win; of equal ones the first does.

    Raises:
        UserError: there is no mask to choose.
    """
    among = _among(bank, candidates)
    return among[alpha_gradients(bank, x, objective, _or_all(bank, among), per_image).argmin(1)]


def binary(
    bank: MaskBank, x: Tensor, objective: str = "H", candidates: Tensor | None = None, per_image: bool = True
) -> Tensor:
    """Tasks ``[n]`` (or ``[1]``): keep the better half of the candidates, superpose those alone, and again.

    Of m candidates floor((m + 1) / 2) stay, of equal ones the first, so that ceil(log2 k) rounds leave one. (Keeping
    what is not above the median, as one would write it down, may go on for ever when there are ties.)

    Raises:
        UserError: there is no mask to choose.
    """
    among = _among(bank, candidates)
    gradients = alpha_gradients(bank, x, objective, _or_all(bank, among), per_image)
    sets = among[_better_half(gradients)]
    if not per_image:
        while sets.shape[1] > 1:
            gradients = alpha_gradients(bank, x, objective, sets[0], per_image=False)
            sets = sets.gather(1, _better_half(gradients))
        return sets[0]
    # images that like the same mask have much the same candidates left, so that few are unpacked for a group of them
    order = gradients.argmin(1).argsort()
    tasks = among.new_empty(len(x))
    for group in order.split(_together(bank, x.device)):
        tasks[group] = _halved(bank, x[group, None], objective, sets[group])
    return tasks


def _halved(bank: MaskBank, x: Tensor, objective: str, sets: Tensor) -> Tensor:
    """The last candidate ``[T]`` of each row of `binary` from candidates ``[T, m]`` on, images ``[T, B, *inputs]``."""
    while sets.shape[1] > 1:
        union, places = sets.unique(return_inverse=True)
        alpha = x.new_zeros(len(sets), len(union), dtype=bank.frozen[0].dtype).scatter_(1, places, 1 / sets.shape[1])
        gradients = _own_gradients(bank, x, objective, bank.packed[union], alpha).gather(1, places)
        sets = sets.gather(1, _better_half(gradients))
    return sets[:, 0]


def _better_half(gradients: Tensor) -> Tensor:
    """Places ``[T, (m + 1) // 2]``, ascending, of the smallest of ``[T, m]``; of equal ones the first."""
    keep = (gradients.shape[1] + 1) // 2
    return gradients.argsort(dim=1, stable=True)[:, :keep].sort(dim=1).values


@torch.no_grad()
def exhaustive(
    bank: MaskBank, x: Tensor, objective: str = "H", candidates: Tensor | None = None, per_image: bool = True
) -> Tensor:
    """Tasks ``[n]`` (or ``[1]``) by one pass per mask: the mask under which the objective is lowest.

    The control: no inference by the entropy can see more. G, whose value means nothing, is replaced by
    `objectives.superfluous`.

    Raises:
        UserError: there is no mask to choose.
    """
    among = _among(bank, candidates)
    room = _room(x.device)[1]
    images = max(1, min(len(x), room // 4096))
    values = x.new_empty(1 if not per_image else len(x), bank.size)
    width = bank.network.size + images * sum(w.shape[0] for w in bank.frozen)
    for places, masks in bank.chunks(max(1, room // width), _or_all(bank, among)):
        weights = [m * w for m, w in zip(masks, bank.frozen, strict=True)]
        found = torch.cat(
            [
                COMPARED[objective](bank.network(weights, part.expand(len(places), *part.shape)), bank.classes)
                for part in x.split(images)
            ],
            1,
        )
        values[:, places] = found.T if per_image else found.mean(1)[None]
    return among[values[:, among].argmin(1)]


def gradient_descent(
    bank: MaskBank,
    x: Tensor,
    objective: str = "H",
    candidates: Tensor | None = None,
    per_image: bool = True,
    steps: int = 10,
    rate: float = 1.0,
) -> Tensor:
    """Tasks ``[n]`` (or ``[1]``): the largest coefficient after some steps down the objective (equation 3).

    After alpha <- alpha - rate * dO/dalpha the coefficients are brought back to what they are the weights of a mean:
    the gradient's mean over candidates is left out, as it moves none against another, negative ones become 0, and the
    sum is made 1. The paper names neither a rate nor a number of steps.

    Raises:
        UserError: there is no mask to choose.
    """
    among = _among(bank, candidates)
    packed = bank.packed[among]
    rows = x[:, None] if per_image else x[None]
    start = torch.full((1, len(among)), 1 / len(among), dtype=bank.frozen[0].dtype, device=x.device)
    first = _stepped(start, alpha_gradients(bank, x, objective, _or_all(bank, among), per_image), rate)
    tasks = []
    together = _together(bank, x.device)
    for part, alpha in zip(rows.split(together), first.split(together), strict=True):
        for _ in range(steps - 1):
            alpha = _stepped(alpha, _own_gradients(bank, part, objective, packed, alpha), rate)
        tasks.append(among[alpha.argmax(1)])
    return torch.cat(tasks)


def _stepped(alpha: Tensor, gradients: Tensor, rate: float) -> Tensor:
    """One step on the simplex; what it is divided by is 1 at least."""
    moved = (alpha - rate * (gradients - gradients.mean(1, keepdim=True))).clamp(min=0)
    return moved / moved.sum(1, keepdim=True)


def _among(bank: MaskBank, candidates: Tensor | None) -> Tensor:
    """Places of the masks to choose among, ascending."""
    among = torch.arange(bank.size, device=bank.packed.device) if candidates is None else candidates.unique()
    if not len(among):
        raise UserError("there is no mask to choose a task from: train at least one task first.")
    return among


def _or_all(bank: MaskBank, among: Tensor) -> Tensor | None:
    """``None`` for all masks, whose mean a bank may know already."""
    return None if len(among) == bank.size else among


# (bank, x, objective, candidates, per_image) -> tasks
INFERENCE: dict[str, Callable[..., Tensor]] = {
    "oneshot": one_shot,
    "binary": binary,
    "exhaustive": exhaustive,
    "gradient": gradient_descent,
}


def uniformity(gradients: Tensor) -> float:
    """k max_i nu_i with nu = softmax(-dO/dalpha) of gradients ``[k]`` (section 3.4).

    Below 1 + eps images are of a new task. It is exp(v_max) over the mean of exp(v), v = -dO/dalpha: 1 when all masks
    look alike to the images, k at most. With a single mask it is 1 whatever the images are, so that every image is new
    to it: the rule needs other masks to compare with, as the official code has in five that start untrained.
    """
    shares = (-gradients.flatten().double()).log_softmax(0)
    return math.exp(math.log(gradients.numel()) + float(shares.max()))
