"""Why an archive is refused: one function per reason, each a `BadInput` with a stable code."""

from __future__ import annotations

from datasets_registry.archives.limits import Password
from imaging.errors import BadInput

SHOWN = 120
"""Characters of a member's name quoted in a message."""


def quoted(name: str) -> str:
    """Return a member's name fit for a message: ASCII, control characters written out, cut when long."""
    text = ascii(name)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def member(where: str, name: str, found: str, rule: str) -> BadInput:
    """Refuse an archive for what one member is or is called."""
    return BadInput(
        "archive_member",
        f"{where}, member {quoted(name)}",
        found,
        rule,
        "do not use this archive; fetch it again from its publisher, or unpack it by hand after a look inside",
    )


def limit(where: str, found: str, allowed: str, setting: str) -> BadInput:
    """Refuse an archive that asks for more than `UnpackLimits` allows."""
    return BadInput(
        "archive_limit",
        where,
        found,
        f"at most {allowed}",
        f"a bomb or a mistake; if it is really that large, raise {setting} of UnpackLimits",
    )


def damaged(where: str, reason: str) -> BadInput:
    """Refuse an archive whose bytes contradict each other."""
    return BadInput(
        "damaged",
        where,
        f"damaged data ({reason[:160]})",
        "an archive whose structure and checksums hold",
        "fetch the archive again and compare its checksum",
    )


def truncated(where: str, found: str, expected: str) -> BadInput:
    """Refuse an archive that ends too early."""
    return BadInput("truncated", where, found, expected, "the archive is cut short: fetch it again")


def unsupported(where: str, found: str, remedy: str) -> BadInput:
    """Refuse a file that is no archive known here, or one of a variant that nothing here can read."""
    return BadInput("archive_kind", where, found, "a whole zip, tar, tar.gz, tar.bz2, tar.xz or 7z archive", remedy)


def password_needed(where: str, name: str, password: Password, wrong: bool) -> BadInput:
    """Refuse an encrypted archive for which no password, or no right one, is set."""
    state = "for which the password is wrong (or the data is damaged)" if wrong else "and no password"
    return BadInput(
        "archive_password",
        where,
        f"the encrypted member {quoted(name)} {state}",
        "its password",
        f"take it from the data set's page and set {password.setting}",
    )
