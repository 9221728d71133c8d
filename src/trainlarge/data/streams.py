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


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file; those inside where its name ends in ``.gz`` or ``.zst``.

    Raises:
        OSError: the file cannot be read.
        EOFError, zlib.error, zstandard.ZstdError: it is damaged, or its end is missing. Only who reads to the end
            knows that it is whole.
    """
    with ExitStack() as stack:
        file: BinaryIO = stack.enter_context(path.open("rb"))
        match path.suffix.lower():
            case ".zst":
                file = stack.enter_context(io.BufferedReader(ZstdFrames(file), BUFFER_BYTES))
            case ".gz":
                if not path.stat().st_size:
                    raise EOFError("the file is empty: it holds no gzip member")
                unzipped = cast(io.RawIOBase, stack.enter_context(gzip.GzipFile(fileobj=file)))
                file = stack.enter_context(io.BufferedReader(unzipped, BUFFER_BYTES))
        yield file


def open_lines(path: Path, encoding: str, newline: str | None) -> Iterator[str]:
    r"""Lines of a file with their ends, without a byte-order mark before the first.

    Args:
        newline: as for ``open``: None translates all line ends to ``\n``, the empty text keeps them.

    Raises:
        UnicodeError: it is not text in that encoding.
        as ``open_bytes``.
    """
    with open_bytes(path) as file, io.TextIOWrapper(file, encoding=encoding, newline=newline) as lines:
        yield next(lines, "").removeprefix(BYTE_ORDER_MARK)
        yield from lines
