"""Requests to Vault or OpenBao in the name of one login, which is kept alive and made again once where it is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import structlog

from gateway.ca.http import MAX_BODY, HttpClient, Response
from gateway.ca.interfaces import AuthFailed, NotSent, UpstreamError
from gateway.ca.vault_answers import first_error, is_denied, judge, member, read_answer

T = TypeVar("T")

FRESH = 30.0
"""Seconds for which a token that is refused was not refused for its age: a new one would have no more rights."""
FIRST_REST = 60
LONGEST_REST = 900
"""Seconds between logins that are refused: Vault locks an AppRole out after five of them."""
TRY_AGAIN = 15.0
"""Seconds after which a token is tried to be renewed again."""
LONGEST_PAUSE = 3600.0
LEAST_TIME = 1.0
"""Seconds that must be left before anything is sent that the CA may act on; a shorter wait makes doubts, not certificates."""
FAREWELL = 2.0
"""Seconds that giving a token back may take."""
MAX_TOKEN = 65_536

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Token:
    """A token; `lease` is its whole length in seconds, None where it does not end, times are the event loop's."""

    text: str = field(repr=False)
    obtained: float
    lease: float | None = None
    renewable: bool = False
    full: float = 0.0
    """The lease that it began with: what renewal gives may shrink towards the end of its longest life."""

    def is_usable(self, now: float) -> bool:
        """Say whether it has not ended by its own account."""
        return self.lease is None or now < self.obtained + self.lease

    @property
    def renew_at(self) -> float | None:
        """Half its life, None where it does not end."""
        return None if self.lease is None else self.obtained + self.lease / 2


class Method(Protocol):
    """A way to come by a token."""

    @property
    def repeatable(self) -> bool:
        """Whether another token can be had."""

    async def obtain(self, http: HttpClient, headers: Mapping[str, str], within: float) -> Token:
        """Return a token; raises AuthFailed where it is refused, NotSent and Unavailable where Vault does not answer."""


@dataclass(frozen=True, slots=True)
class GivenToken:
    """A token from the configuration."""

    text: str = field(repr=False)
    repeatable: bool = False

    async def obtain(self, http: HttpClient, headers: Mapping[str, str], within: float) -> Token:
        """Return it with what Vault says about its life; a token that may not ask is used as it is."""
        now = asyncio.get_running_loop().time()
        answer = await http.read("/v1/auth/token/lookup-self", headers={**headers, "X-Vault-Token": self.text}, within=within)
        if answer.status == 403:
            return Token(self.text, now)
        data = member(read_answer(answer), "data")
        lease = _seconds(data.get("ttl"))
        return Token(self.text, now, lease or None, data.get("renewable") is True, lease)


@dataclass(frozen=True, slots=True)
class Login:
    """A login at an auth method; `credentials` gives the body, which holds secrets."""

    mount: str
    credentials: Callable[[], Awaitable[Mapping[str, str]]] = field(repr=False)
    repeatable: bool = True

    async def obtain(self, http: HttpClient, headers: Mapping[str, str], within: float) -> Token:
        """Log in."""
        now = asyncio.get_running_loop().time()
        body = await self.credentials()
        path = f"/v1/auth/{self.mount}/login"
        answer = await http.read(path, method="POST", headers=headers, json_body=body, within=within)
        if answer.status in {400, 403, 404}:
            raise AuthFailed(f"the login at auth/{self.mount} was refused: {first_error(answer) or answer.status}", FIRST_REST)
        return _token_of(read_answer(answer), now)


