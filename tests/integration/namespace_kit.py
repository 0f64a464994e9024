"""Network namespaces of their own, for tests of paths whose MTU is not loopback's.

Everything is inside namespaces that processes of ours hold and that end with them: the machine's
own interfaces are never touched.

    one wire       a namespace whose lo carries `mtu` bytes
    a router       client ──(1,500)── router ──(`mtu`)── server
"""

from __future__ import annotations

import contextlib
import functools
import subprocess
from collections.abc import Iterator

LIFETIME_S = "600"  # of a namespace that nobody ended


class Namespace:
    """A network that exists as long as its holder sleeps."""

    def __init__(self) -> None:
        # It says that it is inside before anybody enters it.
        command = ["unshare", "-n", "sh", "-c", f"echo in; exec sleep {LIFETIME_S}"]
        self._holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        said = self._holder.stdout.readline()
        self.pid = self._holder.pid
        if said != b"in\n":
            self.close()
            raise OSError("no network namespace can be made here")

    def enter(self, *command: str) -> list[str]:
        """The command that runs `command` in here."""
        return ["nsenter", "-t", str(self.pid), "-n", *command]

    def ip(self, arguments: str) -> None:
        """`ip …` in here."""
        subprocess.run(self.enter("ip", *arguments.split()), check=True, capture_output=True)

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()
        self._holder.stdout.close()


@functools.cache
def why_there_are_none() -> str:
    """Why no namespace with a wire can be made here; "" if they can."""
    try:
        namespace = Namespace()
    except OSError as error:
        return str(error)
    try:
        namespace.ip("link add here type veth peer name there")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no veth can be made in a namespace: {error}"
    finally:
        namespace.close()
    return ""


@contextlib.contextmanager
def one_wire(mtu: int) -> Iterator[tuple[Namespace, Namespace, str]]:
    """(sender's, receiver's, receiver's address): both at the ends of one device."""
    namespace = Namespace()
    try:
        namespace.ip(f"link set lo mtu {mtu} up")
        yield namespace, namespace, "127.0.0.1"
    finally:
        namespace.close()


@contextlib.contextmanager
def behind_a_router(mtu: int) -> Iterator[tuple[Namespace, Namespace, str]]:
    """The same, with a router between them whose further side is the narrow one."""
    with contextlib.ExitStack() as stack:
        sender, router, receiver = (stack.enter_context(contextlib.closing(Namespace()))
                                    for _ in range(3))  # fmt: skip
        for namespace in (sender, router, receiver):
            namespace.ip("link set lo up")
        for end, net, width in ((sender, 1, 1500), (receiver, 2, mtu)):
            router.ip(f"link add r{net} mtu {width} type veth peer name e mtu {width}")
            router.ip(f"link set e netns {end.pid}")
            router.ip(f"addr add 10.77.{net}.1/24 dev r{net}")
            router.ip(f"link set r{net} up")
            end.ip(f"addr add 10.77.{net}.2/24 dev e")
            end.ip("link set e up")
            end.ip(f"route add default via 10.77.{net}.1")
        forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
        subprocess.run(router.enter("sh", "-c", forward), check=True)
        yield sender, receiver, "10.77.2.2"
