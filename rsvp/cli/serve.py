"""`rsvp serve` and `rsvp demo`: the pipeline as an HTTP server, for programs and for a browser."""

from __future__ import annotations

import functools
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from rsvp import presets
from rsvp.cli import console, options, settings
from rsvp.cli.options import flag, opt
from rsvp.errors import BadInput, printable
from rsvp.platform.extras import require

LOOPBACK = "127.0.0.1"
Host = Annotated[str, opt("ADDRESS", "Where to listen. Beyond this machine only with a token.")]
TokenFile = Annotated[
    str | None,
    opt("FILE", f"Holds the token that requests must bring; or set {settings.TOKEN}."),
]


@options.grouped
def serve(
    *,
    host: Host = LOOPBACK,
    port: Annotated[int, opt("N", "0: any free one.", min=0, max=65535)] = 8000,
    token_file: TokenFile = None,
    label_studio: Annotated[
        str | None,
        opt(
            "URL",
            "The Label Studio whose uploaded images are read, with the key of "
            "LABEL_STUDIO_API_KEY; no other address is ever opened.",
        ),
    ] = None,
    models: options.PipelineOptions,
    concurrency: Annotated[
        int | None,
        opt("N", "Requests at once: 1 with a local MLLM, else 8.", min=1),
    ] = None,
    waiting: Annotated[int, opt("N", "Requests that may wait; one more gets 503.", min=1)] = 32,
    timeout: Annotated[float, opt("SECONDS", "For one request, waiting included.", min=1)] = 120.0,
    max_mb: Annotated[float, opt("X", "10^6 bytes of one request, at most.", min=0.001)] = 32.0,
    max_megapixels: Annotated[
        float, opt("X", "10^6 pixels of one image, at most.", min=0.001)
    ] = 50.0,
    log_queries: Annotated[
        bool, flag("--log-queries", "Write the queries into the log, too.")
    ] = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Answer requests over HTTP: the JSON API, X-AnyLabeling, Label Studio, and the page of `demo`.

    One pipeline is in memory for all. The log, a line of JSON a request, goes to stderr; it holds
    no images and no keys. Ctrl-C or SIGTERM ends it when the requests under way are done.
    """
    options.begin(verbose=verbose, debug=debug, quiet=quiet)
    _serve(
        models,
        (host, port, token_file),
        "rsvp serves {} (docs: /docs)",
        concurrency,
        log=not quiet,
        log_queries=log_queries,
        label_studio=label_studio,
        limits={
            "bytes": round(max_mb * 1e6),
            "pixels": round(max_megapixels * 1e6),
            "seconds": timeout,
            "waiting": waiting,
        },
    )


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
    _serve(models, (host, port, token_file), "Open {} in a browser", log=verbose, exchange=True)


def _serve(
    models: options.PipelineOptions,
    where: tuple[str, int, str | None],
    said: str,
    concurrency: int | None = None,
    *,
    log: bool,
    log_queries: bool = False,
    label_studio: str | None = None,
    limits: Mapping[str, Any] | None = None,
    exchange: bool = False,
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        where: host, port, and the file of the token.
        said: what is printed when it listens; {} stands for the URL.
        log: every request.
        limits: of `ServeLimits`.
        exchange: let requests name another preset that can run here now.
    """
    for module in ("fastapi", "uvicorn", "python_multipart"):
        require(module, "serve", "rsvp serve")
    from rsvp.mllm import is_remote
    from rsvp.serving.app import make_app
    from rsvp.serving.label_studio import Uploads
    from rsvp.serving.limits import ServeLimits, is_loopback

    host, port, token_file = where
    token = _token(token_file)
    if not token and not is_loopback(host):
        raise BadInput(
            f"{host} is reached from other machines: give --token-file FILE or set {settings.TOKEN}"
        )
    uploads = Uploads(label_studio, os.environ.get("LABEL_STUDIO_API_KEY", ""))
    preset, make = models.pipeline_maker()
    offered = _offered(models, preset, make) if exchange else {}
    bound = _bind(host, port)
    with bound:
        pipeline = make(record=models.record, connect=True)
        is_local = pipeline.mllm is not None and not is_remote(pipeline.mllm)
        running = concurrency or (1 if is_local or len(offered) > 1 else 8)
        bounds = ServeLimits(running=running, **(limits or {}))
        app = make_app(
            pipeline,
            bounds,
            token=token,
            log_queries=log_queries,
            uploads=uploads,
            presets=offered,
        )
        del pipeline  # the server drops it when it loads another one
        bound.listen(128)
        shown = f"[{host}]" if ":" in host else host
        console.print_err(said.format(f"http://{shown}:{bound.getsockname()[1]}"))
        level = logging.INFO if log else logging.WARNING
        logging.getLogger("rsvp.serving").setLevel(level)
        _run(app, bound, bounds.seconds)


def _offered(
    models: options.PipelineOptions, started: presets.Preset, make: Callable[..., Any]
) -> dict[str, Callable[[], Any]]:
    """What makes each preset that can run here without a download, the started one first."""
    is_plain = models == options.PipelineOptions(preset=models.preset, record=models.record)
    first = started.name if is_plain else "as started"
    found: dict[str, Callable[[], Any]]
    found = {first: functools.partial(make, record=models.record, connect=True)}
    for preset in presets.PRESETS:
        if preset.name not in found and not presets.missing(preset):
            _, other = options.PipelineOptions(preset=preset.name).pipeline_maker()
            found[preset.name] = functools.partial(other, record=models.record, connect=True)
    return found


def _token(file: str | None) -> str:
    """The token of a file or of the environment; empty without one."""
    from pathlib import Path

    from rsvp.platform.files import readable

    found = os.environ.get(settings.TOKEN, "").strip()
    if file is not None:
        with readable(Path(file)):
            found = Path(file).read_text(encoding="utf-8", errors="replace").strip()
    if file is not None and not found:
        raise BadInput(f"{file} holds no token")
    if not found.isascii() or not found.isprintable() or " " in found:
        raise BadInput("a token is one line of ASCII characters without spaces")
    return found


def _bind(host: str, port: int) -> socket.socket:
    """A bound socket, which refuses connections until the server listens; BadInput else."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except (OSError, UnicodeError) as error:
        bound.close()
        reason = getattr(error, "strerror", None) or error
        where = f"{printable(host)}:{port}"
        raise BadInput(f"cannot listen at {where}: {reason}; --port names another") from None
    return bound


def _run(app: Any, bound: socket.socket, timeout: float) -> None:
    """Serve until Ctrl-C or SIGTERM; requests under way may end."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        limit_concurrency=256,
        timeout_graceful_shutdown=round(timeout),
        server_header=False,
    )
    # uvicorn raises the signal again when it is done, and SIGTERM is no failure then.
    signal.signal(signal.SIGTERM, lambda *_: None)
    uvicorn.Server(config).run(sockets=[bound])
