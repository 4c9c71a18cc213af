"""Users of the admin socket are named for the audit trail."""

import os
import pwd

from gateway.web.peer import LocalUser, describe_user


def test_a_user_with_a_name() -> None:
    assert describe_user(0) == "uid:0 (root)"
    assert LocalUser(1, os.getuid(), 0).actor == f"uid:{os.getuid()} ({pwd.getpwuid(os.getuid()).pw_name})"


def test_a_user_without_a_name() -> None:
    assert describe_user(3_999_999_999) == "uid:3999999999"
