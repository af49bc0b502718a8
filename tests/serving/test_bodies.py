import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serving.small_server import MOST_BYTES, SmallServer, head, post, small_server


@pytest.fixture(scope="module")
def server() -> Iterator[SmallServer]:
    with small_server() as running:
        yield running


def parsed(answer: bytes) -> tuple[int, Any]:
    """The status and the JSON of an answer, or the message of its error."""
    start, _, body = answer.partition(b"\r\n\r\n")
    found = json.loads(body)
    return int(start.split()[1]), found["error"]["message"] if "error" in found else found


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json ; charset=utf8",
        "application/json; boundary=x",
    ],
)
def test_json(server: SmallServer, content_type: str) -> None:
    body = {"text": "\u00e9\u4e2d\U0001f600", "list": [1, 2.5, None, True, {}], "": ""}
    for written in (json.dumps(body), json.dumps(body, ensure_ascii=False)):
        assert parsed(server.exchange(post(written.encode(), content_type=content_type))) == (200, body)


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain;application/json",
        "application/jsonp",
        "application/json, text/plain",
        "application/json; charset=utf-16",
        "application/json+x",
    ],
)
def test_what_a_form_can_send_is_not_read(server: SmallServer, content_type: str) -> None:
    status, message = parsed(server.exchange(post(b'{"a": 1}', content_type=content_type)))
    assert status == 415 and "Content-Type: application/json" in message


def test_a_content_type_must_be_there_once(server: SmallServer) -> None:
    length = "2"
    assert parsed(server.exchange(head("POST", "/echo", Content_Length=length, Connection="close") + b"{}"))[0] == 415
    two = post(b"{}").replace(b"\r\n\r\n", b"\r\nContent-Type: application/json\r\n\r\n")
    assert parsed(server.exchange(two))[0] == 415


def test_a_compressed_body(server: SmallServer) -> None:
    status, message = parsed(server.exchange(post(b"{}", Content_Encoding="gzip")))
    assert status == 415 and "must not be compressed" in message


@pytest.mark.parametrize(
    ("body", "message"),
    {
        b"": "not JSON: invalid at line 1, column 1",
        b"{": "not JSON: invalid at line 1, column 2",
        b'{"a": 1': "not JSON: invalid at line 1",
        b'{"a": 1}\n{"a": 1}': "not JSON: invalid at line 2, column 1",
        b"{'a': 1}": "not JSON",
        b"a=1&b=2": "not JSON",
        b'{"a": NaN}': "not JSON: NaN is not a number of JSON",
        b'{"a": [-Infinity]}': "not JSON: -Infinity is not a number of JSON",
        b'{"a": 01}': "not JSON",
        b'{"a": ' + b"1" * 5000 + b"}": "not JSON: a number of too many digits",
        b'{"a": {"b": 1, "b": 1}}': "not JSON: the name 'b' occurs twice in an object",
        b'{"a": "\xff"}': "not UTF-8 at byte 8",
        b'{"a": "\xed\xa0\x80"}': "not UTF-8 at byte 8",
        '{"a": "x"}'.encode("utf-16"): "not UTF-8 at byte 1",
        b"[" * 50_000: "not JSON: nested too deeply",
        b'{"a":' * 20_000: "not JSON: nested too deeply",
        b"[]": "must be a JSON object",
        b'"text"': "must be a JSON object",
        b"null": "must be a JSON object",
    }.items(),
)
def test_what_is_not_an_object_in_json(server: SmallServer, body: bytes, message: str) -> None:
    status, found = parsed(server.exchange(post(body)))
    assert status == 400 and message in found and len(found) < 200


def test_every_depth_is_read_or_refused(server: SmallServer) -> None:
    bodies = [b'{"\\u0041":' * depth + b"1" + b"}" * depth for depth in range(50, 1050, 50)]
    statuses = [int(server.exchange(post(body)).split()[1]) for body in bodies]
    assert set(statuses) == {200, 400} and statuses == sorted(statuses)


def test_an_escaped_pair_is_one_character(server: SmallServer) -> None:
    assert parsed(server.exchange(post(rb'{"a": "\ud83d\ude00"}'))) == (200, {"a": "\U0001f600"})


def test_the_largest_body(server: SmallServer) -> None:
    body = b'{"a": "' + b"x" * (MOST_BYTES - 9) + b'"}'
    assert parsed(server.exchange(post(body)))[0] == 200
    status, message = parsed(server.exchange(post(body + b" ")))
    assert status == 413 and "more than 100,000 bytes" in message


def chunked(*pieces: bytes) -> bytes:
    start = head("POST", "/echo", Content_Type="application/json", Transfer_Encoding="chunked", Connection="close")
    return start + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def test_a_body_in_chunks(server: SmallServer) -> None:
    assert parsed(server.exchange(chunked(b'{"a"', b": ", b"1}"))) == (200, {"a": 1})
    assert parsed(server.exchange(chunked(b'{"a": "', *[b"x" * 1000] * 101, b'"}')))[0] == 413
    assert parsed(server.exchange(chunked(*[b"x" * 10_000] * 1000)))[0] == 413
    server.check_idle()


def test_both_a_length_and_chunks(server: SmallServer) -> None:
    for length in ("2", "8", "1000"):
        both = chunked(b'{"a": 1}').replace(b"Transfer", f"Content-Length: {length}\r\nTransfer".encode())
        status, message = parsed(server.exchange(both))
        assert status == 400 and "not both" in message
    server.check_idle()
