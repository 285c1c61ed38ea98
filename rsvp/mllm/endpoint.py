"""A server's address and secrets, and the HTTP client that bounds what the server may do."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit, urlunsplit

from rsvp.errors import BadInput, ModelUnavailable
from rsvp.mllm import dialects

if TYPE_CHECKING:
    import openai

_NO_KEY = "no-key"  # local servers ignore it, but the client requires one

_CONNECT_TIMEOUT = 10.0  # seconds; a host that is up answers sooner, and a retry follows anyway
_MAX_REDIRECTS = 3
_SECRET_FIELD = re.compile(r"key|token|secret|sig|auth|pass", re.IGNORECASE)


class Endpoint:
    """Where a server is, and what opens it.

    Args:
        url: may hold user, password and query.
        key: the API key; servers other than OpenAI's may need none.

    Attributes:
        url: without user, password and query.

    Raises:
        BadInput: a URL that is none, or a key that no HTTP header can carry; the message holds no
            secret.
        ModelUnavailable: OpenAI's own server and no key.
    """

    def __init__(self, url: str, key: str | None) -> None:
        key = (key or "").strip()
        if not key.isascii() or not key.isprintable() or " " in key:
            raise BadInput("the API key holds characters that no HTTP header can carry")
        parts = _split(url.strip())
        if parts is None:
            hint = "; in a password write @ : / ? # as %40 %3A %2F %3F %23" if "@" in url else ""
            found = f"found {shown_url(url)!r}{hint}"
            raise BadInput(f"a base URL is like http://localhost:8000/v1, {found}")
        login, _, host = parts.netloc.rpartition("@")
        user, _, password = map(unquote, login.partition(":"))
        basic = base64.b64encode(f"{user}:{password}".encode()).decode() if login else ""
        self.url = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        if not key and dialects.is_openai(self.url):
            hint = "set OPENAI_API_KEY, or OPENAI_BASE_URL for another server"
            raise ModelUnavailable(f"OpenAI needs a key: {hint}")
        self._key = key or _NO_KEY
        self._query = dict(parse_qsl(parts.query))  # Azure's api-version
        self._headers = {"Authorization": f"Basic {basic}"} if basic else {}
        if dialects.is_azure(self.url):
            self._headers["api-key"] = self._key
        fields = [value for name, value in self._query.items() if _SECRET_FIELD.search(name)]
        secrets = {key, password or user, basic, *fields} - {""}
        forms = {form for secret in secrets for form in (secret, quote(secret, safe=""))}
        self._secrets = sorted(forms, key=len, reverse=True)

    def hide(self, text: str) -> str:
        """The text with every secret as ``***``, also where it is percent-encoded."""
        return _without(self._secrets, text)

    def hide_in_reply(self, text: str) -> str:
        """As `hide`, but of secrets that may be words of an answer, such as ``none``, nothing."""
        return _without(filter(_is_no_word, self._secrets), text)

    def hide_in_part(self, text: str) -> str:
        """As `hide_in_reply`, of a text that goes on; an end that may begin a secret is cut off."""
        text = self.hide_in_reply(text)
        for secret in filter(_is_no_word, self._secrets):
            for count in range(min(len(secret), len(text)), 0, -1):
                if text.endswith(secret[:count]):
                    return text[:-count]
        return text

    def client(self, *, timeout: float, deadline: float, max_bytes: int) -> openai.OpenAI:
        """A client without retries that reads no more than the bounds allow.

        A request goes to this server only: a redirect to another one, or one that drops the
        request's body, raises `Refused`, as does a body beyond a bound.

        Args:
            timeout: seconds of silence.
            deadline: seconds from the end of the headers to the end of the body.
            max_bytes: of a body, decompressed.
        """
        import openai

        def check_request(request: Any) -> None:
            if request.method != "POST" or not _same_server(client.base_url, request.url):
                shown = shown_url(str(request.url))
                raise Refused(f"it redirects to {shown}, where nothing is sent; check the URL")

        def bound(response: Any) -> None:
            response.encoding = "utf-8"  # as JSON is; the server's word may be no charset at all
            if "," in response.headers.get("content-encoding", ""):  # each multiplies the size
                raise Refused("the answer is compressed more than once")
            response.iter_bytes = lambda read=response.iter_bytes: _bounded(
                read(), time.monotonic() + deadline, max_bytes
            )

        client = openai.OpenAI(
            api_key=self._key,
            base_url=self.url,
            default_query=self._query,
            default_headers=self._headers,
            timeout=openai.Timeout(timeout, connect=min(timeout, _CONNECT_TIMEOUT)),
            max_retries=0,
            http_client=openai.DefaultHttpxClient(
                event_hooks={"request": [check_request], "response": [bound]},
                max_redirects=_MAX_REDIRECTS,
            ),
        )
        return client


class Refused(Exception):
    """What a server did that must not go on; the message may hold the server's words."""


def shown_url(url: str) -> str:
    """A URL without user, password and query; of any other text nothing that may be a secret."""
    scheme, found, rest = url.strip().partition("://")
    if not re.fullmatch(r"[\w.+-]*", scheme) or not found:
        scheme, found, rest = "", "", url.strip()
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in rest[len(authority) :]:  # a password with such a character in it
        return f"{scheme}{found}***"
    return f"{scheme}{found}{re.split('[?#]', rest.rpartition('@')[2])[0]}"


def _split(url: str) -> SplitResult | None:
    """The parts of a base URL; None where it is none."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # its text holds the password
        return None
    beyond = url.partition("://")[2][len(parts.netloc) :]
    clear = url.isprintable() and " " not in url and "@" not in beyond
    return parts if valid and clear else None


def _same_server(base: Any, url: Any) -> bool:
    """Whether two URLs of the HTTP library are of one server, or the second one of its HTTPS."""
    ports = (base.scheme, base.port, url.scheme, url.port)
    upgraded = ports == ("http", None, "https", None)
    return url.host == base.host and (upgraded or ports[:2] == ports[2:])


def _bounded(chunks: Iterable[bytes], end: float, max_bytes: int) -> Iterator[bytes]:
    """The chunks, until the clock `time.monotonic` is at `end` or there are too many bytes."""
    left = max_bytes
    for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            raise Refused(f"the answer is longer than {max_bytes / 1e6:.0f} MB")
        if time.monotonic() > end:
            raise Refused("the answer is not complete at the deadline")
        yield chunk


def _without(secrets: Iterable[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _is_no_word(secret: str) -> bool:
    return len(secret) >= 16 or (len(secret) >= 6 and not secret.isalpha())
