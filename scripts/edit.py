"""Change a generator's rule without a browser: a request in a file, edited images and the edit in a folder (rewriting).

python scripts/edit.py request=my_edit.json out=edited
python scripts/edit.py request=my_edit.json generator.path=my.safetensors layer=8 images=0-31,200 out=edited
python scripts/edit.py request=marks.json erase=true out=edited

The request is JSON as the paper's tool and the editor write it: object, paste, key, with image numbers and masks.

  request=FILE          what to copy, where to paste it, and the context
  out=FOLDER            gets edits.safetensors (Lambda and D) and images.png (before above after)
  generator.path=FILE   what is edited (default: the generator of scenes that comes with the suite): another one of
                        scenes, or a checkpoint of StyleGAN2 (rosinality's .pt, NVlabs' .pkl) or of ProGAN (.pth)
  generator.psi=NUMBER  truncation of a checkpoint's styles, 1 = none (default: 0.5, as in the paper)
  generator.trust=true|false  whether a pickle may import and run whatever it names (default: false)
  erase=true|false      what is marked as paste or key goes, and nothing is copied (default: false)
  layer=NUMBER|auto     (default: auto: short searches choose it)
  rank=NUMBER|auto      of the change (default: 1)
  steps=NUMBER          of the search (default: 400; 2001 in the paper's code)
  ridge=NUMBER          added to the second moment of the keys, as a share of its mean eigenvalue (default: 0.1)
  images=NUMBERS        which are drawn (default: 0-31)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reprise.cli import command_line
from reprise.errors import UserError
from reprise.words import GENERATOR, asked, generator_of, options_of, switch

OPTIONS = {
    "request": "",
    "out": "",
    **GENERATOR,
    "erase": "false",
    "layer": "auto",
    "rank": "1",
    "steps": "400",
    "ridge": "0.1",
    "images": "0-31",
}
MOST = 256  # images of the sheet


@command_line
def main() -> None:
    """Exit codes as for train.py: 0 all went well, 2 the input was wrong."""
    if (words := asked(__doc__)) is None:
        return
    options = options_of(words, OPTIONS)
    for key in ("request", "out"):
        if not options[key]:
            raise UserError(f"{key}= is missing (see --help).")
    erase, out = switch(options, "erase"), Path(options["out"]).expanduser()
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out} is a file: name a folder.")
    edit(options, erase, out)


def edit(options: dict[str, str], erase: bool, out: Path) -> None:
    """Make the edit and write it down."""
    from reprise.papers.rewriting import editable, request_json
    from reprise.papers.rewriting.session import RewriteSession

    session = RewriteSession(editable.load(*generator_of(options)))
    session.settings = settings(options)
    numbers = session.editable.numbers(options["images"], MOST)
    session.mark(request_json.read(Path(options["request"]).expanduser()))
    for what, mark, found in session.masks():
        for warning in found.warnings:
            print(f"{what} in image {mark.number}: {warning}")
    made = session.erase(watch=told()) if erase else session.execute(watch=told())
    for tried in session.candidates[:3]:
        print(
            f"layer {tried.layer}, rank {tried.rank}: {tried.fit:.2f} left to do, {tried.change:.3f} changed elsewhere"
        )
    print(f"changed layer {made.layer} by a rank of {len(made.directions)}")
    out.mkdir(parents=True, exist_ok=True)
    print(f"wrote {session.save_edits(out / 'edits.safetensors')}")
    session.grid(numbers).save(out / "images.png")
    print(f"wrote {out / 'images.png'}")


def settings(options: dict[str, str]) -> Any:
    """How the edit is made.

    Raises:
        UserError: a value that cannot be.
    """
    from pydantic import TypeAdapter, ValidationError

    from reprise.papers.rewriting.session import Settings

    try:
        return TypeAdapter(Settings).validate_strings(
            {key: options[key] for key in ("layer", "rank", "steps", "ridge")}
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = first["loc"][0]
        raise UserError(f"{key}={options[key]} cannot be: {first['msg']}.") from error


def told() -> Any:
    """Prints each phase as it begins, and the last step of the search."""
    last = ""

    def watch(progress: Any) -> None:
        nonlocal last
        if progress.phase != last:
            print(f"{progress.phase} ...", flush=True)
            last = progress.phase
        if progress.loss is not None and progress.step in (1, progress.steps):
            print(f"step {progress.step} of {progress.steps}: distance {progress.loss:.4f}", flush=True)

    return watch


if __name__ == "__main__":
    main()
