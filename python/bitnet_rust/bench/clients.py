"""Many clients of a server in one thread: what ``bitnet bench serve`` runs beside the server that it measures.

Run by path in a process of its own and with the standard library alone, so that little of the processor's time goes into it. The plan
is a JSON object on standard input, the outcome one on standard output:

host, port, path, headers: where requests go and what they say of themselves.
bodies: the requests, JSON objects, in the order in which clients take them, over and over.
clients: how many are at work at once, each with a connection of its own.
seconds: how long they begin new requests, one each at least; those that run then come to their end. 0: each body once.
abandon: of how many requests one is left alone after its first piece, its connection closed; 0: none.

A client does nothing but note when bytes came, and put them in a file. They are understood when all clients are done: what that takes
is no part of a server's load, and would be taken from a server on the same machine.
"""

import json
import math
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

PATIENCE = 120.0  # seconds without a byte for anybody before everything is given up
_READ_BYTES = 1 << 16  # at once; for more, the memory would come from the system and go back to it each time
Reply = dict[str, Any]


class BrokenReply(Exception):
    """A reply is not what a server should say; the message is what is wrong with it."""


@dataclass(frozen=True)
class Heard:
    """A reply that is not understood yet.

    number: of its request.
    began: when the request was sent, in seconds of time.perf_counter.
    abandoned: whether it was hung up on before its end.
    arrivals: when bytes came, with how many events.
    size: bytes that it has.
    """

    number: int
    began: float
    abandoned: bool
    arrivals: list[tuple[float, int]]
    size: int


