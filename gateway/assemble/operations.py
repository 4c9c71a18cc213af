"""An operator's operations as JSON: one table for the admin socket and for commands that run without a server."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Protocol

import structlog

from gateway.assemble import views
from gateway.assemble.arguments import Arguments, BadArgumentError
from gateway.ca.crl import CrlPublisher, CrlUnavailable
from gateway.ca.interfaces import UpstreamError
from gateway.errors import Reason, Rejection, StoreUnavailable
from gateway.model import RevocationReason, UpstreamCAName
from gateway.ra.administration import Administration
from gateway.store.interfaces import CertificateFilter, LedgerState
from gateway.web.admin import AdminAnswer, AdminRequest
from gateway.web.generation import Generation

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    """What became of an order to the whole service; `reason` is a word for a refusal, `found` what the operator is shown."""

    ok: bool
    reason: str
    text: str
    found: Mapping[str, Any]


class ServiceCommands(Protocol):
    """Orders to the whole service, of which this process is a part; each waits until it is carried out."""

    async def reload(self, actor: str) -> ServiceAnswer:
        """Read the configuration again and put it in force everywhere, or nowhere."""

    async def restart(self, actor: str) -> ServiceAnswer:
        """Replace every process, one after another."""


class ServiceRefusedError(Exception):
    """An order to the whole service was not carried out; the text says why."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


Operation = Callable[[Arguments, str, Mapping[str, str]], Awaitable[Any]]

MAX_LIMIT = 10000
NOT_FOUND = frozenset({Reason.UNKNOWN_PROFILE, Reason.UNKNOWN_TRANSACTION, Reason.UNKNOWN_CERTIFICATE})


