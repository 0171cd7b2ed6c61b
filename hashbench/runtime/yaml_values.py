"""Parsing of the YAML that users write, in recipes and after `KEY=`."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import yaml

from hashbench.errors import quoted

MAX_LENGTH = 100_000
"""Limit on the number of characters in a document."""
_MAX_DEPTH = 40  # of nested lists and mappings
_MAX_NODES = 100_000  # an alias counts as the nodes that it refers to
_MAX_DIGITS = {"int": 20, "float": 100}  # 20 digits are about 64 bits

_TOO_DEEP = f"expected at most {_MAX_DEPTH} levels of lists and mappings, got more"


class _Loader(yaml.SafeLoader):
    """Loader of values that JSON can express: dates are texts, and other types are refused."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":value"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.endswith((":null", ":bool", ":int", ":float", ":str", ":seq", ":map"))
    }

    def fetch_flow_collection_start(self, token: Any) -> None:
        """Refuse deep nesting early, because the time of the scanner grows with its square."""
        if self.flow_level >= _MAX_DEPTH:
            raise ValueError(_TOO_DEEP)
        super().fetch_flow_collection_start(token)

    def construct_scalar(self, node: Any) -> Any:
        """Refuse integers that are too long to be written again, and texts that would make a message long."""
        limit = _MAX_DIGITS.get(node.tag.rpartition(":")[2], MAX_LENGTH)
        if len(node.value) > limit:
            raise ValueError(f"expected a number of at most {limit} digits, got {len(node.value):,}")
        return super().construct_scalar(node)

    def construct_yaml_float(self, node: Any) -> float:
        """Refuse infinity and NaN."""
        value = super().construct_yaml_float(node)
        if not math.isfinite(value):
            raise ValueError("expected a finite number, got one that is not")
        return value


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def parse_yaml(text: str) -> Any:
    """Parse a YAML document of finite numbers, texts, lists and mappings.

    Raises:
        ValueError: The text is invalid, too long or nested too deeply, or contains itself. The message is one
            line.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"expected at most {MAX_LENGTH:,} characters, got more")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        _check_size(node)
        return None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{(error.problem or '')[:100]}{where}") from None
    except yaml.YAMLError:
        raise ValueError("it contains a control character or invalid Unicode") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except (LookupError, ArithmeticError):  # from `!!bool x`, or a number with many colons
        raise ValueError("a value does not fit its tag") from None


def _check_size(root: yaml.Node | None) -> None:
    """Raise a ValueError if there are too many nodes, equal keys, or nodes nested too deeply or endlessly."""
    pending, seen = [(root, 0)], 0
    while pending:
        node, depth = pending.pop()
        seen += 1
        if depth > _MAX_DEPTH:
            raise ValueError(_TOO_DEEP)
        if seen > _MAX_NODES:
            raise ValueError(f"expected at most {_MAX_NODES:,} values, got more")
        if isinstance(node, yaml.MappingNode):
            keys = Counter((key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            for (_, key), count in keys.items():
                if count > 1:  # PyYAML would use the last value
                    raise ValueError(f"the key {quoted(key)} is given twice")
            pending += [(part, depth + 1) for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            pending += [(part, depth + 1) for part in node.value]


def as_set(value: Any) -> str:
    """Return a value as one line of YAML, as `--set` and `--where` take it."""
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return " ".join(text.removesuffix("\n").removesuffix("\n...").split())
