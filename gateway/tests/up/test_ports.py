from __future__ import annotations

import socket

import pytest

from synapse_gateway.up.ports import choose, is_free


def test_a_port_that_is_listened_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not is_free(server.getsockname()[1])


def test_chosen_ports_leave_out_what_is_taken_and_what_is_kept_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        first = server.getsockname()[1]
        kept = frozenset({first + 1})
        assert not {first, first + 1} & set(choose(2, first, taken=kept))


def test_chosen_ports_differ() -> None:
    assert len(set(choose(5, 20_000))) == 5


def test_no_ports_are_invented_where_there_are_none() -> None:
    with pytest.raises(LookupError, match="no 2 free ports from 65535 on"):
        choose(2, 65_535)
