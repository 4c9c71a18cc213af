"""Another configuration in one worker: every request ends under the one that it began under, and nothing is dropped."""

from __future__ import annotations

import asyncio
import stat
import sys
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gateway.asn1.scep import FailInfo, PkiStatus
from gateway.ca.exec import ExecCA
from gateway.config.load import read
from gateway.errors import ConfigurationError
from gateway.model import ProfileName
from gateway.pki.certificate import parse_certificate
from gateway.pki.keys import generate_private_key, serialize_private_key
from gateway.pki.names import format_name
from tests.contract.ca.conftest import documented_program
from tests.flow.scep.conftest import Connect, StartService
from tests.flow.scep.fleet import write_secret
from tests.flow.scep.reloading import (
    Belongings,
    Edit,
    Held,
    change,
    children,
    hold,
    nothing_new,
    prepare,
    reload,
    write_ca,
    write_pair,
)
from tests.flow.scep.service import Client, Device, Service, leaf_of

WRONG = "wrong-but-long-enough"
SECOND = "CN=second"


def device(number: int) -> Device:
    return Device(subject=f"CN=device-{number}")


async def enroll(client: Client, service: Service, number: int) -> bytes:
    reply = await client.enroll(device(number), service.static_challenge, transaction=f"transaction-{number}")
    assert reply.status is PkiStatus.SUCCESS, reply
    return leaf_of(reply)


def issuer_and_days(leaf: bytes) -> tuple[str, int]:
    """Return what two configurations differ in: who signs, and for how long."""
    certificate = parse_certificate(leaf)
    return format_name(certificate.issuer), round((certificate.not_after - certificate.not_before) / timedelta(days=1))


def second(config: dict[str, Any]) -> None:
    """Another CA, another validity and the chain in every reply, together."""
    demo = config["profiles"]["demo"]
    config["upstream_cas"] = {"second": SECOND_CA}
    demo["upstream_ca"] = "second"
    demo["policy"]["validity"] = {"default": "20d", "max": "20d", "backdate": "0s"}
    demo["endpoints"]["scep"]["reply_chain"] = True


def first(config: dict[str, Any]) -> None:
    demo = config["profiles"]["demo"]
    config["upstream_cas"] = {"local": FIRST_CA}
    demo["upstream_ca"] = "local"
    demo["policy"]["validity"] = {"default": "10d", "max": "10d", "backdate": "0s"}
    demo["endpoints"]["scep"]["reply_chain"] = False


FIRST_CA = {
    "type": "local",
    "certificate": "ca/issuing.pem",
    "key": {"file": "secrets/issuing.key"},
    "chain": ["ca/root.pem"],
}
SECOND_CA = {"type": "local", "certificate": "ca/second.pem", "key": {"file": "secrets/second.key"}}


@pytest.fixture
async def two(service: Service) -> Service:
    """A service under the first of two configurations."""
    write_ca(service.folder, "second")
    await reload(service, first)
    return service


async def test_what_began_before_ends_as_it_began(two: Service, connect: Connect) -> None:
    old = await connect(two)
    began = asyncio.create_task(enroll(old, two, 1))
    held = hold(two)
    await held.reached.wait()
    new_ra = write_pair(two.folder, "new-ra")

    def other(config: dict[str, Any]) -> None:
        second(config)
        config["profiles"]["demo"]["endpoints"]["scep"].update(ra_certificate=new_ra["certificate"], ra_key=new_ra["key"])

    await reload(two, other)
    new = await connect(two)
    assert new.ra != old.ra
    assert issuer_and_days(await enroll(new, two, 2)) == (SECOND, 20)
    assert not held.closed.is_set()
    held.go.set()
    issuer, days = issuer_and_days(await began)  # opened with the old RA's signer, or it could not be read
    assert (issuer != SECOND, days) == (True, 10)
    await asyncio.wait_for(held.closed.wait(), 5)
    assert await generations(two) == {"CN=device-1": 2, "CN=device-2": 3}


async def generations(service: Service) -> dict[str, int]:
    """Return under which generation each certificate was granted."""
    found = {}
    for row in await service.run("GET", "/v1/requests", state="delivered"):
        whole = await service.run("GET", f"/v1/requests/{row['id']}")
        found[whole["subject"]] = whole["generation"]
    return found


