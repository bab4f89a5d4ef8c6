"""The few commands of Redis that KubeRay's clean-up of a cluster's keys needs."""

from __future__ import annotations

import socket
from typing import BinaryIO


def keys(address: str, password: str | None) -> list[bytes]:
    """All keys."""
    return _asked(address, password, [["KEYS", "*"]])[0]


def write(address: str, password: str | None, key: str) -> None:
    """Create a key."""
    _asked(address, password, [["SET", key, "x"]])


def delete_keys(address: str, password: str | None, *, containing: str) -> None:
    """Delete the keys whose name has a text in it."""
    found = [key for key in keys(address, password) if containing.encode() in key]
    if found:
        _asked(address, password, [["DEL", *(key.decode() for key in found)]])


def _asked(address: str, password: str | None, commands: list[list[str]]) -> list:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        answers = connection.makefile("rb")
        if password is not None:
            _send(connection, ["AUTH", password])
            _answer(answers)
        results = []
        for command in commands:
            _send(connection, command)
            results.append(_answer(answers))
        return results


def _send(connection: socket.socket, words: list[str]) -> None:
    parts = [f"*{len(words)}"] + [part for word in words for part in (f"${len(word.encode())}", word)]
    connection.sendall("\r\n".join([*parts, ""]).encode())


def _answer(answers: BinaryIO) -> list | bytes | int:
    line = answers.readline().rstrip()
    kind, rest = line[:1], line[1:]
    if kind == b"*":
        return [_answer(answers) for _ in range(int(rest))]
    if kind == b"$":
        content = answers.read(int(rest) + 2)
        return content[:-2]
    assert kind != b"-", line
    return int(rest) if kind == b":" else rest
