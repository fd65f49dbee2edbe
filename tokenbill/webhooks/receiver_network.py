"""Connections to receivers: a name is resolved once, its addresses are checked, and a checked address is connected to.

So a name that resolves to another address a moment later does not lead into a private network. Proxies of the
environment are not used, because the address behind a proxy cannot be checked.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpcore
import httpx

from tokenbill.webhooks.receiver import IpAddress, IpNetwork, ip_address, why_not_public

ADDRESS_SECONDS = 5.0
"""Time to connect to one of the addresses of a name, so that there is time for the next."""
RESOLVERS = 256
"""Number of names that are resolved at the same time, each in a thread. A slow name server holds its thread."""
RESOLVER_OPTIONS = ("RES_OPTIONS", "timeout:2 attempts:2")
"""Variable by which glibc limits the time of a resolution, and its value: a few seconds instead of half a minute."""
KEPT_CONNECTIONS = 64
_KEPT_SECONDS = 5.0


class PrivateAddress(httpcore.ConnectError):
    """The receiver has no public address, and its webhook was added without permission for others."""


class ReceiverNetwork(httpcore.AsyncNetworkBackend):
    """Opens connections to public addresses and those of ``networks``, or with ``allow_private`` to any."""

    def __init__(self, resolvers: ThreadPoolExecutor, allow_private: bool, networks: Sequence[IpNetwork] = ()) -> None:
        self._resolvers = resolvers
        self._allow_private = allow_private
        self._networks = networks
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of a host that may be connected to and answers.

        Raises:
            PrivateAddress: no address of the host may be connected to.
            httpcore.ConnectError, httpcore.ConnectTimeout: no such address answers, or the name has none.
        """
        failure: Exception | None = None
        for address in await self._addresses(host, port):
            found = ip_address(address)
            why = "no IP address" if found is None else self._why_not(found)
            if why is not None and not self._allow_private:
                failure = failure or PrivateAddress(
                    f"{host} is {address}, {why}: permit it with `tokenbill webhook allow-private`, or its network"
                    " with `tokenbill webhooks --notify-network`"
                )
                continue
            try:
                return await self._plain.connect_tcp(address, port, ADDRESS_SECONDS, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError(f"{host} has no address")

    def _why_not(self, address: IpAddress) -> str | None:
        permitted = any(address in network for network in self._networks)
        return None if permitted else why_not_public(address)

    async def _addresses(self, host: str, port: int) -> list[str]:
        if ip_address(host) is not None:
            return [host]
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._resolvers, _resolve, host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved: {error}") from error
        return found


def _resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def why_not_permitted(host: str) -> str | None:
    """Return the reason why no address of a host may be connected to without permission; None if one may.

    A name that cannot be resolved now is checked when it is connected to.
    """
    try:
        addresses = [host] if ip_address(host) is not None else _resolve(host, 0)
    except (OSError, UnicodeError):
        return None
    kinds = [None if (found := ip_address(one)) is None else why_not_public(found) for one in addresses]
    if not addresses or None in kinds:
        return None
    return f"{host} is {addresses[0]}, {kinds[0]}" if host != addresses[0] else f"it is {kinds[0]}"


def connections(
    resolvers: ThreadPoolExecutor, allow_private: bool, verify: ssl.SSLContext, networks: Sequence[IpNetwork] = ()
) -> httpcore.AsyncConnectionPool:
    """Return a pool of connections. Pools of receivers with and without permission are never shared."""
    return httpcore.AsyncConnectionPool(
        ssl_context=verify,
        max_connections=None,
        max_keepalive_connections=KEPT_CONNECTIONS,
        keepalive_expiry=_KEPT_SECONDS,
        network_backend=ReceiverNetwork(resolvers, allow_private, networks),
    )


def certificates() -> ssl.SSLContext:
    """Return the certificates by which receivers are verified: those of ``SSL_CERT_FILE``, else the usual ones."""
    return httpx.create_ssl_context()
