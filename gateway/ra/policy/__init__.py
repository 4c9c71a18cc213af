"""Certificate policy: what a request may get, judged rule by rule, the same for every protocol; no I/O and no clock.

Every rule is one function of its own configuration and of what was asked for. It returns what it grants and its verdicts;
`decide` puts the grants together, and there is none where an enforced rule is broken. Some things no mode switches off:

- never CA:TRUE, keyCertSign or cRLSign, nor an extension that only a CA or the CA itself writes;
- dangerous extended key usages only where `dangerous_ekus` names them, a few more only where `allow` does;
- a SID only where the credential vouches for it;
- only text that shows what it says: no control characters, NUL, invisible characters or unlisted GeneralName types;
- the names that the credential is bound to;
- never the name of a CA or of an RA.
"""

from gateway.ra.policy.decision import GrantedNames, decide, judge_names, precheck_names

__all__ = ["GrantedNames", "decide", "judge_names", "precheck_names"]
