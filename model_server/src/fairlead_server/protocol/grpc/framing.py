"""gRPC's framing inside a stream: a flag, four bytes of length, the message."""

from __future__ import annotations

from typing import Final

from fairlead_server.errors import InvalidRequest, RequestTooLarge

PREFIX_BYTES: Final = 5


class Inbox:
    """Puts messages together from the DATA frames of one stream."""

    __slots__ = ("_limit", "_received", "held")

    def __init__(self, limit: int) -> None:
        """Refuse messages of more than ``limit`` bytes."""
        self._limit = limit
        self._received: bytes | bytearray = b""
        self.held = 0
        """Bytes that were claimed for what is here."""

    def __len__(self) -> int:
        """Return how much of messages that are not whole has arrived."""
        return len(self._received)

    def push(self, payload: bytes) -> None:
        """Append the payload of a frame.

        Raises:
            InvalidRequest: It is no message.
            RequestTooLarge: It says that it is longer than allowed.
        """
        if not self._received:
            self._received = payload
        elif isinstance(self._received, bytearray):
            self._received += payload
        else:
            self._received = bytearray(self._received + payload)
        self._length()

    def pop(self) -> tuple[bytes, bool] | None:
        """Return the next whole message and whether it is compressed; None if there is none yet.

        Raises:
            InvalidRequest: What follows is no message.
            RequestTooLarge: What follows is longer than allowed.
        """
        length = self._length()
        end = PREFIX_BYTES + (length or 0)
        if length is None or len(self._received) < end:
            return None
        received = self._received
        self._received = received[end:]
        return bytes(received[PREFIX_BYTES:end]), received[0] == 1

    def only(self) -> tuple[bytes, bool]:
        """Return the only message of a stream that has ended.

        Raises:
            InvalidRequest: It has none, or more.
            RequestTooLarge: As for :meth:`pop`.
        """
        message = self.pop()
        if message is None or self._received:
            raise InvalidRequest("the stream is no gRPC message")
        return message

    def _length(self) -> int | None:
        received = self._received
        if received and received[0] > 1:
            raise InvalidRequest("the stream is no gRPC message")
        if len(received) < PREFIX_BYTES:
            return None
        length = int.from_bytes(received[1:PREFIX_BYTES], "big")
        if length > self._limit:
            raise RequestTooLarge(f"the message is too large; send at most {self._limit} bytes")
        return length


def framed(message: bytes, *, compressed: bool) -> bytes:
    """Return a message as it travels."""
    return (b"\1" if compressed else b"\0") + len(message).to_bytes(4, "big") + message
