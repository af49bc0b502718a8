"""Hosts and origins: which addresses only this machine can reach, and whose web pages may use the server."""

import ipaddress
import re
from dataclasses import dataclass

from gpt2cli.config import ServeConfig
from gpt2cli.errors import UsageError
from gpt2cli.untrusted import shown

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{0,5}))?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Authority:
    """A host and a port, as in a Host header. `host` is as `plain_host` returns it."""

    host: str
    port: int


def plain_host(host: str) -> str:
    """One spelling for each host: lower case, no brackets, no trailing dot, addresses in their shortest form."""
    name = host.strip("[]").lower().removesuffix(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    return str(getattr(address, "ipv4_mapped", None) or address)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host: localhost, 127.0.0.0/8 and ::1. Other names count as reachable."""
    name = plain_host(host)
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def is_any(host: str) -> bool:
    """Whether a host stands for all addresses of this machine: 0.0.0.0 and ::."""
    return plain_host(host) in ("0.0.0.0", "::")


def read_authority(text: str, default_port: int = 80) -> Authority | None:
    """Read `HOST` or `HOST:PORT`, with an IPv6 address in brackets. None for anything else, also with a user name."""
    found = _AUTHORITY.fullmatch(text)
    if not found or int(found[2] or default_port) > 65535:
        return None
    return Authority(plain_host(found[1]), int(found[2] or default_port))


def read_origin(text: str) -> str | None:
    """One spelling for each origin: `scheme://host:port`. None for what is not an origin, also for `null`."""
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    authority = read_authority(rest, _DEFAULT_PORTS.get(scheme, 0))
    if authority is None or not _SCHEME.fullmatch(scheme):
        return None
    return f"{scheme}://{authority.host}:{authority.port}"


def allowed_origins(config: ServeConfig) -> frozenset[str]:
    """The origins of --cors-origin, as `read_origin` returns them. Raises UsageError for what is not an origin."""
    return frozenset(_allowed_origin(text) for text in config.cors_origins)


def check(config: ServeConfig) -> None:
    """Raise UsageError for a host that other machines can reach without a key, and for what is not an origin."""
    allowed_origins(config)
    if not config.host:
        raise UsageError("--host is empty: give an address, or leave it out for this machine only")
    if "/" in config.host:
        raise UsageError(f"--host {shown(config.host)} is not a host: leave out the scheme and the path")
    check_key(config, config.host)


def check_key(config: ServeConfig, address: str) -> None:
    """Raise UsageError if other machines can reach an address of the host, and no key is set."""
    if config.api_key is None and not is_loopback(address):
        raise UsageError(
            f"other machines can reach the server at --host {config.host}: set a key with --api-key-file or"
            " GPT2CLI_API_KEY, or leave out --host"
        )


def _allowed_origin(text: str) -> str:
    if text.strip() in ("*", "null"):
        raise UsageError(
            f"--cors-origin {text.strip()} would let any web page use the server: name the origin of each page"
        )
    found = read_origin(text.removesuffix("/"))
    if found is None:
        raise UsageError(
            f"--cors-origin {shown(text)} is not an origin: give a scheme and a host, and the port if there is one,"
            " such as http://localhost:3000"
        )
    return found
