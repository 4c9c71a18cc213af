from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.config.load import Examination, Sources, examine, parse, read
from gateway.errors import ConfigurationError

Judge = Callable[[Any], Examination]
Complaints = Callable[[Any], list[str]]


def test_a_minimal_file_loads_with_defaults(minimal: dict[str, Any], judge: Judge) -> None:
    found = judge(minimal)
    assert found.problems == ()
    assert found.config is not None
    assert str(found.config.server.http) == "127.0.0.1:8080"
    assert found.config.profiles["corp"].policy.eku.allow == ("clientAuth",)


def test_files_and_secrets_are_read_once_and_only_those_named(minimal: dict[str, Any], judge: Judge, folder: Path) -> None:
    sources = judge(minimal).sources
    assert sources is not None
    assert set(sources.files) == {"tls.pem", "ca.pem", "ra.pem"}
    assert sources.file("ca.pem") == b"content of ca.pem\n"
    assert set(sources.secrets) == {"file tls.key", "file store.key", "file audit.key", "file ca.key", "file ra.key"}
    config = parse(sources)
    assert sources.secret(config.store.key) == b"content of store.key"
    assert sources.resolve(config.store.path) == folder / "store/gateway.db"
    assert sources.resolve("/run/x") == Path("/run/x")
    with pytest.raises(KeyError):
        sources.file("/etc/passwd")


def test_a_worker_builds_the_same_from_bytes_after_the_files_are_gone(
    minimal: dict[str, Any], judge: Judge, folder: Path
) -> None:
    found = judge(minimal)
    assert found.sources is not None
    packed = found.sources.to_bytes()
    for path in folder.iterdir():
        path.unlink()
    sources = Sources.from_bytes(packed)
    assert sources == found.sources
    assert parse(sources) == found.config


def test_secrets_are_in_no_repr_and_no_problem(minimal: dict[str, Any], judge: Judge, folder: Path) -> None:
    (folder / "challenge").write_text("geheim\x01")
    minimal["profiles"]["corp"]["credentials"] = [{"type": "static", "challenge": {"file": "challenge"}, "any_name": True}]
    minimal["store"]["key"] = {"file": "hunter2hunter2", "env": "hunter2hunter2"}
    found = judge(minimal)
    assert len(found.problems) == 3
    assert "geheim" not in repr(found)
    assert "hunter2" not in "".join(problem.sentence for problem in found.problems)
    assert "content of" not in repr(found)


EVERYTHING_WRONG = """\
server:
  http: 8080
  https: {listen: "127.0.0.1:8443", certificate: missing.pem, key: {file: tls.key}, min_version: 1.2}
  external_url: {http: "http://localhost:8080"}
  workers: many
  limitz: {}
store: {type: sqlite, key: hunter2}
audit: {key: {env: ABSENT}, head_interval: 60}
upstream_cas:
  issuing: {type: locl, certificate: ca.pem, key: {file: ca.key}}
  other: {type: local, certificate: ca.pem, key: {file: ca.key}, crl: {lifetime: 1d, refresh: 1d}}
profiles:
  corp:
    endpoints: {scep: {ra_certificate: ra.pem, ra_key: {file: ra.key}, reply_chain: no}}
    upstream_ca: issuing
    upstream_ca: other
    credentials: [{type: onetime}, {challenge: {file: challenge}}]
    renewal: {from: [], messages: [RenewReq]}
    policy:
      subject:
      san: {dns: {patterns: "a"}}
      validity: {default: 400d, maximum: 5}
  iot:
    endpoints: {}
    upstream_ca: issuin
    credentials: [{type: static, challenge: {file: challenge}}]
    renewal: {from: [iot, crp]}
"""
EVERYTHING_SAID = """\
2:3: server.http: an address must be text; put it in quotes
3:37: server.https.certificate: {folder}/missing.pem cannot be read: No such file or directory
3:85: server.https.min_version: must be text; write it in quotes: "1.2" or "1.3"
4:3: server.external_url.https: is required
5:3: server.workers: must be a whole number or "cores"
6:3: server.limitz: is not a known key; did you mean "limits"?
7:23: store.key: must be a block of keys and values
8:9: audit.key: the environment variable ABSENT is not set
8:29: audit.head_interval: must be a whole number with a unit: "90s", "15m", "12h", "30d" or "2w"
10:13: upstream_cas.issuing.type: must be "local", "exec", "vault", "step-ca", "cfssl", "acme", "est", "scep", \
"cmp" or "group"; did you mean "local"?
11:86: upstream_cas.other.crl.refresh: must be shorter than lifetime, or clients meet an expired CRL
14:85: profiles.corp.endpoints.scep.reply_chain: no without quotes is a truth value to some YAML readers; write true or false, \
or put it in quotes
16:5: profiles.corp.upstream_ca: is written twice; the first is in line 15
17:20: profiles.corp.credentials[0].type: must be "static", "one_time", "intune_jws", "tls_certificate", "ra_certificate", \
"cmp_secret", "vendor_certificate", "basic", "digest_md5_legacy", "bearer" or "all_of"; did you mean "one_time"?
17:36: profiles.corp.credentials[1]: needs "type": "static", "one_time", "intune_jws", "tls_certificate", "ra_certificate", \
"cmp_secret", "vendor_certificate", "basic", "digest_md5_legacy", "bearer" or "all_of"
18:15: profiles.corp.renewal.from: must not be empty
18:36: profiles.corp.renewal.messages[0]: must be "RenewalReq", "PKCSReq", "simplereenroll", "kur", "cr" or "p10cr"; \
did you mean "RenewalReq"?
20:7: profiles.corp.policy.subject: has no value; write one, or remove the line
21:19: profiles.corp.policy.san.dns.patterns: must be a list
22:33: profiles.corp.policy.validity.maximum: is not a known key; did you mean "max"?
24:5: profiles.iot.endpoints: opens no endpoint; name at least one: scep, est, acme, cmp
25:5: profiles.iot.upstream_ca: there is no upstream CA issuin; did you mean "issuing"?
26:19: profiles.iot.credentials[0]: everybody who knows this challenge could ask for any subject: give policy.subject patterns, \
a template or an override for CN; or say any_name: true
27:27: profiles.iot.renewal.from[1]: there is no profile crp; did you mean "corp"?
"""


