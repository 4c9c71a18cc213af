"""Endpoints and services for the tests of ACME; each is closed at the end."""

from collections.abc import AsyncIterator

import pytest

from tests.flow.acme.client import Client
from tests.flow.acme.front import Front


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
