"""Safe parsing of JSON from other people, in records, lists and annotations."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

MAX_BYTES = 64 << 20
"""Default limit on the size of a file."""
MAX_DIGITS = 20  # of a whole number, about 64 bits
_MAX_DEPTH = 40  # of nested lists and objects

_TOO_DEEP = f"expected at most {_MAX_DEPTH} levels of lists and objects, got more"


def read_json(
    path: Path,
    object_hook: Callable[[dict[str, Any]], Any] | None = None,
    max_bytes: int = MAX_BYTES,
) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        object_hook: See `parse_json`.
        max_bytes: Limit on the size of the file.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is larger, or not valid JSON as described in `parse_json`.
    """
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"expected at most {max_bytes:,} bytes, got more")
    return parse_json(content, object_hook)


def parse_json(content: str | bytes, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Parse JSON of finite numbers and valid Unicode, of bounded depth.

    Args:
        content: The JSON; bytes are UTF-8.
        object_hook: Function that receives each object, the innermost first, and returns its replacement.

    Raises:
        ValueError: The content is invalid; the message is one line.
    """
    text = content if isinstance(content, str) else content.decode("utf-8-sig")
    try:
        value = json.loads(text, object_hook=object_hook, parse_constant=_refuse, parse_int=_whole_number)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    level = [value]
    for _ in range(_MAX_DEPTH + 1):
        if math.inf in level or -math.inf in level:  # from digits, such as 1e999
            _refuse("a number too large")
        level = [*chain.from_iterable(map(_parts, level))]
        if not level:
            break
    else:
        raise ValueError(_TOO_DEEP)
    if "\\u" in text:  # an escape may be half a surrogate pair, which cannot be written
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _parts(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _whole_number(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"expected a number of at most {MAX_DIGITS} digits, got {len(text):,}")
    return int(text)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"expected finite numbers, got {constant}")
