"""Random damage to valid input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

# Bytes and pieces that parsers trip over more often than over random ones.
PIECES = (
    *(
        b"\x00",
        b"\xff",
        b"\n",
        b"\r",
        b"\x1b[2J",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"-",
        b"9" * 5000,
        b"1e999",
    ),
    *(
        b"NaN",
        b"null",
        b"[" * 2000,
        b"{" * 2000,
        b'"',
        b"\\u0000",
        b"../",
        b"%s",
        b"=",
        b"&a [*a]",
        b"!!int x",
    ),
)


def mutations(originals: Sequence[bytes], count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield damaged copies of valid files: bits flipped, pieces cut, repeated, exchanged, inserted.

    Args:
        originals: Valid contents; each copy starts from one of them.
        count: Number of copies.
        seed: The same seed gives the same copies, in the same order.
    """
    random = np.random.default_rng(seed)
    for _ in range(count):
        content = bytearray(originals[random.integers(len(originals))])
        for _ in range(1 + random.geometric(0.5)):
            start, end = sorted(random.integers(0, len(content) + 1, 2))
            end = min(end, start + int(random.geometric(0.02)))  # mostly short, at times long
            match random.integers(6):
                case 0 if end > start:  # a flipped bit
                    content[start] ^= 1 << random.integers(8)
                case 1:  # a cut
                    del content[start:end]
                case 2:  # the end is missing
                    del content[start:]
                case 3:  # a repetition
                    content[start:start] = content[start:end] * int(random.integers(1, 4))
                case 4:  # random bytes over what was there
                    content[start:end] = random.bytes(end - start)
                case _:  # something that parsers trip over
                    content[start:end] = PIECES[random.integers(len(PIECES))]
        yield bytes(content)
