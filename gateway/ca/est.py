"""An upstream CA that is an EST server (RFC 7030): the devices' requests go on as they came, over a connection of the gateway."""

from __future__ import annotations

from datetime import timedelta

from gateway.ca.http import HttpClient, Response, refuse_unavailable
from gateway.ca.interfaces import (
    AuthFailed,
    Capability,
    IssueRequest,
    NotSent,
    Trial,
    UnknownResult,
    UpstreamCA,
    UpstreamError,
    UpstreamIssued,
    UpstreamPending,
    UpstreamRejected,
)
from gateway.ca.remote import RemoteBackend
from gateway.ca.setup import Setup
from gateway.ca.shown import ca_certificates, public_text, try_chain, try_dates
from gateway.config.remote_cas import EstCA as Config
from gateway.errors import Rejection
from gateway.wire.est import client, messages

POLL_AFTER = 300
"""Seconds after which a request that waits is sent again where the server does not say when."""
_NOT_THERE = frozenset({404, 405, 501})
"""Statuses of a server that has no such service."""
_REFUSED = frozenset({400, 403, 406, 409, 410, 411, 413, 414, 415, 422})
"""Statuses by which a server says that it will not certify this request (RFC 7030 §4.2.3)."""


class EstBackend(RemoteBackend):
    """`simpleenroll` for first requests and renewals alike: a renewal at the server would need the device's own connection.

    A request that waits there (202) is sent again as it is (RFC 7030 §4.2.3). Nothing in EST asks what became of a request: only
    a server that `remembers` may be sent one in doubt once more.
    """

    def __init__(
        self,
        setup: Setup,
        http: HttpClient,
        authorization: str | None,
        remembers: timedelta | None,
        identity: bytes | None = None,
    ) -> None:
        """Take the header that logs in and the certificate, DER, that is shown in TLS, where there are such."""
        super().__init__(setup)
        self._http = http
        self._authorization = authorization
        self._remembers = remembers
        self._identity = identity
        self._now = setup.clock
        self.capabilities = Capability.POLL | Capability.POLL_SENDS | Capability.CHOOSES_VALIDITY
        if remembers is not None:
            self.capabilities |= Capability.REPEATABLE

    async def start(self) -> None:
        """Make the pool of connections."""
        await self._http.open()

    async def close(self) -> None:
        """Close them."""
        await self._http.close()

    async def issue(self, request: IssueRequest) -> UpstreamIssued | UpstreamPending:
        """Send the request; one in doubt only while the server remembers it. Raises UpstreamError."""
        if request.in_doubt_since is not None and not self._is_remembered(request):
            raise UnknownResult("the CA is not known to remember a request for so long: sent again it could be issued twice")
        asked = client.post_request(messages.SIMPLEENROLL, request.request, authorization=self._authorization)
        path = f"/{messages.SIMPLEENROLL}"
        response = await self._http.change("POST", path, headers=asked.headers, body=asked.body, within=request.timeout)
        return self._judge(request, response)

    async def poll(self, request: IssueRequest, reference: str) -> UpstreamIssued | UpstreamPending:
        """Send the request again, which the server said it has; raises UpstreamError.

        `reference` is when it said so. What it may have issued and forgotten since then must not be sent again.
        """
        said = int(reference) if reference.isascii() and reference.isdigit() and len(reference) <= 12 else 0
        if self._remembers is not None and self._now().timestamp() >= said + self._remembers.total_seconds():
            raise UnknownResult("the CA may have issued and forgotten what it let wait: sent again it could be issued twice")
        return await self.issue(request)

    def _is_remembered(self, request: IssueRequest) -> bool:
        since = request.in_doubt_since
        return self._remembers is not None and since is not None and self._now() < since + self._remembers

    def _judge(self, request: IssueRequest, response: Response) -> UpstreamIssued | UpstreamPending:
        refuse_unavailable(response)
        status = response.status
        if status == 401:
            raise AuthFailed("the EST server answered 401: it takes neither the password nor the client certificate")
        if status in _NOT_THERE or 300 <= status < 400:
            raise NotSent(f"the EST server answered {status}: there is no EST service at `url`")
        if status == 202:
            return UpstreamPending(str(int(self._now().timestamp())), self._pause(response))
        if status in _REFUSED:
            raise UpstreamRejected(_refusal(response))
        if status != 200:
            raise UnknownResult(f"the EST server answered {status}")
        try:
            answer = client.decode_answer(messages.SIMPLEENROLL, status, response.headers, response.body)
        except Rejection as error:
            raise UnknownResult(f"the EST server answered 200 with what is no certificate: {error.detail}") from error
        return UpstreamIssued(answer.certificates[0], self.chain())

    def _pause(self, response: Response) -> int:
        """Return the seconds until the server is asked again: what it says, but well before it forgets."""
        longest = self._remembers.total_seconds() / 4 if self._remembers is not None else POLL_AFTER * 12
        return max(1, min(response.retry_after(POLL_AFTER), int(longest)))

    async def health(self) -> None:
        """Ask for the CA certificates; raises NotSent."""
        await self._read_shown()

    async def fetch_chain(self) -> tuple[bytes, ...]:
        """Return the CA certificates that the server shows, issuing CAs first, DER, unproved; raises NotSent."""
        return ca_certificates(await self._read_shown())

    async def _read_shown(self) -> tuple[bytes, ...]:
        response = await self._http.read(f"/{messages.CACERTS}", headers={"Accept": "*/*"})
        refuse_unavailable(response)
        if response.status != 200:
            raise NotSent(f"the EST server answered {response.status} when asked for its CA certificates")
        try:
            return client.decode_answer(messages.CACERTS, 200, response.headers, response.body).certificates
        except Rejection as error:
            raise NotSent(f"what is at `url` is no EST server: {error.detail}") from error

    async def check(self) -> tuple[Trial, ...]:
        """Try connection and chain; whether the password or certificate is taken only a request can tell (RFC 7030 §3.2.3)."""
        try:
            shown = await self._read_shown()
        except UpstreamError as error:
            advice = "look at `url`, `connection` and whether the EST server runs"
            return (Trial("connection", good=False, finding=str(error), advice=advice),)
        found = [Trial("connection", good=True, finding="the EST server shows its CA certificates")]
        found.append(try_chain(self.chain(), shown))
        if self._identity is not None:
            found.append(try_dates("client certificate", "the certificate shown in TLS", self._identity, self._now()))
        return tuple(found)