class Operations:
    """Runs operations by method and path; every refusal is a sentence under `error`."""

    def __init__(
        self,
        administration: Administration,
        current: Callable[[], Generation],
        publishers: Callable[[], Mapping[UpstreamCAName, CrlPublisher]],
        store_key: str,
        service: ServiceCommands | None = None,
        more: Iterable[tuple[str, str, Operation]] = (),
    ) -> None:
        """`current` and `publishers` return what is in force, asked in each operation anew.

        `store_key` names the store key that this process writes under; a change of keys has to know.
        Without `service` this process is alone, and nothing can be reloaded or restarted. `more` are further rows of the table.
        """
        self._administration = administration
        self._current = current
        self._publishers = publishers
        self._store_key = store_key
        self._service = service
        self._table = tuple((method, _compile(path), run) for method, path, run in (*self._rows(), *more))

    def _rows(self) -> tuple[tuple[str, str, Operation], ...]:
        return (
            ("GET", "/v1/status", self._status),
            ("GET", "/v1/config", self._config),
            ("POST", "/v1/challenges", self._new_challenge),
            ("GET", "/v1/challenges", self._list_challenges),
            ("POST", "/v1/challenges/{id}/revoke", self._revoke_challenge),
            ("GET", "/v1/requests", self._list_requests),
            ("GET", "/v1/requests/{id}", self._show_request),
            ("POST", "/v1/requests/{id}/approve", self._approve),
            ("POST", "/v1/requests/{id}/deny", self._deny),
            ("POST", "/v1/requests/{id}/attach", self._attach),
            ("POST", "/v1/requests/{id}/reissue", self._reissue),
            ("POST", "/v1/requests/{id}/fail", self._fail),
            ("GET", "/v1/certificates", self._list_certificates),
            ("GET", "/v1/certificates/{id}", self._show_certificate),
            ("GET", "/v1/revocations", self._list_revocations),
            ("POST", "/v1/certificates/{id}/revoke", self._revoke_certificate),
            ("POST", "/v1/certificates/{id}/revive", self._revive_certificate),
            ("POST", "/v1/crl/publish", self._publish_crl),
            ("POST", "/v1/reload", self._reload),
            ("POST", "/v1/restart", self._restart),
        )

    async def run(self, request: AdminRequest) -> AdminAnswer:
        """Run one operation and answer it."""
        for method, pattern, operation in self._table:
            match = pattern.fullmatch(request.path)
            if match and method == request.method:
                return await self._answer(operation, request, match.groupdict())
        return AdminAnswer(404, {"error": f"there is no operation {request.method} {request.path}"})

    async def _answer(self, operation: Operation, request: AdminRequest, path: Mapping[str, str]) -> AdminAnswer:
        arguments = Arguments(request.arguments)
        try:
            body = await operation(arguments, request.actor, path)
        except BadArgumentError as error:
            return AdminAnswer(400, {"error": str(error)})
        except Rejection as error:
            return AdminAnswer(404 if error.reason in NOT_FOUND else 409, {"error": error.cause, "reason": error.reason.value})
        except ServiceRefusedError as error:
            return AdminAnswer(409, {"error": str(error), "reason": error.reason})
        except (StoreUnavailable, CrlUnavailable) as error:
            return AdminAnswer(503, {"error": str(error)})
        except UpstreamError as error:
            return AdminAnswer(502, {"error": f"the upstream CA did not do it: {error}"})
        return AdminAnswer(200, views.plain(body))

    async def _status(self, _arguments: Arguments, _actor: str, _path: Mapping[str, str]) -> Any:
        return asdict(await self._administration.status()) | {"store_key": self._store_key}

    async def _config(self, _arguments: Arguments, _actor: str, _path: Mapping[str, str]) -> Any:
        return dict(self._current().config)

    async def _new_challenge(self, arguments: Arguments, actor: str, _path: Mapping[str, str]) -> Any:
        ttl = arguments.optional_integer("ttl", 1, 10**10)
        made = await self._administration.new_challenge(
            arguments.text("profile"),
            actor,
            subject=arguments.optional_text("subject"),
            sans=arguments.sans("sans"),
            ttl=None if ttl is None else timedelta(seconds=ttl),
            owner=arguments.optional_text("owner"),
        )
        return {"id": made.id, "challenge": made.challenge, "expires_at": made.expires_at}

    async def _list_challenges(self, arguments: Arguments, _actor: str, _path: Mapping[str, str]) -> Any:
        rows = await self._administration.list_challenges(arguments.optional_text("profile"), _limit(arguments))
        return [views.challenge(row) for row in rows]

    async def _revoke_challenge(self, _arguments: Arguments, actor: str, path: Mapping[str, str]) -> Any:
        await self._administration.revoke_challenge(path["id"], actor)
        return {"id": path["id"], "revoked": True}

    async def _list_requests(self, arguments: Arguments, _actor: str, _path: Mapping[str, str]) -> Any:
        rows = await self._administration.list_requests(
            arguments.members("state", LedgerState),
            arguments.optional_text("profile"),
            _limit(arguments),
            arguments.integer("offset", 0, 0, 10**9),
        )
        return [views.request(row) for row in rows]

    async def _show_request(self, _arguments: Arguments, _actor: str, path: Mapping[str, str]) -> Any:
        return views.whole_request(await self._administration.show_request(path["id"]))

    async def _approve(self, _arguments: Arguments, actor: str, path: Mapping[str, str]) -> Any:
        return views.request(await self._administration.approve(path["id"], actor))

    async def _deny(self, arguments: Arguments, actor: str, path: Mapping[str, str]) -> Any:
        detail = arguments.optional_text("detail") or ""
        return views.request(await self._administration.deny(path["id"], actor, detail))

    async def _attach(self, arguments: Arguments, actor: str, path: Mapping[str, str]) -> Any:
        leaf, *chain = arguments.certificates("certificate")
        return views.request(await self._administration.attach(path["id"], leaf, actor, tuple(chain)))

    async def _reissue(self, _arguments: Arguments, actor: str, path: Mapping[str, str]) -> Any:
        return views.request(await self._administration.reissue(path["id"], actor))

    async def _fail(self, arguments: Arguments, actor: str, path: Mapping[str, str]) -> Any:
        detail = arguments.optional_text("detail") or ""
        return views.request(await self._administration.fail(path["id"], actor, detail))

    async def _list_certificates(self, arguments: Arguments, _actor: str, _path: Mapping[str, str]) -> Any:
        wanted = CertificateFilter(
            profile=arguments.optional_text("profile"),
            upstream_ca=arguments.optional_text("upstream_ca"),
            serial=arguments.serial("serial"),
            subject_contains=arguments.optional_text("subject"),
            expires_before=arguments.time("expires_before"),
            revoked=arguments.flag("revoked"),
            limit=_limit(arguments),
            offset=arguments.integer("offset", 0, 0, 10**9),
        )
        view = views.whole_certificate if arguments.flag("whole") else views.certificate
        return [view(row) for row in await self._administration.export_certificates(wanted)]

    async def _show_certificate(self, _arguments: Arguments, _actor: str, path: Mapping[str, str]) -> Any:
        row = await self._administration.show_certificate(path["id"])
        untold = await self._administration.find_revocation(row.sha256)
        return {**views.whole_certificate(row), "untold": None if untold is None else views.revocation(untold)["cause"]}

    async def _list_revocations(self, arguments: Arguments, _actor: str, _path: Mapping[str, str]) -> Any:
        rows = await self._administration.list_revocations(_limit(arguments), arguments.integer("offset", 0, 0, 10**9))
        return [views.revocation(row) for row in rows]

    async def _revoke_certificate(self, arguments: Arguments, actor: str, path: Mapping[str, str]) -> Any:
        reason = arguments.revocation_reason("reason", RevocationReason.UNSPECIFIED)
        row = await self._administration.revoke_certificate(path["id"], reason, actor)
        number = await self._publish_after_revocation(row.upstream_ca, actor)
        untold = await self._administration.find_revocation(row.sha256)
        return {**views.certificate(row), "crl_number": number, "ca_told": untold is None}

    async def _revive_certificate(self, _arguments: Arguments, actor: str, path: Mapping[str, str]) -> Any:
        row = await self._administration.revive_certificate(path["id"], actor)
        return {**views.certificate(row), "crl_number": await self._publish_after_revocation(row.upstream_ca, actor)}

    async def _publish_after_revocation(self, name: UpstreamCAName, actor: str) -> int | None:
        """Have a CRL say so before the operator is answered; None where it could not be signed at once."""
        publisher = self._publishers().get(name)
        if publisher is None:
            return None
        try:
            return (await publisher.publish(actor=actor)).number
        except (CrlUnavailable, UpstreamError, StoreUnavailable) as error:
            log.error("the inventory knows it, but the CRL is not published yet", upstream_ca=name, cause=str(error))  # noqa: TRY400
            return None

    async def _publish_crl(self, arguments: Arguments, actor: str, _path: Mapping[str, str]) -> Any:
        name, publishers = arguments.optional_text("upstream_ca"), self._publishers()
        if name is not None and name not in publishers:
            raise Rejection(Reason.UNKNOWN_CERTIFICATE, f"there is no upstream CA {name} whose CRL is signed here")
        chosen = (UpstreamCAName(name),) if name else tuple(publishers)
        return [views.crl(await publishers[ca].publish(force=True, actor=actor)) for ca in chosen]

    async def _reload(self, _arguments: Arguments, actor: str, _path: Mapping[str, str]) -> Any:
        return _found(await self._whole_service().reload(actor))

    async def _restart(self, _arguments: Arguments, actor: str, _path: Mapping[str, str]) -> Any:
        return _found(await self._whole_service().restart(actor))

    def _whole_service(self) -> ServiceCommands:
        if self._service is None:
            raise ServiceRefusedError("no server runs that could do it", "failed")
        return self._service


def _found(answer: ServiceAnswer) -> Mapping[str, Any]:
    if not answer.ok:
        raise ServiceRefusedError(answer.text, answer.reason)
    return answer.found


def _limit(arguments: Arguments) -> int:
    return arguments.integer("limit", 100, 1, MAX_LIMIT)


def _compile(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[A-Za-z0-9:._-]{1,256})", path))
