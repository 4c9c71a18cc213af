from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from gateway.config.load import Examination
from gateway.config.view import HIDDEN, Difference, differences, redact

Judge = Callable[[Any], Examination]


def test_secrets_are_shown_by_where_they_come_from(minimal: dict[str, Any], judge: Judge) -> None:
    environment = {"TOKEN": "hunter2", "OTHER": {"env": "PRESENT"}}
    minimal["upstream_cas"]["prog"] = {"type": "exec", "command": ["/bin/sign"], "chain": ["ca.pem"], "environment": environment}
    config = judge(minimal).config
    assert config is not None
    shown = redact(config)
    assert shown["store"]["key"] == {"file": "store.key"}
    assert shown["upstream_cas"]["prog"]["environment"] == {"TOKEN": HIDDEN, "OTHER": {"env": "PRESENT"}}
    text = json.dumps(shown)
    assert "hunter2" not in text
    assert "content of" not in text
    assert "a challenge from outside" not in text


def test_what_is_shown_with_its_defaults_is_a_configuration_again(minimal: dict[str, Any], judge: Judge) -> None:
    minimal["profiles"]["corp"]["renewal"] = {"from": ["corp"], "window": "60d"}
    config = judge(minimal).config
    assert config is not None
    shown = redact(config)

    def without_nothing(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: without_nothing(item) for name, item in value.items() if item is not None}
        return [without_nothing(item) for item in value] if isinstance(value, list) else value

    assert judge(without_nothing(shown)).config == config
    assert judge(shown).config == config


def test_differences_name_the_field() -> None:
    before = {"server": {"workers": 2}, "profiles": {"a": {"x": [1, 2]}, "b": {"y": 1}}}
    after = {"server": {"workers": 4}, "profiles": {"a": {"x": [1, 3]}, "c": {"credentials": [{"type": "one_time"}]}}}
    assert differences(before, after) == (
        Difference("profiles.a.x", [1, 2], [1, 3]),
        Difference("profiles.b.y", 1, None),
        Difference("profiles.c.credentials[0].type", None, "one_time"),
        Difference("server.workers", 2, 4),
    )
    assert differences(before, before) == ()
