"""What a user sees when something is wrong: one sentence and an exit code, no traceback.

Exit codes: 0 all went well, 1 a run failed, 2 the input was wrong, 130 interrupted; ``HYDRA_FULL_ERROR=1`` shows the
traceback.
"""

from __future__ import annotations

import difflib
import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from reprise import ledger
from reprise.errors import UserError

_failures: list[Exception] = []


def attempt(task: Callable[[Any], Any], cfg: Any) -> Any:
    """Run one job and keep its error for the end, so that Hydra goes on with a sweep's other jobs."""
    try:
        return task(cfg)
    except Exception as error:
        _failures.append(error)
        if ledger.active():
            explain(error)
            ledger.append(cfg, "failed", error=_one_line(f"{type(error).__name__}: {error}"))
        return None


def command_line(main: Callable[[], Any]) -> Callable[[], None]:
    """Wrap a ``hydra.main`` function: errors become sentences, a sweep ends with a summary."""

    @functools.wraps(main)
    def wrapped() -> None:
        wants_tracebacks = os.environ.get("HYDRA_FULL_ERROR") == "1"
        os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise what it would otherwise print and swallow
        ledger.start()
        _failures.clear()
        code = 0
        try:
            main()
            if not ledger.active() and _failures:
                raise _failures[0]
            if ledger.active() and not ledger.entries():
                raise UserError("no job of the sweep ran: give each of its keys a value; seed=range(0,0) has none.")
        except KeyboardInterrupt:
            code = _complain("interrupted; the same command goes on where it stopped.", 130)
        except Exception as error:
            if wants_tracebacks and not isinstance(error, BrokenPipeError):
                raise
            code = explain(error)
        finally:
            failed = _summarised()
        sys.exit(code or failed)

    return wrapped


def _summarised() -> int:
    """End a sweep with its table; the exit code of its jobs."""
    try:
        return 1 if ledger.summarise() else 0
    except UserError as error:  # what a paper reports cannot be read
        return _complain(str(error), 2)


def _complain(sentence: str, code: int) -> int:
    print(f"reprise: {sentence}", file=sys.stderr)
    return code


def explain(error: Exception) -> int:
    """Print what went wrong in one sentence and return the exit code."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    for cause in _chain(error):
        if isinstance(cause, UserError):
            return _complain(str(cause), 2)
    mistakes = [cause for cause in reversed(_chain(error)) if isinstance(cause, OmegaConfBaseException)]
    if mistakes:  # the innermost says best what is wrong, but some know no key and hold an unfilled template
        return _complain(_config_sentence(next((cause for cause in mistakes if cause.full_key), mistakes[0])), 2)
    logs = getattr(error, "__notes__", [])  # of the run that failed, if it was one
    if isinstance(error, BrokenPipeError) and not logs:  # the reader, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, HydraException):
        return _complain(_one_line(str(error).split("Config search path")[0]), 2)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" for {error.filename!r}" if error.filename else ""
        return _complain(f"there is no space left{where}: free some, and the same command does what is missing.", 2)
    if isinstance(error, OSError) and error.filename:
        return _complain(f"cannot use {error.filename!r}: {error.strerror}; choose another folder or file.", 2)
    if isinstance(error, OSError) and not logs:
        return _complain(f"this cannot go on: {error.strerror or _one_line(str(error))}.", 2)
    where = "".join(f" (traceback in {note})" for note in logs)
    return _complain(f"the run failed: {type(error).__name__}: {_one_line(str(error))}{where}", 1)


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what caused it, outermost first."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain


def _config_sentence(error: Any) -> str:
    """A mistyped key or a wrong type, with the nearest known key."""
    key, message = error.full_key or error.key, str(error.msg or error).splitlines()[0]
    if "not in" not in message:
        return f"{key}: {message}."
    if swept := _swept(str(key)):
        return (
            f"{key}: a sweep over {swept} looks for plain keys before it knows which {swept} it is; write "
            f"'{key}=choice(VALUE)', and there they are looked for in each job."
        )
    siblings = [name for name in error.parent_node or [] if name != "hydra"]
    near = difflib.get_close_matches(str(error.key), [str(name) for name in siblings], n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"known keys there: {', '.join(map(str, siblings)) or 'none'}."
    return f"there is no key `{key}`; {hint}"


def _swept(key: str) -> str | None:
    """The config group over which this command sweeps and to which a key with one plain value belongs."""
    words = [word.partition("=") for word in sys.argv[1:]]
    swept = {name for name, _, value in words if "," in value or "(" in value}
    group = key.split(".")[0]
    return group if {"-m", "--multirun"} & set(sys.argv) and group in swept and key not in swept else None


def _one_line(text: str) -> str:
    return " ".join(text.split())
