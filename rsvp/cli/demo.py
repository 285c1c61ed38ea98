"""`rsvp demo`: the server, and its page in the browser."""

from __future__ import annotations

from typing import Annotated

from rsvp.cli import options
from rsvp.cli.options import opt
from rsvp.cli.serve import LOOPBACK, Host, TokenFile, run


@options.grouped
def demo(
    *,
    host: Host = LOOPBACK,
    port: Annotated[int, opt("N", "0: any free one.", min=0, max=65535)] = 7860,
    token_file: TokenFile = None,
    models: options.PipelineOptions,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Show a web page on which to ask about images, draw boxes and see the masks.

    It is the server of `rsvp serve`, which has the page, too: Ctrl-C ends it. --verbose logs the
    requests.
    """
    options.begin(verbose=verbose, debug=debug, quiet=quiet)
    run(models, (host, port, token_file), "Open {} in a browser", log=verbose)