class Client:
    """A connection, and the request that is on it.

    socket: the open connection, or None.
    number: of the request.
    abandoned: whether it is to be hung up on before its answer ends.
    gone: whether no more will come: it was hung up, on either side.
    data: what has come of the reply.
    arrivals: when bytes came, in seconds of time.perf_counter, with how many events.
    began: when the request was sent.
    """

    def __init__(self, plan: dict[str, Any]) -> None:
        self._address = plan["host"], plan["port"]
        lines = [
            f"POST {plan['path']} HTTP/1.1",
            f"Host: {plan['host']}:{plan['port']}",
            "Content-Type: application/json",
        ]
        lines += [f"{name}: {value}" for name, value in plan["headers"].items()]
        self._head = "\r\n".join(lines)
        self.socket: socket.socket | None = None

    def connect(self) -> socket.socket:
        """Opens a connection, which answers are read from."""
        self.socket = socket.create_connection(self._address, PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.socket

    def send(self, number: int, body: bytes, abandoned: bool) -> None:
        """Sends the request of that number over it; an abandoned one is hung up on before its answer ends."""
        assert self.socket is not None
        self.number, self.abandoned, self.gone = number, abandoned, False
        self.data = bytearray()
        self.arrivals: list[tuple[float, int]] = []
        self._head_end, self._chunked, self._expected = -1, False, -1
        self.began = time.perf_counter()
        self.socket.settimeout(PATIENCE)
        self.socket.sendall(f"{self._head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        self.socket.setblocking(False)

    def receive(self) -> bool:
        """Takes what has come; True when the reply is complete, or, with gone, there will be no more."""
        assert self.socket is not None
        try:
            piece = self.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            piece = b""
        self.data += piece
        self.arrivals.append((time.perf_counter(), piece.count(b"data: ")))
        self.gone = not piece or (self.abandoned and b"data: " in piece)
        if self._head_end < 0 and (at := self.data.find(b"\r\n\r\n")) >= 0:
            self._head_end = at + 4
            headers = headers_of(self.data[:at])
            self._chunked = headers.get("transfer-encoding") == "chunked"
            self._expected = self._head_end + int(headers["content-length"]) if "content-length" in headers else -1
        if self._chunked:
            return self.gone or self.data.endswith(b"\r\n0\r\n\r\n")  # JSON has no line ends of its own
        return self.gone or 0 <= self._expected <= len(self.data)

    def heard(self) -> Heard:
        """What came."""
        return Heard(self.number, self.began, self.abandoned, self.arrivals, len(self.data))


def headers_of(head: bytes | bytearray) -> dict[str, str]:
    """The header fields of a reply, their names in small letters."""
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def body_of(data: bytes) -> tuple[int, bytes]:
    """Status and body of a complete reply."""
    head, _, rest = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 "):
        raise BrokenReply("the connection was closed without a reply" if not data else "not a reply of HTTP/1.1")
    status = int(head[9:12])
    if headers_of(head).get("transfer-encoding") != "chunked":
        return status, rest
    body = bytearray()
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if not size:
            raise BrokenReply("the connection was closed before the end")
        length = int(size, 16)
        if length == 0:
            return status, bytes(body)
        body += rest[:length]
        rest = rest[length + 2 :]


def events(body: bytes) -> Iterator[dict[str, Any]]:
    """The objects of a stream of events, which has to end as OpenAI's do."""
    done = False
    for event in body.decode().split("\n\n"):
        data = "".join(line[5:].removeprefix(" ") for line in event.split("\n") if line.startswith("data:"))
        if done and event.strip():
            raise BrokenReply(f"an event after the last: {event[:200]}")
        if data == "[DONE]":
            done = True
        elif data:
            yield json.loads(data)
    if not done:
        raise BrokenReply("the stream ended without [DONE]")


def understand(heard: Heard, data: bytes, ends: float) -> Reply:
    """What came of a request: text, tokens, "early" ones until the time ends, and times; or "problem"."""
    reply: Reply = {
        "request": heard.number,
        "tokens": 0,
        "early": 0,
    }
    if heard.abandoned:
        return reply | {"abandoned": True}
    try:
        status, body = body_of(data)
        reply["status"] = status
        if status != 200:
            raise BrokenReply(f"status {status}: {body[:300].decode(errors='replace')}")
        texts: list[str] = []
        ids: set[str] = set()
        finish = usage = None
        for event in events(body):
            if "error" in event:
                raise BrokenReply(f"the stream ended with an error: {json.dumps(event['error'])[:300]}")
            ids.add(event["id"])
            usage = event.get("usage") or usage
            for choice in event["choices"]:
                texts.append((choice["delta"].get("content") or "") if "delta" in choice else choice["text"])
                finish = choice["finish_reason"] or finish
        if finish is None:
            raise BrokenReply("the stream ended without a finish_reason")
        if len(ids) != 1:
            raise BrokenReply(f"events of several requests in one stream: {', '.join(sorted(ids))}")
        reply |= {"text": "".join(texts), "finish": finish, "id": ids.pop()}
    except (BrokenReply, ValueError, KeyError, TypeError) as problem:
        return reply | {
            "problem": str(problem)
            if isinstance(problem, BrokenReply)
            else f"not an answer of OpenAI's kind: {problem!r}"
        }
    times = [(at, count) for at, count in heard.arrivals if count] or [
        (heard.arrivals[-1][0], 1)
    ]  # of a word that came in two
    seen = sum(count for _, count in times)
    # One event is one token but for the few that end a stream, or whose token is a part of a character.
    reply["tokens"] = int(usage["completion_tokens"]) if usage else seen
    reply["early"] = reply["tokens"] * sum(count for at, count in times if at <= ends) / seen
    reply["first"] = times[0][0] - heard.began
    reply["gaps"] = [b - a for (a, _), (b, _) in pairwise(times)]
    return reply


class Crowd:
    """The clients of a plan."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._bodies = [json.dumps(body).encode() for body in plan["bodies"]]
        self._begun = 0
        self._replies: list[Reply] = []
        self._heard: list[Heard] = []
        self._data = tempfile.TemporaryFile()  # noqa: SIM115  the bytes of what was heard; it goes with the process
        self._selector = selectors.DefaultSelector()

    def run(self) -> dict[str, Any]:
        """The replies; the seconds in which requests were begun, and until the last had ended; what that took of the processor."""
        start, used = time.perf_counter(), time.process_time()
        self._ends = start + self._plan["seconds"] if self._plan["seconds"] else math.inf
        for _ in range(self._plan["clients"]):
            self._begin(Client(self._plan))
        while self._selector.get_map():
            ready = self._selector.select(PATIENCE)
            for key, _ in ready:
                client: Client = key.data
                if client.receive():
                    self._heard.append(client.heard())
                    self._data.write(client.data)
                    if client.gone:
                        self._leave(client)
                    self._begin(client)
            if not ready:
                for key in list(self._selector.get_map().values()):
                    self._fail(key.data, f"no byte for {PATIENCE:.0f} seconds")
        whole, used = time.perf_counter() - start, time.process_time() - used
        self._data.seek(0)
        self._replies += [understand(heard, self._data.read(heard.size), self._ends) for heard in self._heard]
        return {
            "replies": self._replies,
            "seconds": self._plan["seconds"] or whole,
            "drained_seconds": whole,
            "cpu_seconds": used,
        }

    def _begin(self, client: Client) -> None:
        """The next request, for as long as there is one."""
        every = self._plan["abandon"]
        while self._left():
            number, self._begun = self._begun % len(self._bodies), self._begun + 1
            try:
                if client.socket is None:
                    self._selector.register(client.connect(), selectors.EVENT_READ, client)
                client.send(number, self._bodies[number], every > 0 and self._begun % every == 0)
            except OSError as error:
                client.number = number
                self._fail(client, f"cannot send: {error}")
                time.sleep(0.01)  # a server that is down is not asked as fast as can be
            else:
                return
        self._leave(client)

    def _left(self) -> bool:
        """Whether there is a request to begin."""
        if not self._plan["seconds"]:
            return self._begun < len(self._bodies)
        return self._begun < self._plan["clients"] or time.perf_counter() < self._ends

    def _fail(self, client: Client, problem: str) -> None:
        self._replies.append({"request": client.number, "problem": problem, "tokens": 0, "early": 0})
        self._leave(client)

    def _leave(self, client: Client) -> None:
        """Closes the connection."""
        if client.socket is not None:
            self._selector.unregister(client.socket)
            client.socket.close()
            client.socket = None


if __name__ == "__main__":
    json.dump(Crowd(json.load(sys.stdin)).run(), sys.stdout)
