"""Keys whose values are text stay text: ``checkpoint=821e97645060`` is an id and not a number.

Hydra's grammar and YAML take ``821e97645060``, ``2026_11_27``, ``1.10`` and ``true`` for numbers and truth values. The
schema says which keys are text. Their values are quoted before Hydra reads a command line, and kept as they are written
where a file is read. ``null`` stays null, and so does ``~`` in a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache, lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from antlr4 import CommonTokenStream, InputStream, Token
from hydra.core.override_parser.overrides_visitor import HydraErrorListener
from hydra.errors import HydraException
from hydra.grammar.gen.OverrideLexer import OverrideLexer
from hydra.grammar.gen.OverrideParser import OverrideParser
from omegaconf._utils import get_yaml_loader

from trainlarge.config.group import Plain
from trainlarge.config.method import METHODS
from trainlarge.config.named import Named
from trainlarge.config.recipe import SLOTS
from trainlarge.config.register import hydra_schema
from trainlarge.config.schema import CHOSEN_GROUPS, CONFIGS

ANY_NAME = "NAME"
"""Stands in a key for a name that a user gives, as in ``data.sources.NAME.files``."""
BLOCKS = "sweep.blocks"
"""A list of mappings whose keys are those of the whole configuration."""

MOST_VALUES = 100_000
"""Values of a file: OmegaConf takes seconds to copy more."""
DEEPEST = 50
"""Levels of a file. A configuration has three, and a sweep two more."""
_FUNCTIONS = frozenset({"choice", "shuffle", "sort", "tag", "str"})
"""Functions of Hydra's grammar that hand on what they are given."""
_NOT_TEXT = frozenset({OverrideLexer.INT, OverrideLexer.FLOAT, OverrideLexer.BOOL})
_STRING, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_NOT_TEXT_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "timestamp"))
_MAY_BE_LOST = re.compile(r"\d|true|false|inf|nan", re.IGNORECASE)


@cache
def text_keys() -> frozenset[str]:
    """The keys, in full, whose values are text or lists of text, and the groups, whose values are names of files.

    Where a user names the groups of a mapping, ``ANY_NAME`` stands for the name.
    """
    keys = {key for stage in CONFIGS for key in _text_fields(hydra_schema(stage), "")}
    keys |= {key for kind in CONFIGS.values() for key in _fields_of_mappings(kind, "")}
    for slot, methods in METHODS.items():
        keys |= {f"{slot}.name", *(key for kind in methods.values() for key in _text_fields(kind, f"{slot}."))}
    for name, group in CHOSEN_GROUPS.items():
        keys |= {key for kind in group.by_name().values() for key in _text_fields(kind, f"{name}.")}
    groups = {name for stage in CONFIGS for name, kind in _hints(hydra_schema(stage)) if is_dataclass(kind)}
    return frozenset(keys | groups | {*SLOTS, *CHOSEN_GROUPS, "sweeps"})


@lru_cache(maxsize=4096)
def as_written(argument: str) -> str:
    """A Hydra override in which what the grammar would take for numbers or truth values is quoted where it is text.

    Quotes, lists, sweeps, functions and interpolations stay as they are; so does what is no override or no valid one.
    """
    if not _MAY_BE_LOST.search(argument.partition("=")[2]):
        return argument
    try:
        tree = _parsed(argument)
    except HydraException:
        return argument
    for token in sorted(_lost(tree.value(), tree.key().packageOrGroup().getText()), key=lambda token: -token.start):
        argument = f"{argument[: token.start]}'{token.text}'{argument[token.stop + 1 :]}"
    return argument


def read_yaml(text: str, package: str = "") -> Plain:
    """What OmegaConf reads from a file of a configuration, but with text as it is written there.

    Args:
        text: of the file.
        package: the key under which its content goes; empty for the whole configuration.

    Raises:
        yaml.YAMLError: for what is no YAML, or more of it than a configuration can be.
    """

    class TextLoader(get_yaml_loader()):  # type: ignore[misc]
        def get_single_node(self) -> yaml.Node | None:
            node = super().get_single_node()
            if node is not None:
                _check_size(node)
            return None if node is None else _retagged(node, package, {})

    content: Plain = yaml.load(text, Loader=TextLoader)
    return content


