"""Real clients: where tests run in CI a missing one fails, on a user's machine it skips."""

import os
import shutil
from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def require_program() -> Callable[[str, str], str]:
    """Return the path of a program that a Debian package brings."""

    def require(program: str, package: str) -> str:
        path = shutil.which(program)
        if path is None:
            message = f"{program} is missing: apt-get install {package}"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
        return path

    return require
