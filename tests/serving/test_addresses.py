import pytest

from gpt2cli.config import ServeConfig
from gpt2cli.errors import UsageError
from gpt2cli.serving.addresses import (
    Authority,
    allowed_origins,
    check,
    is_any,
    is_loopback,
    plain_host,
    read_authority,
    read_origin,
)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.8.9.1", "localhost", "LocalHost", "localhost.", "::1", "[::1]", "0:0:0:0:0:0:0:1", "127.0.0.1."],
)
def test_loopback(host: str) -> None:
    assert is_loopback(host) and not is_any(host)


@pytest.mark.parametrize("host", ["::ffff:127.0.0.1", "[::FFFF:7f00:1]"])
def test_an_ipv4_address_in_ipv6_is_the_ipv4_address(host: str) -> None:
    assert plain_host(host) == "127.0.0.1"


@pytest.mark.parametrize(
    "host",
    [
        "",
        "0.0.0.0",
        "::",
        "192.168.0.1",
        "10.0.0.1",
        "example.org",
        "localhost.example.org",
        "xlocalhost",
        "2001:db8::1",
        "127.0.0.1.example.org",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "127.0.0.256",
        "localhost..",
        "::ffff:10.0.0.1",
    ],
)
def test_other_machines_may_reach_all_else(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "0:0::0"])
def test_all_addresses(host: str) -> None:
    assert is_any(host)


@pytest.mark.parametrize(
    ("text", "expected"),
    {
        "localhost": Authority("localhost", 80),
        "LOCALHOST.:8000": Authority("localhost", 8000),
        "127.0.0.1:1": Authority("127.0.0.1", 1),
        "127.0.0.1:": Authority("127.0.0.1", 80),
        "[::1]": Authority("::1", 80),
        "[::1]:8000": Authority("::1", 8000),
        "[0:0::1]:65535": Authority("::1", 65535),
        "my_box.lan:9": Authority("my_box.lan", 9),
    }.items(),
)
def test_an_authority(text: str, expected: Authority) -> None:
    assert read_authority(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":8000",
        "::1",
        "[::1",
        "::1]:80",
        "localhost:x",
        "localhost:65536",
        "localhost:123456",
        "localhost:-1",
        "me@localhost",
        "localhost@example.org",
        "localhost/",
        "localhost:80/",
        "local host",
        "localhost\n",
        "localhost:８",
        "localhost,example.org",
        "localhost:80:80",
        "[::1]x",
        "http://localhost",
        "%6cocalhost",
        "ﬂocalhost",
    ],
)
def test_not_an_authority(text: str) -> None:
    assert read_authority(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    {
        "http://localhost": "http://localhost:80",
        "HTTP://LocalHost:80": "http://localhost:80",
        "https://example.org": "https://example.org:443",
        "http://[::1]:8000": "http://::1:8000",
        "chrome-extension://abcdef": "chrome-extension://abcdef:0",
    }.items(),
)
def test_an_origin(text: str, expected: str) -> None:
    assert read_origin(text) == expected


@pytest.mark.parametrize(
    "text", ["", "null", "*", "localhost", "http://", "://x", "http://x/", "http://x/y", "a b://x"]
)
def test_not_an_origin(text: str) -> None:
    assert read_origin(text) is None


def test_a_slash_at_the_end_of_a_given_origin_does_not_count() -> None:
    config = ServeConfig(cors_origins=("http://localhost:3000/", "https://chat.example.org"))
    assert allowed_origins(config) == {"http://localhost:3000", "https://chat.example.org:443"}


def test_loopback_needs_no_key_and_other_hosts_do() -> None:
    check(ServeConfig())
    check(ServeConfig(host="::1"))
    check(ServeConfig(host="0.0.0.0", api_key="k"))
    for host in ("0.0.0.0", "::", "192.168.0.1", "mybox"):
        with pytest.raises(UsageError, match="set a key with --api-key-file"):
            check(ServeConfig(host=host))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ServeConfig(host=""), "--host is empty"),
        (ServeConfig(host="http://127.0.0.1"), "is not a host"),
        (ServeConfig(cors_origins=("*",)), "any web page"),
        (ServeConfig(cors_origins=("null",)), "any web page"),
        (ServeConfig(cors_origins=("http://ok", "localhost:3000")), "'localhost:3000' is not an origin"),
        (ServeConfig(cors_origins=("http://localhost:3000/app",)), "is not an origin: give a scheme and a host"),
    ],
)
def test_what_is_refused_at_the_start(config: ServeConfig, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        check(config)
    assert message in str(raised.value)
