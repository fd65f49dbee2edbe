"""Rules for the receivers of webhooks: addresses that can be called, and networks that need permission. No I/O."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

MAX_URL_BYTES = 2_048
_VISIBLE = re.compile(r"[!-~]+", re.ASCII)
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?", re.ASCII)
_WITH_IPV4 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
"""IPv6 networks whose addresses end with the IPv4 address that they reach."""

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def why_no_receiver(url: str) -> str | None:
    """Return the reason why a text is not the URL of a receiver; None if it is one."""
    if len(url) > MAX_URL_BYTES:
        return f"it has {len(url)} characters: at most {MAX_URL_BYTES} are taken"
    if not _VISIBLE.fullmatch(url) or "\\" in url:
        return (
            "it has spaces, line ends, control characters, backslashes or characters beyond ASCII: percent-encode them"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return f"{error}"
    if parts.scheme not in ("http", "https"):
        return f"its scheme is {parts.scheme!r}: expected http or https"
    if "@" in parts.netloc:
        return "it has a user or a password: requests are signed, and not authenticated by their URL"
    if "#" in url:
        return "it has a fragment, which is never sent"
    if not host:
        return "it has no host"
    if port == 0 or parts.netloc.endswith(":"):
        return "its port is not a number from 1 to 65535"
    if ip_address(host) is None and (len(host) > 253 or not _HOST.fullmatch(host)):
        return f"its host is {host!r}: expected a name or an IP address"
    return None


def ip_address(host: str) -> IpAddress | None:
    """Return the IP address that a host is; None if the host is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def why_not_public(address: IpAddress) -> str | None:
    """Return the kind of an address that is not public, such as "a loopback address"; None if it is public.

    An IPv6 address that reaches an IPv4 address is what that address is.
    """
    address = _reached(address)
    if address.is_loopback:
        return "a loopback address"
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast:
        return "a multicast address"
    if address.is_unspecified:
        return "an unspecified address"
    if address.is_reserved:
        return "a reserved address"
    return None if address.is_global else "a private address"


def _reached(address: IpAddress) -> IpAddress:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    within = address.ipv4_mapped or address.sixtofour
    if within is None and int(address) > 1 and any(address in network for network in _WITH_IPV4):
        within = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return within or address
