"""Every client waits for a CA of 9 and of 40 seconds: finalize answers `processing`, and each finds its certificate."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography import x509

from tests.interop.acme_clients import (
    AcmeTiny,
    Caddy,
    Certbot,
    Client,
    Dehydrated,
    Lego,
    ModMd,
    NodeClient,
    Server,
    Uacme,
    open_folder,
)
from tests.interop.acme_site import AcmeSite

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

PACKAGES = {
    "certbot": "certbot",
    "lego": "lego",
    "uacme": "uacme",
    "dehydrated": "dehydrated",
    "acme-tiny": "acme-tiny",
    "caddy": "caddy",
    "apache2": "apache2-bin",
}

NewClients = Callable[[str], dict[str, Client]]


@pytest.fixture
def new_clients(
    acme_site: AcmeSite, tmp_path: Path, require_program: Callable[[str, str], str], newest_certbot: str, node_modules: Path
) -> Iterator[NewClients]:
    for program, package in PACKAGES.items():
        require_program(program, package)
    with ExitStack() as stack:

        def make(profile: str) -> dict[str, Client]:
            return {
                "certbot": Certbot(tmp_path / "certbot", acme_site, profile),
                "certbot-newest": Certbot(tmp_path / "certbot-newest", acme_site, profile, program=newest_certbot),
                "lego": Lego(tmp_path / "lego", acme_site, profile),
                "uacme": Uacme(tmp_path / "uacme", acme_site, profile),
                "dehydrated": Dehydrated(tmp_path / "dehydrated", acme_site, profile),
                "acme-tiny": AcmeTiny(tmp_path / "acme-tiny", acme_site, profile),
                "acme-client": NodeClient(tmp_path / "acme-client", acme_site, profile, modules=node_modules),
                "caddy": Caddy(tmp_path / "caddy", acme_site, profile),
                "mod-md": ModMd(stack.enter_context(open_folder()), acme_site, profile),
            }

        yield make


def obtain(client: Client, name: str) -> list[x509.Certificate]:
    assert isinstance(client, Certbot | Lego | Uacme | Dehydrated | AcmeTiny | NodeClient | Server)
    return client.obtain(name)


@pytest.mark.parametrize("profile", ["slow9", "slow40"])
def test_all_wait(acme_site: AcmeSite, new_clients: NewClients, profile: str) -> None:
    """All at once, so that it takes as long as one."""
    clients = new_clients(profile)
    with ThreadPoolExecutor(len(clients)) as pool:
        asked = {name: pool.submit(obtain, client, f"{name}-{profile}.acme.test") for name, client in clients.items()}
    failed = {name: str(error)[-1500:] for name, future in asked.items() if (error := future.exception()) is not None}
    assert not failed, "\n".join(f"{name}: {error}" for name, error in failed.items())
    for name, future in asked.items():
        acme_site.check(future.result(), f"{name}-{profile}.acme.test")
    issued = list((acme_site.server.state.parent / profile / "issued").iterdir())
    assert len(issued) == len(clients)  # nobody was given two