def test_everything_that_is_wrong_is_said_at_once(judge: Judge, folder: Path) -> None:
    found = judge(EVERYTHING_WRONG)
    path = f"{folder}/profiles.yaml:"
    said = "".join(f"{str(problem).removeprefix(path)}\n" for problem in found.problems)
    assert said == EVERYTHING_SAID.replace("{folder}", str(folder))
    assert found.config is None


def test_reading_raises_all_problems_with_the_name_that_was_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("profiles.yaml").write_text("server: {}\nfoo: 1\n")
    with pytest.raises(ConfigurationError) as caught:
        read(Path("profiles.yaml"))
    assert "profiles.yaml:2:1: foo: is not a known key; known here: server, store, audit, upstream_cas, profiles" in (
        caught.value.problems
    )
    assert all(problem.startswith("profiles.yaml:") for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "1:1: the file is empty", id="empty"),
        pytest.param("# nothing\n", "1:1: the file is empty", id="comment"),
        pytest.param("- a\n", "1:1: must be a block of keys and values", id="list"),
        pytest.param("just words\n", "1:1: must be a block of keys and values", id="words"),
        pytest.param("a: [\n", "2:1: this is not YAML", id="broken"),
    ],
)
def test_files_that_are_no_configuration(judge: Judge, folder: Path, text: str, said: str) -> None:
    assert str(judge(text).problems[0]).startswith(f"{folder}/profiles.yaml:{said}")


def test_a_missing_file(tmp_path: Path) -> None:
    found = examine(tmp_path / "profiles.yaml")
    assert found.config is None
    assert str(found.problems[0]).endswith("profiles.yaml cannot be read: No such file or directory")


def test_a_file_that_everybody_may_change_is_refused(minimal: dict[str, Any], judge: Judge, folder: Path) -> None:
    judge(minimal)
    path = folder / "profiles.yaml"
    path.chmod(0o666)
    (problem,) = examine(path).problems
    assert problem.sentence == "this file can be changed by everybody (mode 0666): chmod o-w it"
    path.chmod(0o664)
    assert examine(path).problems == ()


def change(data: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for name in parents:
        data = data.setdefault(name, {})
    data[last] = value


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        pytest.param("server.limits.body_bytes", "64k", "must be a whole number", id="int-text"),
        pytest.param("server.limits.body_bytes", 65536.5, "must be a whole number", id="int-fraction"),
        pytest.param("server.limits.body_bytes", True, "must be a whole number", id="int-bool"),
        pytest.param("server.limits.body_bytes", 1, "must be a whole number of at least 4096", id="int-small"),
        pytest.param("server.limits.body_bytes", 10**9, "must be a whole number of at most 1048576", id="int-large"),
        pytest.param("server.limits.body_bytes", None, "has no value; write one, or remove the line", id="null"),
        pytest.param("server.limits", [], "must be a block of keys and values", id="block-list"),
        pytest.param("profiles.corp.policy.san.require", "true", "must be true or false", id="bool-text"),
        pytest.param("profiles.corp.policy.san.require", 1, "must be true or false", id="bool-int"),
        pytest.param("profiles.corp.policy.subject.allow", "CN", "must be a list", id="list-text"),
        pytest.param("profiles.corp.policy.subject.patterns", [], "must be a block of keys and values", id="dict-list"),
        pytest.param("profiles.corp.policy.subject.template", 5, "must be text; put it in quotes", id="text-number"),
        pytest.param("profiles.corp.policy.subject.template", [], "must be text", id="text-list"),
        pytest.param(
            "profiles.corp.policy.key.mode", "enfroce", 'must be "enforce", "warn" or "off"; did you mean "enforce"?', id="enum"
        ),
        pytest.param("profiles", {}, "must not be empty", id="no-profiles"),
        pytest.param("store.key", {"env": "A B"}, None, id="env-name"),
    ],
)
def test_sentences(minimal: dict[str, Any], judge: Judge, path: str, value: Any, said: str | None) -> None:
    change(minimal, path, value)
    (problem,) = judge(minimal).problems
    assert problem.field.startswith(path)
    assert said is None or problem.sentence == said
    assert "input" not in problem.sentence.lower()


def test_a_union_says_what_each_member_takes(minimal: dict[str, Any], complaints: Complaints) -> None:
    environment = {"A": 5, "B": {"fil": "x"}, "C": {"env": "PRESENT"}}
    minimal["upstream_cas"]["prog"] = {"type": "exec", "command": ["/bin/sign"], "chain": ["ca.pem"], "environment": environment}
    assert complaints(minimal) == [
        "upstream_cas.prog.environment.A: must be text; put it in quotes or a block of keys and values",
        'upstream_cas.prog.environment.B.fil: is not a known key; did you mean "file"?',
    ]
