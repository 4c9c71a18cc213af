"""Endpoints and services for the tests of ACME; each is closed at the end."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.flow.acme.client import Client
from tests.flow.acme.front import Front
from tests.flow.acme.site import PREVALIDATED, Site, start_site

NewSite = Callable[..., Awaitable[Site]]


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    front = Front()
    await front.start()
    yield front
    await front.close()


@pytest.fixture
async def client(front: Front) -> Client:
    """A client with an account."""
    return await front.registered()


@pytest.fixture
async def new_site(tmp_path: Path) -> AsyncIterator[NewSite]:
    """Start whole gateways; all are closed at the end."""
    sites: list[Site] = []

    async def start(**profiles: Mapping[str, Any]) -> Site:
        site = await start_site(tmp_path, **profiles)
        sites.append(site)
        return site

    yield start
    for site in sites:
        await site.close()


@pytest.fixture
async def site(new_site: NewSite) -> Site:
    """A gateway with `demo`, whose names are proved, and `corp`, where names below corp.test are good at once."""
    return await new_site(corp=PREVALIDATED)