async def test_no_request_sees_two_configurations(two: Service, connect: Connect) -> None:
    """Issuer, validity and chain change together under load, with a bad file after each good one."""
    client = await connect(two)
    done: list[tuple[str, int, bool]] = []
    numbers = iter(range(1000))

    async def ask() -> None:
        for _ in range(12):
            number = next(numbers)
            reply = await client.enroll(device(number), two.static_challenge, transaction=f"transaction-{number}")
            assert reply.status is PkiStatus.SUCCESS, reply
            done.append((*issuer_and_days(leaf_of(reply)), len(reply.certificates) > 1))

    asking = [asyncio.create_task(ask()) for _ in range(5)]
    reloads = 0
    while not all(task.done() for task in asking):
        await reload(two, second if reloads % 2 == 0 else first)
        good = (two.folder / "profiles.yaml").read_text()
        change(two.folder, lambda config: config["profiles"]["demo"]["endpoints"]["scep"].update(ra_certificate="ca/root.pem"))
        with pytest.raises(ConfigurationError):
            await prepare(two)
        (two.folder / "profiles.yaml").write_text(good)
        reloads += 1
    await asyncio.gather(*asking)
    assert reloads > 2
    assert {(issuer == SECOND, days, chain) for issuer, days, chain in done} == {(False, 10, False), (True, 20, True)}
    assert len(done) == 60


async def test_an_ra_that_was_replaced_opens_nothing(service: Service, connect: Connect) -> None:
    old = await connect(service)
    await enroll(old, service, 1)
    pair = write_pair(service.folder, "new-ra")
    endpoint = {"ra_certificate": pair["certificate"], "ra_key": pair["key"]}
    await reload(service, lambda config: config["profiles"]["demo"]["endpoints"]["scep"].update(endpoint))
    new = await connect(service)
    assert new.ra != old.ra
    await enroll(new, service, 2)
    old.ra_signer = new.ra_signer
    refused = await old.enroll(device(3), service.static_challenge)
    assert (refused.status, refused.fail_info) == (PkiStatus.FAILURE, FailInfo.BAD_MESSAGE_CHECK)
    await asyncio.gather(*(probe.check() for probe in service.gateway.probes()))


async def test_a_program_that_signs_when_its_ca_is_replaced(start: StartService, connect: Connect) -> None:
    service = await start()
    folder = service.folder
    for name, text in {"sign.py": documented_program(), "sign": WAITING.format(folder=folder, python=sys.executable)}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(stat.S_IRWXU)
    (folder / "ca.pem").write_bytes((folder / "ca" / "issuing.pem").read_bytes())
    write_secret(folder / "ca.key", (folder / "secrets" / "issuing.key").read_bytes())
    program = {"type": "exec", "command": [str(folder / "sign")], "chain": ["ca/issuing.pem", "ca/root.pem"], "deadline": "60s"}
    await reload(service, lambda config: config["upstream_cas"].update(local=program))
    client, before = await connect(service), children()
    began = asyncio.create_task(enroll(client, service, 1))
    while not (folder / "reached").exists():
        await asyncio.sleep(0.01)
    write_ca(folder, "second")
    await reload(service, second)
    assert issuer_and_days(await enroll(client, service, 2)) == (SECOND, 20)
    assert children() > before
    (folder / "go").touch()
    assert issuer_and_days(await began)[0] != SECOND
    assert children() == before


WAITING = """#!/bin/sh
touch {folder}/reached
while [ ! -e {folder}/go ]; do sleep 0.02; done
CA_DIR={folder} exec {python} -I {folder}/sign.py
"""


async def test_what_is_counted_is_not_forgotten(start: StartService, connect: Connect) -> None:
    service = await start(demo={"limits": {"failures_per_address": {"count": 2, "window": "1h"}}})
    client = await connect(service)
    for number in range(2):
        assert (await client.enroll(device(number), WRONG, transaction=f"{number}")).status is PkiStatus.FAILURE
    await reload(service, lambda config: config["profiles"]["demo"].update(approval="manual"))
    request, _ = device(9).request(client.ra, service.static_challenge)
    status, _, _ = await client.post(request.message)
    assert status == 429


async def test_operators_see_what_is_in_force(service: Service, connect: Connect) -> None:
    await connect(service)

    def another(config: dict[str, Any]) -> None:
        config["profiles"]["more"] = {**config["profiles"]["demo"], "credentials": [{"type": "one_time", "ttl": "5m"}]}
        del config["profiles"]["more"]["renewal"]

    await reload(service, another)
    status = await service.run("GET", "/v1/status")
    assert (status["generation"], set(status["profiles"])) == (2, {"demo", "more"})
    assert "more" in (await service.run("GET", "/v1/config"))["profiles"]
    client = await connect(service, "more")
    assert (await client.enroll(Device(), await service.new_challenge("more"))).status is PkiStatus.SUCCESS
    await reload(service, lambda config: config["profiles"].pop("more"))
    status, _, _ = await client.post(b"\x30\x00")
    assert status == 404


def wrong_text(_service: Service) -> None:
    return


def other_key(name: str, spec: str) -> Any:
    def write(service: Service) -> None:
        (service.folder / "secrets" / name).write_bytes(serialize_private_key(generate_private_key(spec)))

    return write


