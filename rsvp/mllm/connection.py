"""Whether a server can be reached, found out before models are loaded."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

TIMEOUT = 3.0  # seconds

_PORTS = {"http": 80, "https": 443}


def connection_error(url: str) -> OSError | None:
    """Why no connection to the host and port of a URL is possible; None where one is, or may be.

    Not known, and None, where a proxy of the environment stands between, and after `TIMEOUT`.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    if {parts.scheme, "all"} & getproxies().keys() and not proxy_bypass(host):
        return None
    try:
        socket.create_connection((host, port), TIMEOUT).close()
    except TimeoutError:
        return None
    except OSError as error:
        return error
    return None