def _check_size(root: yaml.Node) -> None:
    """Refuse what would be too large once every alias is replaced by what it stands for, or would have no end."""
    sizes: dict[int, int] = {}
    # A node is visited to count it, and before that to have what it is made of counted.
    visits: list[tuple[yaml.Node, int, bool]] = [(root, 1, False)]
    within = set[int]()
    while visits:
        node, depth, is_counted = visits.pop()
        parts = _parts(node)
        if is_counted:
            within.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes[id(part)] for part in parts)
            if sizes[id(node)] > MOST_VALUES:
                raise _too_large(node, f"at most {MOST_VALUES:,} values, aliases counted as what they stand for")
        elif id(node) in within:
            raise _too_large(node, "an alias must not stand for what it is in")
        elif depth > DEEPEST:
            raise _too_large(node, f"at most {DEEPEST} levels")
        elif id(node) not in sizes:
            within.add(id(node))
            visits.append((node, depth, True))
            visits += [(part, depth + 1, False) for part in parts]


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _too_large(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _text_fields(schema: type, prefix: str) -> Iterator[str]:
    for name, kind in _hints(schema):
        if is_dataclass(kind):
            yield from _text_fields(kind, f"{prefix}{name}.")  # type: ignore[arg-type]
        elif _is_text(kind):
            yield f"{prefix}{name}"


def _fields_of_mappings(kind: type, prefix: str) -> Iterator[str]:
    """The text keys of the groups that a user names: Hydra's schema does not know them."""
    for name, hint in _hints(kind):
        if get_origin(hint) is Named:
            yield from _text_fields(get_args(hint)[0], f"{prefix}{name}.{ANY_NAME}.")
            continue
        for group in filter(is_dataclass, (hint, *get_args(hint))):
            yield from _fields_of_mappings(group, f"{prefix}{name}.")  # type: ignore[arg-type]


def _hints(schema: type) -> list[tuple[str, object]]:
    types = get_type_hints(schema)
    return [(item.name, types[item.name]) for item in fields(schema)]


def _is_text(kind: object) -> bool:
    if get_origin(kind) in (Union, UnionType, list, tuple):
        return all(part in (NoneType, Ellipsis) or _is_text(part) for part in get_args(kind))
    if get_origin(kind) is Literal:
        return all(isinstance(value, str) for value in get_args(kind))
    return kind is str


@cache
def _parents() -> frozenset[str]:
    """The keys below which there are text keys; the empty one stands for the whole configuration."""
    return frozenset({"", "sweep", BLOCKS, *_mappings(), *(key.rpartition(".")[0] for key in text_keys())})


@cache
def _mappings() -> frozenset[str]:
    """The keys of the mappings whose groups a user names."""
    end = f".{ANY_NAME}"
    return frozenset(key.partition(end)[0] for key in text_keys() if f"{end}." in key)


def _in_schema(path: str) -> str:
    """A key with ``ANY_NAME`` for the name that a user gave."""
    for mapping in _mappings():
        if path.startswith(f"{mapping}."):
            _, dot, rest = path.removeprefix(f"{mapping}.").partition(".")
            return f"{mapping}.{ANY_NAME}{dot}{rest}"
    return path


def _is_text_key(path: str) -> bool:
    return _in_schema(path) in text_keys()


def _child(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _parsed(argument: str) -> Any:
    """The tree of an override. Raises HydraException where it is none."""
    lexer = OverrideLexer(InputStream(argument))
    parser = OverrideParser(CommonTokenStream(lexer))
    for part in (lexer, parser):
        part.removeErrorListeners()
        part.addErrorListener(HydraErrorListener())
    return parser.override()  # type: ignore[no-untyped-call]


def _lost(node: object, path: str) -> Iterator[Token]:
    """The tokens of a value of the key ``path`` that are text and would be read as something else."""
    if isinstance(node, OverrideParser.PrimitiveContext):
        tokens = [child.symbol for child in node.getChildren() if child.symbol.type != OverrideLexer.WS]
        if _is_text_key(path) and len(tokens) == 1 and tokens[0].type in _NOT_TEXT:
            yield tokens[0]
    elif isinstance(node, OverrideParser.DictKeyValuePairContext):
        parent = "" if path == BLOCKS else path
        yield from _lost(node.element(), _child(parent, node.dictKey().getText().strip()))  # type: ignore[no-untyped-call]
    elif isinstance(node, OverrideParser.FunctionContext):
        yield from _lost_in_function(node, path)
    elif hasattr(node, "getChildren"):
        for child in node.getChildren():
            yield from _lost(child, path)


def _lost_in_function(node: Any, path: str) -> Iterator[Token]:
    if node.ID().getText() not in _FUNCTIONS:
        return
    is_option = False
    for child in node.getChildren():
        if isinstance(child, OverrideParser.ElementContext) and not is_option:
            yield from _lost(child, path)
        is_option = isinstance(child, OverrideParser.ArgNameContext) and child.ID().getText() != "list"  # type: ignore[no-untyped-call]


def _retagged(node: yaml.Node, path: str, seen: dict[tuple[int, str], yaml.Node]) -> yaml.Node:
    """A node with text at the keys that are text. A node that several keys share is changed for these keys only."""
    if not _is_text_key(path) and _in_schema(path) not in _parents():
        return node
    if (id(node), path) not in seen:
        seen[id(node), path] = node
        seen[id(node), path] = _changed(node, path, seen)
    return seen[id(node), path]


def _changed(node: yaml.Node, path: str, seen: dict[tuple[int, str], yaml.Node]) -> yaml.Node:
    marks = (node.start_mark, node.end_mark)
    if isinstance(node, yaml.SequenceNode):
        inner = "" if path == BLOCKS else path
        values = [_retagged(item, inner, seen) for item in node.value]
        return yaml.SequenceNode(node.tag, values, *marks, flow_style=node.flow_style)
    if isinstance(node, yaml.MappingNode):
        pairs = [
            (key, _retagged(value, path if key.tag == _MERGE else _child(path, str(key.value)), seen))
            for key, value in node.value
        ]
        return yaml.MappingNode(node.tag, pairs, *marks, flow_style=node.flow_style)
    if _is_text_key(path) and node.tag in _NOT_TEXT_TAGS:
        return yaml.ScalarNode(_STRING, node.value, *marks)
    return node
