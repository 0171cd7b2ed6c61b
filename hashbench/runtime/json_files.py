"""JSON that comes from outside, in records, lists and annotations: the one place where it is parsed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

MAX_BYTES = 64 << 20
"""Size of a file, where the reader states no other."""
MAX_DIGITS = 20  # of a whole number, about 64 bits
_MAX_DEPTH = 40  # of lists and objects within each other

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
        max_bytes: Size that the file may have.

    Raises:
        OSError: The file cannot be read.
        ValueError: See `parse_json`; or the file is larger.
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
        object_hook: Applied to each object, from the innermost; its result takes the object's place.

    Raises:
        ValueError: It is not that; the message is one line.
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
    if "\\u" in text:  # an escape may stand for half a character, which cannot be written
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
