"""Packed files made by somebody who knows how their checksum is computed."""

from __future__ import annotations

import hashlib
import random
import struct


def resealed(head: bytes, rest: bytes) -> bytes:
    """A file of this header and these tensors, with the checksum that is right, where the header has room for one."""
    content = struct.pack("<Q", len(head)) + head + rest
    place = content.find(b'"checksum":"') + len(b'"checksum":"')
    if place < len(b'"checksum":"'):
        return content
    blank = content[:place] + b"0" * 64 + content[place + 64 :]
    return content[:place] + hashlib.sha256(blank).hexdigest().encode() + content[place + 64 :]


def crafted(content: bytes, draw: random.Random) -> bytes:
    """Something that somebody made of a file who knows how its checksum is computed."""
    end = 8 + struct.unpack("<Q", content[:8])[0]
    head, rest = bytearray(content[8:end]), bytearray(content[end:])
    match draw.choice(["header", "splice", "length", "size", "tensors"]):
        case "header":
            for _ in range(draw.choice([1, 2, 5])):
                head[draw.randrange(len(head))] = draw.choice(b'0123456789[]{}",:aF-.e \\\xff')
        case "splice":
            place = draw.randrange(len(head))
            head[place:place] = head[draw.randrange(len(head)) :][: draw.randrange(200)]
        case "length":
            rest = draw.choice([rest[: draw.randrange(len(rest))], rest + b"\0" * draw.choice([1, 8, 4096])])
        case "size":
            size = draw.choice([0, 1, len(head) - 1, len(head) + 8, 2**31, 2**40, 2**64 - 1])
            return struct.pack("<Q", size) + bytes(head + rest)
        case "tensors":
            for _ in range(draw.choice([1, 3, 20])):
                rest[draw.randrange(len(rest))] = draw.randrange(256)
    return resealed(bytes(head), bytes(rest))