def junk(name: str) -> Any:
    return lambda service: (service.folder / name).write_bytes(b"junk")


def empty(name: str) -> Any:
    return lambda service: (service.folder / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(wrong_text, "this is not YAML", id="no-yaml"),
        pytest.param(other_key("ra.key", "rsa-2048"), "scep.ra_key", id="ra-key"),
        pytest.param(other_key("issuing.key", "ec-p256"), "upstream_cas.local.key", id="ca-key"),
        pytest.param(other_key("tls.key", "ec-p256"), "server.https.key", id="tls-key"),
        pytest.param(junk("ca/ra.pem"), "scep.ra_certificate", id="ra-certificate"),
        pytest.param(empty("ca/issuing.pem"), "upstream_cas.local.certificate", id="ca-certificate"),
        pytest.param(junk("tls/server.pem"), "server.https.certificate", id="tls-certificate"),
    ],
)
async def test_what_cannot_be_built_leaves_nothing_behind(service: Service, connect: Connect, spoil: Any, said: str) -> None:
    client = await connect(service)
    await (await prepare(service)).discard()
    before, in_force = Belongings.now(), service.gateway.generation
    spoil(service)
    _, sources = read(service.folder / "profiles.yaml")
    if spoil is wrong_text:
        sources = replace(sources, text=b"server: [")
    with pytest.raises(ConfigurationError, match=said):
        await service.gateway.prepare(sources, 2)
    await nothing_new(before)
    assert service.gateway.generation is in_force
    await enroll(client, service, 1)


async def test_a_ca_that_cannot_start_takes_back_those_that_have(
    service: Service, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await connect(service)
    await (await prepare(service)).discard()
    before = Belongings.now()

    async def refuse(_: ExecCA) -> None:
        raise ConfigurationError(("upstream_cas.program: is away",))

    monkeypatch.setattr(ExecCA, "start", refuse)
    program = {"type": "exec", "command": ["/bin/cat"], "chain": ["ca/issuing.pem", "ca/root.pem"]}
    _, ca = write_ca(service.folder, "second")
    change(service.folder, lambda config: config["upstream_cas"].update(second=ca, program=program))
    with pytest.raises(ConfigurationError, match="is away"):
        await prepare(service)
    await nothing_new(before)
    await enroll(client, service, 1)


@pytest.mark.parametrize("turns", [0, 1, 3])
async def test_a_preparation_that_is_cancelled(service: Service, connect: Connect, turns: int) -> None:
    client = await connect(service)
    write_ca(service.folder, "second")
    change(service.folder, second)
    await (await prepare(service)).discard()
    before, in_force = Belongings.now(), service.gateway.generation
    task = asyncio.create_task(prepare(service))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await nothing_new(before)
    assert service.gateway.generation is in_force
    await enroll(client, service, 1)


async def test_what_was_prepared_is_not_in_force(two: Service, connect: Connect) -> None:
    client = await connect(two)
    change(two.folder, second)
    prepared = await prepare(two)
    assert prepared.generation.number == 3
    assert issuer_and_days(await enroll(client, two, 1))[1] == 10
    await prepared.discard()
    await prepared.discard()
    assert issuer_and_days(await enroll(client, two, 2))[1] == 10
    assert two.gateway.generation.number == 2
    again = await prepare(two)
    two.gateway.commit(again)
    await again.discard()
    assert issuer_and_days(await enroll(client, two, 3))[1] == 20


async def test_a_ca_that_has_not_changed_goes_on(service: Service, connect: Connect) -> None:
    client = await connect(service)
    held: Held = hold(service)
    began = asyncio.create_task(enroll(client, service, 1))
    await held.reached.wait()
    for approval in ("manual", "automatic"):
        await reload(service, lambda config, approval=approval: config["profiles"]["demo"].update(approval=approval))  # type: ignore[misc]
    profile = service.gateway.generation.snapshot.profiles[ProfileName("demo")]
    assert profile.upstream_ca is held.ca
    held.go.set()
    await began
    await asyncio.sleep(0.01)
    assert not held.closed.is_set()
    await enroll(client, service, 2)


EDITS: dict[str, Edit] = {"nothing": lambda config: None, "another validity": second}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
async def test_the_worker_ends_while_earlier_work_goes_on(two: Service, connect: Connect, edit: Edit) -> None:
    client = await connect(two)
    held = hold(two)
    began = asyncio.create_task(enroll(client, two, 1))
    await held.reached.wait()
    await reload(two, edit)
    ending = asyncio.create_task(two.close())
    await asyncio.sleep(0.05)
    held.go.set()
    assert issuer_and_days(await began)[1] == 10
    await ending
    assert held.closed.is_set()
