"""HttpSettings: is the interface on, what does it ask of its callers, and why it must refuse where that is not safe.

Read once, at the start, from the environment or the table `[http]` of `.streamlit/secrets.toml`; the environment goes first:

    CIFAR_TL_HTTP=1              [http]
    CIFAR_TL_HTTP_TOKEN=...      enabled = true
                                 token = "..."

Address and host names are Streamlit's own settings. Knows nothing of requests: `guard` does.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cifar_tl.errors import SettingsError

ENABLED, TOKEN = "CIFAR_TL_HTTP", "CIFAR_TL_HTTP_TOKEN"
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
LEAST_TOKEN = 16  # characters; `secrets.token_urlsafe()` gives 43
MAKE_TOKEN = 'python -c "import secrets; print(secrets.token_urlsafe())"'

_ON, _OFF = ("1", "true", "on", "yes"), ("", "0", "false", "off", "no")


@dataclass(frozen=True)
class HttpSettings:
    """`address`: where the server listens, "" for everywhere. `hosts`: names that requests may call it by, () for any."""

    is_enabled: bool = False
    token: str = field(default="", repr=False)  # never in a log
    address: str = ""
    hosts: tuple[str, ...] = LOOPBACK_NAMES

    @property
    def is_private(self) -> bool:
        """True if the server listens on this machine alone, and goes by no name that others could reach it by."""
        return is_loopback(self.address) and bool(self.hosts) and all(is_loopback(host) for host in self.hosts)

    @property
    def problem(self) -> str:
        """Why every call is refused, in one line for the log and the callers; "" if nothing is wrong."""
        if self.token and (len(self.token) < LEAST_TOKEN or not self.token.isascii() or not self.token.isprintable() or " " in self.token):
            return f"{TOKEN} must have at least {LEAST_TOKEN} characters, ASCII without spaces. Make one with {MAKE_TOKEN}."
        if not self.token and not self.is_private:
            return f"The dashboard can be reached from other machines, so the HTTP interface needs a token: set {TOKEN}."
        return ""


def is_loopback(host: str) -> bool:
    """True for names and addresses that lead nowhere but to this machine."""
    try:
        return host.strip("[]").lower() == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def settings_from(environment: Mapping[str, str], secrets: Mapping[str, Any], address: str | None, hosts: list[str] | None) -> HttpSettings:
    """What the environment, else the table [http] of the secrets, asks for. Raises SettingsError for a switch that is neither on nor off."""
    return HttpSettings(
        is_enabled=_switch(environment.get(ENABLED, secrets.get("enabled", ""))),
        token=str(environment.get(TOKEN) or secrets.get("token", "")).strip(),
        address=address or "",
        hosts=tuple(host.strip().lower().rstrip(".") for host in hosts or ()),
    )


def _switch(value: object) -> bool:
    said = str(value).strip().lower()
    if said in _ON or said in _OFF:
        return said in _ON
    raise SettingsError(f"{ENABLED} must be 1 or 0, not {said!r}.")
