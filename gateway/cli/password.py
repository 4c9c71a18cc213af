"""`pki-gateway password`: lines for the files of users who log in over EST."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from gateway.cli.options import argument, with_exit_codes

app = typer.Typer(no_args_is_help=True)

_MAX_INPUT = 8192

UserArgument = Annotated[str, typer.Argument(help="The user's name, without a colon; '' for a user without a name.")]


@app.command()
@with_exit_codes
def hash(user: UserArgument) -> None:
    """Print the line of a user for the file of a `basic` credential; the password is read from standard input, or asked for."""
    from gateway.ra.credentials.passwords import hash_password

    _check_user(user)
    with argument("the password"):
        print(f"{user}:{hash_password(_read_password().encode())}")


@app.command()
@with_exit_codes
def digest(
    user: UserArgument,
    realm: Annotated[str, typer.Option(help="The realm of the credential, which the hash is made with.")] = "pki-gateway",
) -> None:
    """Print the line of a user for the file of a `digest_md5_legacy` credential; the password is read as for `hash`."""
    from gateway.ra.credentials.digest import digest_ha1

    _check_user(user)
    with argument("the password"):
        print(f"{user}:{digest_ha1(user, realm, _read_password())}")


def _check_user(user: str) -> None:
    from gateway.ra.credentials.passwords import is_user_name

    with argument("USER"):
        if not is_user_name(user):
            raise ValueError("must be printable, without a colon, and of at most 128 characters")


def _read_password() -> str:
    """Return one line of standard input, or what is typed twice at a terminal; ValueError where that is no line of text."""
    if sys.stdin.isatty():
        password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return password
    data = sys.stdin.buffer.read(_MAX_INPUT + 1)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    password = text.removesuffix("\n").removesuffix("\r")
    if len(data) > _MAX_INPUT or any(character < " " or character == "\x7f" for character in password):
        raise ValueError("is not one line of text")
    return password
