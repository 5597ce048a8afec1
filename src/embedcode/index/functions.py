"""The functions of a source with what is said of each, to make training pairs of.

Knows the tree of `grammars.py` and the shapes of its grammars; no chunks and no pairs.
"""

from __future__ import annotations

import textwrap
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import tree_sitter

from embedcode.index import words
from embedcode.index.grammars import Grammar, Part, first_child

_Node = tree_sitter.Node

_BINDERS = words("variable_declarator assignment_expression pair field_definition public_field_definition")
"""JavaScript: what gives a function that is a value its name."""
_BODIES = words("body_statement")
"""Ruby: a comment above the first method of a class stands beside the class's body."""
_ATTRIBUTES = words("attribute_item attribute_list decorator")


class Function(NamedTuple):
    """A function with what is said of it."""

    name: str
    comment: str
    """As written: the comments right above with their marks, or the docstring with its quotes; "" for none."""
    code: str
    """The function with its decorators or attributes, without `comment` and those of the functions inside, unindented:
    else it would hold, word for word, what one of these is asked for by."""
    first: int
    """The row where the code begins, 0-based."""
    last: int
    """Inclusive."""


def functions(root: Part, source: bytes) -> Iterator[Function]:
    """The named functions with a body, those within others too, in the order of the source."""
    grammar = root._grammar
    found, said = list[tuple[str, str, _Node, _Node]](), set[tuple[int, int]]()
    for node in _of_types(root._node, grammar.functions) if grammar.functions else ():
        body = node.child_by_field_name("body")
        if body is None:
            continue
        outer, name = _bound_to(node, grammar)
        if not name:
            continue
        start, comment, parts = outer, "", list[_Node]()
        if grammar.wheel != "tree_sitter_python":
            parts, start = _comment_above(outer, grammar, source)
            comment = "\n".join(_source(part).rstrip() for part in parts)
        elif body.named_child_count > 1 and (comment := _docstring(body)):  # else there is no code
            parts = [node for node in [first_child(body)] if node is not None]
        if parts:
            last = parts[-1].end_byte
            said.add((parts[0].start_byte, last - (source[last - 1 : last] == b"\n")))
        found.append((name, comment, start, outer))
    cuts = sorted(said)
    for name, comment, start, outer in found:
        inside = cuts[bisect_left(cuts, (start.start_byte,)) : bisect_left(cuts, (outer.end_byte,))]
        yield Function(name, comment, _cut(source, start, outer, inside), start.start_point[0], _last_row(outer))


def _of_types(root: _Node, types: frozenset[str]) -> Iterator[_Node]:
    """The nodes of these types, in the order of the source.

    Not by a query of tree-sitter: on 100 KB of opening braces one takes 40 s, and this 0.2.
    """
    cursor = root.walk()
    while True:
        node = cursor.node
        if node is not None and node.type in types:
            yield node
        if cursor.goto_first_child():
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return


def _bound_to(node: _Node, grammar: Grammar) -> tuple[_Node, str]:
    """The outermost node that is this function and nothing else, and the function's name."""
    namer = grammar.definitions.get(node.type)
    name = namer(node) if namer else ""
    while (parent := node.parent) is not None:
        if parent.type in _BINDERS:
            if name:
                break
            name = grammar.definitions[parent.type](parent) if parent.type in grammar.definitions else ""
        elif parent.type not in grammar.wrappers:
            break
        node = parent
    return node, name


def _docstring(body: _Node) -> str:
    """Python: the string that a block begins with."""
    first = first_child(body)
    inner = first_child(first) if first is not None and first.type == "expression_statement" else first
    return _source(inner) if inner is not None and inner.type == "string" else ""


def _comment_above(node: _Node, grammar: Grammar, source: bytes) -> tuple[list[_Node], _Node]:
    """The comment that ends on the row above a function, in its parts, and the node that its code begins with.

    A block comment is taken alone, comments to the end of the line as many as follow each other.
    """
    start, comments = node, list[_Node]()
    row = node.start_point[0]
    before = node.prev_sibling or (node.parent.prev_sibling if node.parent and node.parent.type in _BODIES else None)
    while before is not None and before.type in grammar.leads | _ATTRIBUTES:
        (first, column), last = before.start_point, _last_row(before)
        if last < row - 1 or source[before.start_byte - column : before.start_byte].strip():
            break  # a blank line between, or it stands behind something else
        if "comment" not in before.type:
            if comments:
                break
            start = before
        else:
            text = _source(before).rstrip()
            if comments and text.startswith("/*"):
                break
            comments.append(before)
            if text.startswith(("/*", "=begin")):
                break
        row, before = first, before.prev_sibling
    return comments[::-1], start


def _last_row(node: _Node) -> int:
    (first, _), (last, column) = node.start_point, node.end_point
    return last - 1 if column == 0 and last > first else last


def _cut(source: bytes, start: _Node, end: _Node, without: Sequence[tuple[int, int]]) -> str:
    """The rows from one node to another, unindented, less those of parts of the source."""
    begin = start.start_byte - start.start_point[1]
    if source[begin : start.start_byte].strip():
        begin = start.start_byte
    kept = list[bytes]()
    for first, last in without:
        if first < begin:
            continue
        behind = source.find(b"\n", last, end.end_byte) + 1 or end.end_byte
        before = source[begin:first]
        if rest := source[last:behind].strip(b"; \t\r\n"):  # a statement on the same row
            behind = source.index(rest, last)
        if not (rest and before.rpartition(b"\n")[2].isspace()):  # its indentation, without which none is taken off
            before = before.rstrip(b" \t")
        kept.append(before)
        begin = behind
    raw = b"".join([*kept, source[begin : end.end_byte]])
    # dedent takes a blank line that ends in a carriage return for one without indentation.
    text = raw.decode("utf-8", "replace").replace("\r\n", "\n")
    return textwrap.dedent(text).strip("\n").rstrip()


def _source(node: _Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")
