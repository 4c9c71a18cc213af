"""Where a profile is found: what clients append to its URL, in any case, and nothing else."""

import pytest

from tests.flow.scep.raw import exchange, get
from tests.flow.scep.service import Service


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/scep/demo", id="bare"),
        pytest.param("/scep/demo/", id="slash"),
        pytest.param("/scep/demo/pkiclient.exe", id="windows"),
        pytest.param("/scep/demo/pkiclient.exe/", id="windows-slash"),
        pytest.param("/scep/demo//pkiclient.exe", id="windows-after-a-slash"),
        pytest.param("/scep/demo/cgi-bin/pkiclient.exe", id="cisco"),
        pytest.param("/scep/demo/cgi-bin/pkiclient.exe/", id="cisco-slash"),
        pytest.param("/scep/demo//cgi-bin/pkiclient.exe", id="cisco-after-a-slash"),
        pytest.param("/SCEP/DEMO/PKICLIENT.EXE", id="upper-case"),
        pytest.param("/Scep/Demo/Cgi-Bin/PkiClient.exe", id="mixed-case"),
        pytest.param("/scep/%64emo", id="escaped"),
        pytest.param("http://pki.example/scep/demo", id="absolute-form"),
        pytest.param("http://pki.example:8080/scep/demo/pkiclient.exe", id="absolute-form-with-port"),
    ],
)
async def test_aliases(service: Service, path: str) -> None:
    answer = await exchange(service.port, get(f"{path}?operation=GetCACaps"))
    assert (answer.status, answer.media_type) == (200, "text/plain")


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/scep/nope", id="unknown-profile"),
        pytest.param("/scep/", id="no-profile"),
        pytest.param("/scep", id="no-slash"),
        pytest.param("/", id="root"),
        pytest.param("/scep/demo/other.exe", id="another-program"),
        pytest.param("/scep/demo/pkiclientXexe", id="the-dot-is-a-dot"),
        pytest.param("/scep/demo/pkiclient.exe.bak", id="longer"),
        pytest.param("/scep/demo/cgi-bin", id="cgi-bin-alone"),
        pytest.param("/scep/demo///", id="three-slashes"),
        pytest.param("/scep/demo/demo", id="twice"),
        pytest.param("/scep/demo%2fpkiclient.exe", id="escaped-slash"),
        pytest.param("/scep/demo%00", id="nul"),
        pytest.param("/scep/demo%ff", id="no-utf-8"),
        pytest.param("/scep/../scep/demox", id="dots"),
        pytest.param("/scepx/demo", id="another-root"),
        pytest.param("/scep-mtls/demo", id="mtls-of-a-profile-without"),
        pytest.param("/scep-mtls/nope", id="mtls-unknown-profile"),
        pytest.param("/x/scep/demo", id="prefix"),
        pytest.param("/scep/" + "a" * 60_000, id="60-kb"),
    ],
)
async def test_unknown_paths(service: Service, path: str) -> None:
    answer = await exchange(service.port, get(f"{path}?operation=GetCACaps"))
    assert answer.status == 404
    assert b"Traceback" not in answer.body
