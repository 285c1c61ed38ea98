"""Counts of requests, https://prometheus.io/docs/instrumenting/exposition_formats."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"  # stands for every path that is no route, so that strangers add no time series


class Metrics:
    """Requests by route and status, and their seconds; used by the event loop's thread alone.

    Args:
        routes: the paths that are counted by name.
    """

    def __init__(self, routes: Collection[str]) -> None:
        self.routes = frozenset(routes)
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def add(self, path: str, status: int, seconds: float) -> None:
        """Count a request that has ended."""
        path = path if path in self.routes else OTHER
        self._requests[path, status] += 1
        self._seconds[path] += seconds

    def text(self, gauges: Mapping[str, float]) -> str:
        """All of them, and the current values of some gauges."""
        lines = ["# TYPE rsvp_requests_total counter"]
        for (path, status), count in sorted(self._requests.items()):
            lines.append(f'rsvp_requests_total{{path="{path}",status="{status}"}} {count}')
        lines.append("# TYPE rsvp_request_seconds summary")
        for path, seconds in sorted(self._seconds.items()):
            total = sum(n for (other, _), n in self._requests.items() if other == path)
            lines.append(f'rsvp_request_seconds_sum{{path="{path}"}} {seconds:.6f}')
            lines.append(f'rsvp_request_seconds_count{{path="{path}"}} {total}')
        for name, value in gauges.items():
            lines += [f"# TYPE rsvp_{name} gauge", f"rsvp_{name} {value:g}"]
        return "\n".join([*lines, ""])
