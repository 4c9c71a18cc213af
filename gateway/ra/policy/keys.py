"""Which public keys may be certified."""

from __future__ import annotations

from gateway.config.policy import KeyRule, RuleMode
from gateway.errors import Reason
from gateway.model import PublicKey
from gateway.ra.policy.verdicts import Problem, Rule, Verdicts

_RULE = Rule("key", "policy.key", Reason.POLICY_KEY)
_SIGNATURE = Rule("request_signature", "policy.key", Reason.UNSUPPORTED_ALGORITHM)
_ALLOWED_DIGEST = "the request is signed with an allowed digest"
_DIGESTS = frozenset({"sha224", "sha256", "sha384", "sha512", "sha3_224", "sha3_256", "sha3_384", "sha3_512", "none"})


def judge_key(rule: KeyRule, key: PublicKey) -> Verdicts:
    """Judge algorithm, size and curve; what is not named is refused."""
    problem = _key_problem(rule, key)
    return _RULE.judge(rule.mode, (problem,) if problem else (), "the key is allowed")


def judge_request_signature(rule: KeyRule, digest: str) -> Verdicts:
    """Judge the digest of the request's own signature, a model.CertificateRequest's `signature_digest`.

    MD5 proves possession of nothing where collisions are to be had, so that no mode lets it pass: its own field alone does.
    """
    if digest in _DIGESTS:
        return _SIGNATURE.judge(rule.mode, (), _ALLOWED_DIGEST)
    weak = {"sha1": ("allow_sha1_signature", rule.allow_sha1_signature), "md5": ("allow_md5_signature", rule.allow_md5_signature)}
    field, allowed = weak.get(digest, ("", False))
    if allowed:
        return _SIGNATURE.judge(rule.mode, (), _ALLOWED_DIGEST)
    mode = RuleMode.ENFORCE if digest == "md5" else rule.mode
    return _SIGNATURE.judge(mode, (Problem(field, f"the request is signed with {digest}, use SHA-256"),), "")


def _key_problem(rule: KeyRule, key: PublicKey) -> Problem | None:
    match key.algorithm:
        case "rsa":
            return _rsa_problem(rule, key.bits)
        case "ec":
            field, allowed, name = "ec", key.curve in rule.ec, f"EC {key.curve}"
        case "ed25519" | "ed448":
            field, allowed, name = "eddsa", key.algorithm in rule.eddsa, key.algorithm
        case "ml-dsa-44" | "ml-dsa-65" | "ml-dsa-87":
            field, allowed, name = "ml_dsa", key.algorithm in rule.ml_dsa, key.algorithm
        case _:
            field, allowed, name = "", False, key.algorithm
    return None if allowed else Problem(field, f"{name} keys are not allowed")


def _rsa_problem(rule: KeyRule, bits: int) -> Problem | None:
    if rule.rsa is None:
        return Problem("rsa", "RSA keys are not allowed")
    if bits < rule.rsa.min_bits:
        return Problem("rsa.min_bits", f"the RSA key has {bits} bits, at least {rule.rsa.min_bits} are required")
    if bits > rule.rsa.max_bits:
        return Problem("rsa.max_bits", f"the RSA key has {bits} bits, at most {rule.rsa.max_bits} are allowed")
    return None
