"""What the tunnel takes for an address, and what it says to others."""

from __future__ import annotations

import pytest

from netstack.tunnel.address import loopback


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8000", ("127.0.0.1", 8000)),
        ("localhost:8000", ("127.0.0.1", 8000)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("127.9.9.9:65535", ("127.9.9.9", 65_535)),
    ],
)
def test_an_address_of_this_machine_is_taken(text, address):
    assert loopback(text) == address


@pytest.mark.parametrize(
    "text", ["10.0.0.1:80", "0.0.0.0:80", "example.com:80", "[::1]:80", "128.0.0.1:80", ":80"]
)
def test_another_machine_is_refused(text):
    with pytest.raises(ValueError, match="is not this machine"):
        loopback(text)


@pytest.mark.parametrize(
    "text", ["", "x", "0", "65536", "-1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:²", "80 "]
)
def test_what_is_no_port_is_refused(text):
    with pytest.raises(ValueError, match="is not an address; write a port, or 127"):
        loopback(text)
