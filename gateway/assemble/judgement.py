"""Whether a service may start with a configuration, and what its operator should know before it does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gateway.assemble.anchors import NamedCrl
from gateway.assemble.certificates import NamedCertificate, refuse_dates, refuse_expired_anchors, warn_of_dates
from gateway.assemble.client_demands import warn_of_clients
from gateway.assemble.identities import establish
from gateway.config.load import ConfigProblem, Sources, locate
from gateway.config.schema import GatewayConfig
from gateway.config.warnings import warn


@dataclass(frozen=True, slots=True)
class Judgement:
    """What keeps a service from starting, and what does not.

    `expiring` are certificates that end within 30 days, and others' that have ended; `warnings` all else that is worth knowing.
    """

    problems: tuple[ConfigProblem, ...]
    expiring: tuple[ConfigProblem, ...]
    warnings: tuple[ConfigProblem, ...]
    certificates: tuple[NamedCertificate, ...]
    crls: tuple[NamedCrl, ...]


def judge(config: GatewayConfig, sources: Sources, now: datetime) -> Judgement:
    """Say all that keeps a service from starting at `now`: what `build` would refuse, and certificates that are not valid.

    Dates are judged here and not in `build`: a worker that is replaced years later, and a command that revokes a certificate,
    must still come up when a certificate has ended meanwhile.
    """
    found = establish(config, sources, lambda: now)
    without = tuple(refuse_expired_anchors(found.certificates, now))
    problems = [*found.problems, *(fault for named in found.certificates if (fault := refuse_dates(named, now))), *without]
    refused = {problem.path for problem in without}
    expiring = [
        fault
        for named in found.certificates
        if named.path not in refused and refuse_dates(named, now) is None and (fault := warn_of_dates(named, now)) is not None
    ]
    crls = tuple(crl for anchors in found.anchors.values() for crl in anchors.crls(now))
    warnings = [*warn(config, sources), *warn_of_clients(config, found)]
    warnings += (ending for crl in crls if (ending := crl.warn(now)) is not None)
    return Judgement(locate(sources, problems), locate(sources, expiring), locate(sources, warnings), found.certificates, crls)
