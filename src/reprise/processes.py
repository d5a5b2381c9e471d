"""Several processes for one run: the one that was started leads, the others train beside it and write nothing.

They are started here and not by Lightning, whose launcher repeats the command line: a job of a sweep has none.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments.lightning import find_free_network_port

from reprise.errors import UserError

PLACED = ("LOCAL_RANK", "WORLD_SIZE", "RANK")  # what other launchers set, and Lightning reads
PATIENCE = 10  # seconds that the others have to end by themselves
BEAT = 0.1  # seconds between two looks at them
LOST = "another process of the run ended early, killed or for a reason that its log tells"

Follow = Callable[[dict[str, Any], Path, Callable[[], None]], None]


def count(config: dict[str, Any]) -> int:
    """How many processes a run has: one for each device.

    Raises:
        UserError: no such number.
    """
    devices = config["hardware"]["devices"]
    if not isinstance(devices, int) or devices < 1:
        raise UserError(f"hardware.devices={devices} cannot be used: it is the number of devices, 1 or more.")
    return devices


def threads(config: dict[str, Any]) -> int | None:
    """Threads of each process: what the config says, else the cores shared out; ``None`` = torch's own choice."""
    devices = count(config)
    shared = None if devices == 1 else max(1, (os.cpu_count() or 1) // devices)
    return config["hardware"]["threads"] or shared


@contextmanager
def beside(config: dict[str, Any], folder: Path, follow: Follow) -> Iterator[None]:
    """Inside, this process is the first of several; the others do ``follow(config, folder, ready)`` and end.

    Args:
        config: the resolved config.
        folder: of the run; what ends another process early is appended to its ``train.log``.
        follow: a function of a module, since the others have to find it by its name. It calls ``ready`` once nothing
            but training is left to do.

    Raises:
        UserError: a launcher has started several processes already.
        ChildProcessError: one of the others ended before its time.
    """
    size = count(config)
    if size == 1:
        yield
        return
    if placed := [name for name in PLACED if name in os.environ]:
        raise UserError(
            f"hardware.devices={size}: the run starts its processes itself, and a launcher has set "
            f"{', '.join(placed)}: call train.py without it."
        )
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port()), "LOCAL_RANK": "0"}
    spawn = multiprocessing.get_context("spawn")
    ready = [spawn.Event() for _ in range(1, size)]
    others = [
        spawn.Process(
            target=_other, args=(config, folder, follow, place | {"LOCAL_RANK": str(rank)}, event), daemon=True
        )
        for rank, event in enumerate(ready, 1)
    ]
    before = {name: os.environ.get(name) for name in (*place, "WORLD_SIZE")}
    os.environ |= place
    try:
        for other in others:
            other.start()
        _await(others, ready)
        try:
            yield
        except RuntimeError as error:  # gloo and nccl have words of their own for it
            if any(other.join(1) or other.exitcode for other in others):
                raise ChildProcessError(f"{LOST}; here: {type(error).__name__}: {error}") from error
            raise
        for other in others:
            other.join(PATIENCE)
    finally:
        try:
            _end(others)
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def _await(others: list[Any], ready: list[Any]) -> None:
    """Wait for the others, since nothing that waits for them in torch notices when one has ended."""
    for other, event in zip(others, ready, strict=True):
        while not event.wait(BEAT):
            if not other.is_alive():
                raise ChildProcessError(LOST)


def _end(others: list[Any]) -> None:
    """Leave no process and no group behind: a sweep's next job makes its own."""
    import torch

    for other in others:
        if other.pid is not None and other.is_alive():
            other.kill()
            other.join()
    if torch.distributed.is_initialized():
        with suppress(RuntimeError):  # of a group that is broken
            torch.distributed.destroy_process_group()


def _end_with_the_first() -> None:
    """End this process when the first one is gone, however that was: the run is free to be begun again then."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _other(config: dict[str, Any], folder: Path, follow: Follow, place: dict[str, str], ready: Any) -> None:
    """What another process does. The terminal's interrupt is for the first one, which ends this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    os.environ |= place
    try:
        follow(config, folder, ready.set)
    except Exception:
        with suppress(OSError), (folder / "train.log").open("a") as file:
            file.write(f"process {place['LOCAL_RANK']} ended early\n{traceback.format_exc()}")
        raise SystemExit(1) from None
