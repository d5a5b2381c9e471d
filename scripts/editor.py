"""Edit a generator's rules in the browser: copy, paste, mark the context, execute; the paper's method (rewriting).

python scripts/editor.py                                the generator of scenes that comes with the suite
python scripts/editor.py generator.path=my.pkl          another one
python scripts/editor.py port=8200 open=false

It listens on this machine alone, keeps its sessions in memory until Ctrl-C, and needs no internet.

  generator.path=FILE  what is edited: a generator of scenes, or a checkpoint of StyleGAN2 (rosinality's .pt, NVlabs'
                       .pkl) or of ProGAN (.pth)
  generator.psi=NUMBER truncation of a checkpoint's styles, 1 = none (default: 0.5, as in the paper)
  generator.trust=true|false  whether a pickle may import and run whatever it names (default: false)
  host=ADDRESS         where to listen (default: 127.0.0.1, which only this machine reaches)
  port=NUMBER          (default: 8123); 0 = any free one
  open=true|false      whether to open a browser (default: true)
"""

from __future__ import annotations

import importlib.util

from reprise.cli import command_line
from reprise.errors import UserError
from reprise.words import GENERATOR, asked, generator_of, options_of, switch, whole

OPTIONS = {**GENERATOR, "host": "127.0.0.1", "port": "8123", "open": "true"}


@command_line
def main() -> None:
    """Exit codes as for train.py: 0 all went well, 2 the input was wrong."""
    if (words := asked(__doc__)) is None:
        return
    options = options_of(words, OPTIONS)
    port, show = whole(options, "port", 0, 65535), switch(options, "open")
    if importlib.util.find_spec("uvicorn") is None or importlib.util.find_spec("starlette") is None:
        raise UserError("the editor needs two more packages: pip install -e '.[editor]', or run it by make editor.")
    from reprise.papers.rewriting import editable
    from reprise.papers.rewriting.editor.serve import serve

    serve(editable.load(*generator_of(options)), options["host"], port, show)


if __name__ == "__main__":
    main()
