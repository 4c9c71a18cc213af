"""What keeps a service from starting, and what its operator is only told."""

from __future__ import annotations

from tests.unit.assemble.installation import Installation


def test_a_new_installation_gives_no_rise_to_anything(installation: Installation) -> None:
    found = installation.judged()
    assert (found.problems, found.expiring, found.warnings) == ((), (), ())


def test_warnings_of_the_file_are_among_them(installation: Installation) -> None:
    installation.data["server"]["https"]["min_version"] = "1.3"
    assert installation.warnings().keys() == {"server.https.min_version"}