def _refusal(response: Response) -> str:
    """Return the sentence of a refusal (RFC 8951 §5.1); pages are not for devices."""
    text = client.decode_answer(messages.SIMPLEENROLL, response.status, {}, response.body).text
    said = public_text(text) if response.media_type == "text/plain" else ""
    return f"the CA refused the request: {said}" if said else f"the CA refused the request ({response.status})"


def create(config: Config, setup: Setup) -> UpstreamCA:
    """Return the backend, ready for `start`; raises ConfigurationFaults."""
    authorization = None
    if config.username is not None and config.password is not None:
        authorization = _basic(config.username, setup.sources.secret(config.password), setup)
    identity = None
    if config.connection.client_certificate is not None:
        identity = setup.read_pair(config.connection.client_certificate, "connection", "client_certificate").certificates[0]
    return EstBackend(setup, setup.connect(config.url, config.connection), authorization, config.remembers, identity)


def _basic(name: str, password: bytes, setup: Setup) -> str:
    try:
        text = password.decode("utf-8")
    except UnicodeDecodeError:
        raise setup.fault("is not UTF-8 text", "password") from None
    if not text or not (name + text).isprintable():
        raise setup.fault("is empty, or holds control characters or more than one line", "password")
    try:
        return client.basic_authorization(name, text)
    except ValueError as error:
        raise setup.fault(str(error), "username") from None
