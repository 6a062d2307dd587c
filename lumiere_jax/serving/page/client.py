"""The HTTP interface as the page calls it: in the same process, in the name of a visitor."""

from typing import Any, Protocol

import httpx
from starlette.types import ASGIApp

KEY = "lumiere_key"
"""Name of the cookie that holds a visitor's API key."""
_PASSED_ON = ("host", "origin", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")


class Refused(Exception):
    """A request that was refused, with the reason that the interface gives."""


class Visitor(Protocol):
    """The request that a visitor's browser sent, of Starlette or of Gradio."""

    headers: Any
    cookies: Any
    client: Any


class Client:
    """Does for visitors what they could do with curl, with the same checks and errors."""

    def __init__(self, app: ASGIApp):
        """Takes the whole application, guards included."""
        self._app = app

    async def ask(self, visitor: Visitor, method: str, path: str, **more: Any) -> httpx.Response:
        """The answer to a request; `more` are arguments of httpx. Raises `Refused`."""
        headers = {name: visitor.headers[name] for name in _PASSED_ON if name in visitor.headers}
        if KEY in visitor.cookies:
            headers["Authorization"] = f"Bearer {visitor.cookies[KEY]}"
        address = (visitor.client.host, visitor.client.port) if visitor.client else ("", 0)
        transport = httpx.ASGITransport(self._app, client=address)
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as client:
            answer = await client.request(method, f"/api/v1{path}", headers=headers, **more)
        if answer.is_error:
            try:
                raise Refused(str(answer.json()["detail"]))
            except (ValueError, KeyError):
                raise Refused(f"the server answered with {answer.status_code}") from None
        return answer

    async def jobs(self, visitor: Visitor, ids: list[str]) -> list[dict[str, Any]]:
        """Those of some jobs that exist, in the order of the ids."""
        if not ids:
            return []
        answer = await self.ask(visitor, "GET", "/jobs", params={"ids": ids[:100]})
        found = {job["id"]: job for job in answer.json()}
        return [found[name] for name in ids if name in found]
