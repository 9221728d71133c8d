"""Files as streams of bytes or lines, decompressed, with a check that nothing is missing at the end."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from zstandard import ZstdDecompressor

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from zstandard import ZstdDecompressionObj

BUFFER_BYTES = 1 << 18
FRAME_BYTES = 1 << 12
"""Compressed bytes that are taken at a time: of the most repetitive text they become 128 MB."""
LARGEST_WINDOW = 1 << 31
"""What ``zstd --long=31`` needs."""
MOST_EXPANSION = 200
"""How many times its own size a compressed file may hold: text has 3 to 10, the logs of a machine 50."""
SMALL_BYTES = 1 << 24
"""What any compressed file may hold."""
BYTE_ORDER_MARK = "\ufeff"


class ZstdFrames(io.RawIOBase):
    """The content of a ``.zst`` file: one frame or several, skippable ones among them.

    Raises:
        EOFError: the file ends before its last frame does, or holds no frame.
        zstandard.ZstdError: it holds something else than frames.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decompressor = ZstdDecompressor(max_window_size=LARGEST_WINDOW)
        self._frame: ZstdDecompressionObj | None = None
        self._ended = 0
        self._rest = b""
        self._content = memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill ``buffer`` as far as there is content; the number of bytes, 0 at the end."""
        while not self._content and self._advance():
            pass
        view = memoryview(buffer)
        count = min(len(view), len(self._content))
        view[:count], self._content = self._content[:count], self._content[count:]
        return count

    def _advance(self) -> bool:
        """Decompress some more; whether there was more."""
        piece, self._rest = self._rest or self._file.read(FRAME_BYTES), b""
        if not piece:
            if self._frame is not None or not self._ended:
                raise EOFError("the file ends before its last zstd frame does: a part of it is missing")
            return False
        self._frame = self._frame or self._decompressor.decompressobj()
        self._content = memoryview(self._frame.decompress(piece))
        if self._frame.eof:
            self._rest, self._frame, self._ended = self._frame.unused_data, None, self._ended + 1
        return True


class Inflated(io.RawIOBase):
    """The content of a compressed file, as long as it is no bomb: a file of a few kilobytes may hold terabytes.

    Args:
        content: the decompressed content.
        file_bytes: size of the compressed file.

    Raises:
        ValueError: the content is more than text can be compressed.
    """

    def __init__(self, content: io.RawIOBase, file_bytes: int) -> None:
        self._content, self._read = content, 0
        self._most = max(SMALL_BYTES, MOST_EXPANSION * file_bytes)

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill ``buffer`` as far as there is content; the number of bytes, 0 at the end."""
        count = self._content.readinto(buffer) or 0
        self._read += count
        if self._read > self._most:
            raise ValueError(
                f"it holds more than {MOST_EXPANSION} times its own size, as no text does: decompress it first if it "
                "is meant so"
            )
        return count


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file; those inside where its name ends in ``.gz`` or ``.zst``.

    Raises:
        OSError: the file cannot be read.
        EOFError, zlib.error, zstandard.ZstdError: it is damaged, or its end is missing. Only who reads to the end
            knows that it is whole.
        ValueError: it grows beyond what text can be compressed.
    """
    with ExitStack() as stack:
        file: BinaryIO = stack.enter_context(path.open("rb"))
        size = path.stat().st_size
        match path.suffix.lower():
            case ".zst":
                file = stack.enter_context(io.BufferedReader(Inflated(ZstdFrames(file), size), BUFFER_BYTES))
            case ".gz":
                if not size:
                    raise EOFError("the file is empty: it holds no gzip member")
                unzipped = cast(io.RawIOBase, stack.enter_context(gzip.GzipFile(fileobj=file)))
                file = stack.enter_context(io.BufferedReader(Inflated(unzipped, size), BUFFER_BYTES))
        yield file


def decompress(path: Path, most: int) -> None:
    """Read the bytes of a file up to ``most`` of them, or to its end where that is nearer.

    Raises:
        as ``open_bytes``.
    """
    with open_bytes(path) as file:
        while most > 0 and (piece := file.read(BUFFER_BYTES)):
            most -= len(piece)


def open_lines(path: Path, encoding: str, newline: str | None, errors: str = "strict") -> Iterator[str]:
    r"""Lines of a file with their ends, without a byte-order mark before the first.

    Args:
        newline: as for ``open``: None translates all line ends to ``\n``, the empty text keeps them.
        errors: as for ``open``: ``replace`` puts U+FFFD in the place of what is not in the encoding.

    Raises:
        UnicodeError: it is not text in that encoding, and ``errors`` is ``strict``.
        as ``open_bytes``.
    """
    with open_bytes(path) as file, io.TextIOWrapper(file, encoding=encoding, errors=errors, newline=newline) as lines:
        yield next(lines, "").removeprefix(BYTE_ORDER_MARK)
        yield from lines
