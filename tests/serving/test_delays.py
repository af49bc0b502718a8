"""Answers are sent at once."""

import socket

from gpt2cli.config import ServeConfig
from gpt2cli.serving.http_server import bind


def test_packets_do_not_wait_for_the_acknowledgement_of_earlier_ones() -> None:
    with bind(ServeConfig(port=0)) as listener, socket.create_connection(listener.getsockname(), timeout=30):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