class VaultSession:
    """Sends requests with a token, one login for all of them.

    A task renews the token at half its life and logs in anew where it cannot be renewed any more. A token that is refused is
    replaced once a request; logins that are refused rest, longer and longer. Every method may raise AuthFailed, NotSent,
    Unavailable; `change` also UnknownResult. Responses are 200, 204, 400 or 404, the last two with Vault's own errors.
    """

    def __init__(self, http: HttpClient, method: Method, namespace: str | None, name: str) -> None:
        self._http = http
        self._method = method
        self._headers = {"X-Vault-Request": "true"} | ({"X-Vault-Namespace": namespace} if namespace else {})
        self._name = name
        self._token: Token | None = None
        self._lock = asyncio.Lock()
        self._refused: AuthFailed | None = None
        self._rest_until = 0.0
        self._rest = FIRST_REST
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open connections and begin to keep a token; nothing has to answer yet."""
        await self._http.open()
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Give a token of ours back and close; a second call does nothing."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper
        token, self._token = self._token, None
        if token is not None and self._method.repeatable:
            with suppress(UpstreamError):
                path = "/v1/auth/token/revoke-self"
                await self._http.read(path, method="POST", headers=self._with(token), within=FAREWELL)
        await self._http.close()

    async def change(self, path: str, body: Mapping[str, Any], within: float) -> Response:
        """POST what Vault may act on."""

        async def send(token: Token, left: float) -> Response:
            if left < min(LEAST_TIME, within / 2):
                raise NotSent("no time was left to ask the CA")
            return await self._http.change("POST", path, headers=self._with(token), json_body=body, within=left)

        return await self._ask(send, within)

    async def read(self, path: str, within: float, *, body: Mapping[str, Any] | None = None, limit: int = MAX_BODY) -> Response:
        """Ask what changes nothing: GET, or POST where there is a body."""

        async def send(token: Token, left: float) -> Response:
            headers, method = self._with(token), "GET" if body is None else "POST"
            return await self._http.read(path, method=method, headers=headers, json_body=body, within=left, limit=limit)

        return await self._ask(send, within)

    async def read_openly(self, path: str, *, limit: int = MAX_BODY, namespaced: bool = True) -> Response:
        """GET what Vault tells anybody; the status is the caller's to judge."""
        return await self._http.read(path, headers=self._headers if namespaced else None, limit=limit)

    async def log_in(self, within: float) -> None:
        """Prove that a token can be had."""
        await self._usable_token(within)

    async def describe_token(self, within: float) -> Mapping[str, Any]:
        """Return what Vault says about the token (lookup-self); empty where it may not ask."""
        token = await self._usable_token(within)
        answer = await self._http.read("/v1/auth/token/lookup-self", headers=self._with(token), within=within)
        return {} if answer.status == 403 else member(read_answer(answer), "data")

    def _with(self, token: Token) -> dict[str, str]:
        return {**self._headers, "X-Vault-Token": token.text}

    async def _ask(self, send: Callable[[Token, float], Awaitable[Response]], within: float) -> Response:
        loop = asyncio.get_running_loop()
        until = loop.time() + within
        token = await self._usable_token(within)
        answer = await send(token, until - loop.time())
        if is_denied(answer):  # Vault judges rights before it does anything, so sending again is safe
            another = await self._replace(token, until - loop.time())
            if another is not None:
                answer = await send(another, until - loop.time())
        return judge(answer)

    async def _usable_token(self, within: float) -> Token:
        token = self._token
        if token is not None and token.is_usable(asyncio.get_running_loop().time()):
            return token
        return await self._within(within, self._log_in_unless_done)

    async def _log_in_unless_done(self) -> Token:
        token = self._token
        if token is not None and token.is_usable(asyncio.get_running_loop().time()):
            return token
        return await self._log_in()

    async def _replace(self, refused: Token, within: float) -> Token | None:
        """Return another token for one that was refused, None where that would have no more rights."""
        loop = asyncio.get_running_loop()

        async def replace() -> Token | None:
            if self._token is not refused:
                return self._token
            if not self._method.repeatable or loop.time() - refused.obtained < FRESH:
                return None
            self._token = None
            return await self._log_in()

        return await self._within(within, replace)

    async def _within(self, seconds: float, work: Callable[[], Awaitable[T]]) -> T:
        """Do what needs the lock; waiting for another's login counts."""
        try:
            async with asyncio.timeout(seconds), self._lock:
                return await work()
        except TimeoutError:
            raise NotSent("no time was left to log in at the CA") from None

    async def _log_in(self) -> Token:
        now = asyncio.get_running_loop().time()
        if self._refused is not None and now < self._rest_until:
            raise AuthFailed(str(self._refused), max(1, round(self._rest_until - now)))
        try:
            self._token = await self._method.obtain(self._http, self._headers, self._http.settings.timeout)
        except AuthFailed as error:
            self._refused, self._rest_until = error, now + self._rest
            self._rest = min(self._rest * 2, LONGEST_REST)
            raise
        self._refused, self._rest = None, FIRST_REST
        return self._token

    async def _keep(self) -> None:
        failing = False  # said once: whoever asks the CA meanwhile is told by each answer
        while True:
            try:
                async with self._lock:
                    pause = await self._refresh()
                failing = False
            except UpstreamError as error:
                if not failing:
                    log.warning("the token of the upstream CA cannot be renewed", upstream_ca=self._name, cause=str(error))
                failing = True
                pause = max(TRY_AGAIN, error.retry_after) if isinstance(error, AuthFailed) else TRY_AGAIN
            await asyncio.sleep(pause)

    async def _refresh(self) -> float:
        """Have a token with half a life left where that can be; return the seconds until the next look."""
        now = asyncio.get_running_loop().time()
        token = self._token
        if token is None or not token.is_usable(now):
            token = await self._log_in()
        elif token.renew_at is not None and now >= token.renew_at:
            token = await self._renew(token)
        if token.renew_at is None:
            return LONGEST_PAUSE
        return min(LONGEST_PAUSE, max(0.5, token.renew_at - now))

    async def _renew(self, token: Token) -> Token:
        """Renew a token, or get another where its longest life nears; one that is given is used up."""
        if token.renewable:
            now = asyncio.get_running_loop().time()
            path = "/v1/auth/token/renew-self"
            answer = await self._http.read(path, method="POST", headers=self._with(token), json_body={})
            if answer.status == 200:
                renewed = _token_of(read_answer(answer), now)
                self._token = Token(token.text, now, renewed.lease, renewed.renewable, token.full)
                if not self._method.repeatable or (renewed.lease or token.full) >= token.full / 2:
                    return self._token
            elif answer.status not in {400, 403}:
                judge(answer)
        if self._method.repeatable:
            return await self._log_in()
        raise AuthFailed("the token cannot be renewed and will end: put another one into the configuration", LONGEST_REST)


def _token_of(answer: Mapping[str, Any], now: float) -> Token:
    """Read `auth` of a login or a renewal; raises NotSent."""
    auth = member(answer, "auth")
    text = auth.get("client_token")
    if not isinstance(text, str) or not text or not text.isascii() or not text.isprintable() or len(text) > MAX_TOKEN:
        raise NotSent("the CA answered a login without a token")
    lease = _seconds(auth.get("lease_duration"))
    return Token(text, now, lease or None, auth.get("renewable") is True, lease)


def _seconds(value: object) -> float:
    """A length of time, 0 for none; nobody waits for what is longer than ten years."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 315_360_000:
        return 0.0
    return float(value)
