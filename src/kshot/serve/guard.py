"""Who may ask: this machine's own page alone, unless a token says otherwise.

Against DNS rebinding the Host header must name the address that is served; against requests that other sites make a
browser send, Origin and Sec-Fetch-Site must be the page's own. Every answer carries a strict Content-Security-Policy.
"""

import hmac
import json
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "kshot-token"
MAX_BODY = 32 * 2**20
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Guard:
    """The outermost layer of the app.

    hosts: what Host may be, with ports; empty for any, which needs a token. token: must come with every request, as a
    cookie, as `Authorization: Bearer` or, at first, as `?token=`; empty asks for none.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], token: str = ""):
        self.app, self.token = app, token
        self.hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with the headers of safety."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refused(scope, headers)
        first = self.token and not refused and _token_of_query(scope) is not None

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = list(_HEADERS)
                if first:
                    cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
                    extra.append((b"set-cookie", cookie.encode()))
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        if refused:
            await _answer(send_safely, *refused)
            return
        await self.app(scope, _limited(receive), send_safely)

    def _refused(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and reason of a refusal."""
        host = headers.get("host", "").lower()
        if self.hosts and host not in self.hosts:
            return 421, "this server does not answer under that name; open the address that kshot serve printed"
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in {f"http://{host}", f"https://{host}"}:
            return 403, "requests of other sites are refused"
        if headers.get("sec-fetch-site", "none") not in {"none", "same-origin"} and scope["method"] != "GET":
            return 403, "requests of other sites are refused"
        if self.token and not self._knows(scope, headers):
            return 401, "a token is needed: open the whole address that kshot serve printed, with ?token="
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return 413, f"more than {MAX_BODY // 2**20} MiB in one request"
        return None

    def _knows(self, scope: Scope, headers: dict[str, str]) -> bool:
        given = [_token_of_query(scope), headers.get("authorization", "").removeprefix("Bearer ")]
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
            given.append(cookie.value if cookie else None)
        except CookieError:
            pass
        return any(hmac.compare_digest(one.encode(), self.token.encode()) for one in given if one)


def _token_of_query(scope: Scope) -> str | None:
    query: bytes = scope.get("query_string", b"")
    return next(iter(parse_qs(query.decode("latin-1")).get("token", ())), None)


def _limited(receive: Receive) -> Receive:
    """A body without a length is counted as it comes; beyond the limit the connection counts as closed."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if seen > MAX_BODY else message

    return counted


async def _answer(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
