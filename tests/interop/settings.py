"""Changes to the configuration that `init` wrote, as an operator would make them."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import yaml

Change = Callable[[dict[str, Any]], None]

LEGACY = {"sha1": True, "des": True, "triple_des": True}


def edit(*changes: Change) -> Callable[[str], str]:
    """Return what `start_server` takes as `edit`: all these changes, in their order."""

    def apply(text: str) -> str:
        document = yaml.safe_load(text)
        for change in changes:
            change(document)
        return yaml.safe_dump(document, sort_keys=False)

    return apply


def profile(name: str, **settings: Any) -> Change:
    """Set fields of a profile; one that does not exist yet begins as a copy of `demo` that renews from itself."""

    def change(document: dict[str, Any]) -> None:
        profiles = document["profiles"]
        if name not in profiles:
            profiles[name] = deepcopy(profiles["demo"])
            profiles[name]["endpoints"].get("est", {}).pop("default", None)
            profiles[name]["renewal"]["from"] = [name]
        profiles[name] |= settings

    return change


def scep(name: str, **settings: Any) -> Change:
    """Set fields of a profile's SCEP endpoint."""

    def change(document: dict[str, Any]) -> None:
        profile(name)(document)
        document["profiles"][name]["endpoints"]["scep"] |= settings

    return change


def policy(name: str, rule: str, **settings: Any) -> Change:
    """Set fields of one rule of a profile's policy."""

    def change(document: dict[str, Any]) -> None:
        profile(name)(document)
        document["profiles"][name]["policy"][rule] |= settings

    return change
