"""Checks before the routes: host names, keys, sizes and types of bodies; and security headers."""

import contextlib
import hashlib
import hmac
import ipaddress
from collections.abc import Collection

from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lumiere_jax.serving.refusals import refuse

_FORMS = (b"multipart/form-data", b"application/x-www-form-urlencoded")
_BODIES = {
    "/api/v1/jobs": (_FORMS, "the job as multipart/form-data"),
    "/v1/videos": ((*_FORMS, b"application/json"), "the video as multipart/form-data or JSON"),
}
_PRIVATE = ("/api/v1/metrics", "/v1/videos")  # that need a key even to be read
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"same-origin",  # without it, a browser may send the Origin "null"
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
}
_POLICY = (
    b"default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    b"object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
# The page /docs has a script in the page itself.
_DOCS_POLICY = _POLICY + b"; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'"


class HeadAsGet:
    """ASGI middleware: answers HEAD as GET would, without the body.

    FastAPI's routes know nothing of HEAD. Events have no end, so that they are refused.
    """

    def __init__(self, app: ASGIApp):
        """Takes the application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        if scope["path"].endswith("/events"):
            await Response(status_code=405, headers={"Allow": "GET"})(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"}, receive, send_head)


class TooLarge(Exception):
    """A body that is longer than allowed."""


class Guard:
    """ASGI middleware: refuses requests before their body is read, or when it grows too long.

    FastAPI's own `max_body_size` answers in plain text where a route does not read the body.
    """

    def __init__(
        self, app: ASGIApp, *, max_bytes: int, keys: list[str], hosts: Collection[str] | None
    ):
        """Guards an application; without API keys it is open to all.

        `hosts` are the names that the server may be called by, in lower case; None for any.
        """
        self._app, self._max_bytes, self._hosts = app, max_bytes, hosts
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        scope.setdefault("state", {})["client"] = self._client(scope, headers)
        received = 0

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise TooLarge
            return message

        async def guarded_send(message: Message) -> None:
            if received > self._max_bytes:
                return  # what the application made of half a body
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                added = [pair for pair in _safety(scope["path"]) if pair[0] not in given]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, guarded_send)
            return
        with contextlib.suppress(TooLarge, ClientDisconnect):
            await self._app(scope, counted_receive, guarded_send)
        if received > self._max_bytes:
            received = 0
            await self._too_large(scope["path"])(scope, receive, guarded_send)

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> JSONResponse | None:
        path, changes = scope["path"], scope["method"] not in ("GET", "HEAD", "OPTIONS")
        if self._hosts is not None and not _is_named(headers.get(b"host", b""), self._hosts):
            told = "this server has another name; see its flag --allowed_hosts"
            return refuse(path, 403, told)
        needs_key = path.startswith(("/api/", "/v1/")) and (changes or path in _PRIVATE)
        if self._keys and needs_key and self._key(headers) is None:
            told = "an API key is missing or wrong: Authorization: Bearer KEY"
            return refuse(path, 401, told, {"WWW-Authenticate": "Bearer"})
        if changes and _is_from_elsewhere(headers):
            return refuse(path, 403, "requests from pages of other sites are refused")
        if int(headers.get(b"content-length", b"0")) > self._max_bytes:
            return self._too_large(path)
        kinds = [value for name, value in scope["headers"] if name == b"content-type"]
        kind, parameters = parse_options_header(kinds[0] if kinds else b"")
        # Other codecs may take a minute for a megabyte, and block all other requests.
        is_text = parameters.get(b"charset", b"utf-8").lower() in (b"utf-8", b"utf8")
        known, told = _BODIES.get(path, ((), ""))
        is_known = kind in known and len(kinds) == 1 and is_text
        if scope["method"] == "POST" and known and not is_known:
            return refuse(path, 415, f"send {told}, in UTF-8")
        return None

    def _client(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        """Whose request it is: a hash of its key, or without keys of its address."""
        key, host = self._key(headers), (scope.get("client") or [""])[0]
        return hashlib.sha256(key or f"address {_network(host)}".encode()).hexdigest()

    def _key(self, headers: dict[bytes, bytes]) -> bytes | None:
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        given = given.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        # All keys are compared, each in constant time, so that the time reveals nothing.
        found = [key for key in self._keys if hmac.compare_digest(given, key)]
        return found[0] if found else None

    def _too_large(self, path: str) -> JSONResponse:
        told = f"the request is too large; the limit is {self._max_bytes / 2**20:g} MiB"
        return refuse(path, 413, told, {"Connection": "close"})  # the rest of it is not read


def _is_from_elsewhere(headers: dict[bytes, bytes]) -> bool:
    """Whether a page of another site sent it; it must not use what its visitor can reach."""
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site in (b"cross-site", b"same-site")
    # Browsers omit it if the connection is neither local nor encrypted.
    if b"origin" not in headers:
        return False
    own = {_authority(headers.get(name, b"")) for name in (b"host", b"x-forwarded-host")} - {b""}
    return _authority(headers[b"origin"].partition(b"://")[2]) not in own


def _authority(text: bytes) -> bytes:
    """Name and port of the first in a list, without a default port."""
    first = text.split(b",")[0].strip().lower()
    return first.removesuffix(b":80").removesuffix(b":443")


def _is_named(host: bytes, hosts: Collection[str]) -> bool:
    """Whether a request is meant for this server; anyone can make a name point to it."""
    whole = host.decode("latin-1").lower()
    name = whole[1:].partition("]")[0] if whole.startswith("[") else whole.partition(":")[0]
    if name in hosts or not name:  # browsers always send one
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _network(host: str) -> str:
    """An address; of IPv6 the half that providers give to a customer."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:  # no connection of the internet's
        return host
    if address.version == 4 or address.ipv4_mapped:
        return str(getattr(address, "ipv4_mapped", None) or address)
    return str(ipaddress.ip_network(f"{address}/64", strict=False))


def _safety(path: str) -> list[tuple[bytes, bytes]]:
    headers = dict(_HEADERS)
    is_docs = path.startswith(("/docs", "/redoc"))
    headers[b"content-security-policy"] = _DOCS_POLICY if is_docs else _POLICY
    return list(headers.items())
