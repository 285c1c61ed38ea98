"""The application of `rsvp serve`: its routes, and what every response has in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from rsvp import __version__
from rsvp.batch.work import BatchError
from rsvp.errors import RsvpError
from rsvp.pipeline import Pipeline
from rsvp.serving import anylabeling, label_studio, pages, schema
from rsvp.serving.label_studio import Uploads
from rsvp.serving.limits import Guard, RequestRefused, ServeLimits, error_response, unexpected
from rsvp.serving.metrics import CONTENT_TYPE, Metrics
from rsvp.serving.service import Server
from rsvp.writers import document

_API: dict[str, tuple[type[schema.SegmentBody], type[BaseModel]]] = {
    "segment": (schema.SegmentBody, document.ResultDocument),
    "answer": (schema.AnswerBody, document.AnswerDocument),
    "trace": (schema.TraceBody, document.TraceDocument),
}


class ErrorBody(BaseModel):
    """The body of every response with a status of 400 or more."""

    error: BatchError


def make_app(
    pipeline: Pipeline,
    limits: ServeLimits | None = None,
    *,
    token: str = "",
    log_queries: bool = False,
    uploads: Uploads | None = None,
    presets: Mapping[str, Callable[[], Pipeline]] | None = None,
) -> FastAPI:
    """The application, for any ASGI server.

    Args:
        pipeline: shared by all requests.
        token: see `rsvp.serving.limits.Guard`.
        log_queries: write what is asked into the log, too.
        uploads: where images of Label Studio's tasks are read.
        presets: see `Server`.
    """
    server = Server(pipeline, limits or ServeLimits(), log_queries=log_queries, presets=presets)
    app = FastAPI(title="rsvp", version=__version__, lifespan=server.lifespan)
    for name, (body, result) in _API.items():
        app.add_api_route(
            f"/v1/{name}",
            _endpoint(server, body),
            methods=["POST"],
            name=name,
            description=body.__doc__,
            responses={
                200: {"model": result},
                **{code: {"model": ErrorBody} for code in (400, 401, 413, 422, 429, 502, 503)},
            },
            openapi_extra=schema.openapi_body(body),
        )
    anylabeling.add_routes(app, server)
    label_studio.add_routes(app, server, uploads or Uploads())
    pages.add_routes(app, server)

    async def health() -> dict[str, Any]:
        """Whether the server answers; loads nothing."""
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        state = {"status": "UP", "model_class": "rsvp", "version": __version__}
        return {**state, "models_loaded": int(server.loaded), "timestamp": now}

    async def show_metrics() -> PlainTextResponse:
        """Counts in Prometheus' text format."""
        gauges = {"queue_waiting": server.queue.waiting, "queue_running": server.queue.running}
        return PlainTextResponse(metrics.text(gauges), media_type=CONTENT_TYPE)

    app.add_api_route("/health", health)
    app.add_api_route("/metrics", show_metrics)
    metrics = Metrics([str(getattr(route, "path", "")) for route in app.routes])
    app.add_exception_handler(RsvpError, _on_error)
    app.add_exception_handler(HTTPException, _on_error)
    app.add_exception_handler(Exception, _on_error)
    app.add_middleware(
        Guard, limits=server.limits, token=token, metrics=metrics, is_full=lambda: server.queue.full
    )
    return app


def _endpoint(server: Server, body: type[schema.SegmentBody]) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        return await server.respond(request, body)

    return endpoint


async def _on_error(_: Request, error: Exception) -> Response:
    """The response to every exception; no such path and no such method are Starlette's."""
    if isinstance(error, HTTPException):
        error = RequestRefused(error.status_code, str(error.detail))
    return error_response(error) if isinstance(error, RsvpError) else unexpected(error)
