"""Source text to a tree of parts, through tree-sitter: the only file that knows it, with `functions.py`.

Says which nodes of each grammar are definitions and what they are called. Knows no chunks and no sizes.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import tree_sitter

from embedcode.index import words

_Node = tree_sitter.Node

# tree-sitter reports its progress about 5 times per KiB of ordinary source and 35 times per KiB of text that fits no
# rule, where it takes 5 s per MiB. A budget of reports, not of seconds, gives the same chunks on every machine.
_REPORTS_PER_KIB = 20
_REPORTS_FREE = 1_000

_SMALL = 1 << 15
"""Bytes up to which a source is parsed without a budget, which is faster; at worst it costs 0.2 s."""
_READ = 4096
"""Bytes given to the parser at a time. `Node.text` asks again: given the rest of the file, a name cost 75 us."""

_MAX_NAME = 120


_FUNCTIONS = words("arrow_function function function_expression generator_function class class_expression")
_COMPONENT_CALLS = words("memo forwardRef observer lazy useCallback defineComponent createSlice")
_JS_TESTS = words("describe it test context suite specify")
_RUBY_TESTS = _JS_TESTS | words("namespace task feature scenario shared_examples shared_context")
_CPP_TESTS = words("TEST TEST_F TEST_P TYPED_TEST TYPED_TEST_P BENCHMARK_F")

Namer = Callable[[_Node], str]


@dataclass(slots=True)  # not frozen: they are made by the ten thousand
class Part:
    """A node of the tree by its rows (0-based, inclusive). `name` is "" unless it is a definition."""

    first: int
    last: int
    name: str
    lead: bool
    """A comment, decorator or attribute: it belongs to what follows."""
    open: bool
    """A wrapper such as a namespace or `#ifdef`, whose parts stand where it stands."""
    _node: _Node
    _grammar: Grammar

    def parts(self) -> list[Part]:
        """The parts directly inside, in order."""
        return list(self._grammar.parts(self._node))

    @property
    def function(self) -> bool:
        return self._node.type in self._grammar.functions

    def members(self) -> list[Part]:
        """The definitions that a mere container holds, such as a module or a namespace; [] for all else."""
        body = self._node.child_by_field_name("body") if self._node.type in self._grammar.containers else None
        return list(self._grammar.named(body)) if body is not None else []


class Leaf(NamedTuple):
    """A token of the source; rows are 0-based, columns are bytes in their row, and the end is exclusive."""

    start: tuple[int, int]
    end: tuple[int, int]
    kind: str
    """The grammar's own word for it."""
    within: str
    """The same of the node around it."""
    named: bool
    """False for what the grammar spells out: keywords and punctuation."""
    defines: bool
    """It is the name in a definition."""


@dataclass(frozen=True)
class Grammar:
    """One parser with what its node types mean."""

    wheel: str
    definitions: dict[str, Namer]
    wrappers: frozenset[str] = frozenset()
    """Nodes that stand for the definition right inside them: `export`, decorated definitions, templates."""
    open: frozenset[str] = frozenset()
    containers: frozenset[str] = frozenset()
    """Definitions that only hold others, and give these their scope."""
    leads: frozenset[str] = frozenset({"comment"})
    entry: str = "language"
    functions: frozenset[str] = frozenset()
    """Nodes that are functions, where `functions.py` is to find them."""

    def parse(self, source: bytes) -> Part | None:
        """The root of the tree, or None when the text costs the parser too much."""
        parser = tree_sitter.Parser(_load(self.wheel, self.entry))
        if len(source) <= _SMALL:
            return self._part(parser.parse(source).root_node)
        left = _REPORTS_FREE + _REPORTS_PER_KIB * (len(source) >> 10)

        def stop(_offset: int, _error: bool) -> bool:
            nonlocal left
            left -= 1
            return left < 0

        try:
            tree = parser.parse(lambda offset, _point: source[offset : offset + _READ], progress_callback=stop)
        except ValueError:
            return None
        return self._part(tree.root_node)

    def parts(self, node: _Node) -> Iterator[Part]:
        for child in node.named_children:
            yield self._part(child)

    def named(self, node: _Node) -> Iterator[Part]:
        """The definitions directly inside, those in wrappers that are open too."""
        for part in self.parts(node):
            if part.name:
                yield part
            elif part.open:
                yield from self.named(part._node)

    def _part(self, node: _Node) -> Part:
        (first, _), (last, column) = node.start_point, node.end_point
        if column == 0 and last > first:  # some nodes end behind their line break
            last -= 1
        inner, name = self._define(node)
        wraps = not name and (inner.type in self.open or inner.type == "ERROR")
        return Part(first, last, name, inner.type in self.leads, wraps, inner, self)

    def _define(self, node: _Node) -> tuple[_Node, str]:
        """The definition that a node is or wraps, with its name; the node itself and "" otherwise."""
        namer = self.definitions.get(node.type)
        if namer is not None:
            return node, namer(node)
        if node.type in self.wrappers:
            for child in node.named_children:
                if child.type in self.definitions or child.type in self.wrappers:
                    inner, name = self._define(child)
                    if name:
                        return inner, name
        return node, ""


@cache
def _load(wheel: str, entry: str) -> tree_sitter.Language:
    """A grammar, its wheel imported when it is first needed."""
    return tree_sitter.Language(getattr(importlib.import_module(wheel), entry)())


def parse(grammar: str, source: bytes) -> Part | None:
    """The tree of a source in one of GRAMMARS; None when it is too costly to parse. Never raises on bad syntax."""
    return GRAMMARS[grammar].parse(source)


def leaves(root: Part, first: int, last: int) -> Iterator[Leaf]:
    """The tokens on rows first..last, in order; a comment is one."""
    cursor, around = root._node.walk(), [""]
    definitions = root._grammar.definitions
    while True:
        node = cursor.node
        if node is None:
            return
        kind = node.type
        if node.end_point[0] >= first and node.start_point[0] <= last:
            if "comment" not in kind and cursor.goto_first_child():
                around.append(kind)
                continue
            naming = cursor.field_name == "name" and around[-1] in definitions
            naming |= cursor.field_name == "declarator" and around[-1] == "function_declarator"
            yield Leaf(node.start_point, node.end_point, kind, around[-1], node.is_named, naming)
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return
            around.pop()


# ---- names -------------------------------------------------------------------------------------------------------


_ARGUMENTS = re.compile(r"<(?:->|[^<>])*+>")
"""Innermost type arguments; the arrow is of a function's type, as in `Box<dyn Fn(i32) -> i32>`."""


def _text(node: _Node | None) -> str:
    """A name as written, on one line, without type arguments, its scopes joined by dots."""
    if node is None or node.text is None:
        return ""
    name = node.text[: 4 * _MAX_NAME].decode("utf-8", "replace")
    while "operator" not in name and (cut := _ARGUMENTS.sub("", name)) != name:
        name = cut
    return " ".join(name.replace("::", ".").split())[:_MAX_NAME]


def first_child(node: _Node) -> _Node | None:
    """Its first named child; `named_child(0)` raises where there is none."""
    return node.named_children[0] if node.named_child_count else None


def _field(name: str) -> Namer:
    return lambda node: _text(node.child_by_field_name(name))


_name = _field("name")


def _fixed(name: str) -> Namer:
    return lambda node: name


def _with_body(node: _Node) -> str:
    """A struct, enum or class only where it is defined, not where its type is used."""
    return _name(node) if node.child_by_field_name("body") is not None else ""


def _declarator(node: _Node) -> str:
    """C and C++: the identifier at the end of a chain of declarators, as in `int *(*f(int a))(char)`."""
    inner = node.child_by_field_name("declarator")
    parameters: _Node | None = None
    while inner is not None:
        if inner.type == "function_declarator":
            parameters = inner.child_by_field_name("parameters")
        deeper = inner.child_by_field_name("declarator")
        if deeper is None and inner.type in ("parenthesized_declarator", "reference_declarator"):
            deeper = first_child(inner)
        if deeper is None:
            break
        inner = deeper
    if inner is None:
        return ""
    if inner.type == "operator_cast":
        return "operator " + _text(inner.child_by_field_name("type"))
    name = _text(inner)
    if name in _CPP_TESTS and parameters is not None:
        return ".".join(_text(child) for child in parameters.named_children)
    return name


def _receiver(node: _Node) -> str:
    """Go: `Server.Start` for `func (s *Server[T]) Start()`."""
    receiver, name = node.child_by_field_name("receiver"), _name(node)
    declared = first_child(receiver) if receiver is not None else None
    kind = _text(declared.child_by_field_name("type")) if declared is not None else ""
    kind = re.sub(r"\[.*", "", kind.lstrip("*( "))
    return f"{kind}.{name}" if kind else name


def _impl(node: _Node) -> str:
    return _text(node.child_by_field_name("type"))


def _value_is_function(node: _Node, value_field: str) -> bool:
    """JavaScript: a value that is a function, a class, an object over several lines, or `memo(() => ...)`."""
    value = node.child_by_field_name(value_field)
    if value is None:
        return False
    if value.type in _FUNCTIONS:
        return True
    if value.type == "object":
        return value.end_point[0] > value.start_point[0]
    if value.type == "call_expression":
        return _text(value.child_by_field_name("function")).rpartition(".")[2] in _COMPONENT_CALLS
    return False


def _bound(name_field: str, value_field: str) -> Namer:
    """JavaScript: the name of `const f = () => ...`, `exports.f = function ...` and `f: () => ...`."""

    def name(node: _Node) -> str:
        if not _value_is_function(node, value_field):
            return ""
        written = _text(node.child_by_field_name(name_field)).strip("\"'")
        return re.sub(r"^(?:module\.exports|exports)\.(?=.)", "", written).replace(".prototype.", ".")

    return name


def _first_string(arguments: _Node | None) -> str:
    first = first_child(arguments) if arguments is not None else None
    if first is None or first.type not in ("string", "template_string", "simple_symbol", "constant", "identifier"):
        return ""
    return _text(first).strip("\"'`:")


def _js_call(node: _Node) -> str:
    """`describe("title", () => ...)` is named by its title."""
    called = _text(node.child_by_field_name("function")).partition(".")[0]
    return _first_string(node.child_by_field_name("arguments")) if called in _JS_TESTS else ""


def _ruby_call(node: _Node) -> str:
    """`it "title" do ... end` by its title; `private def f` by its method."""
    arguments = node.child_by_field_name("arguments")
    if node.child_by_field_name("block") is not None:
        return _first_string(arguments) if _text(node.child_by_field_name("method")) in _RUBY_TESTS else ""
    first = first_child(arguments) if arguments is not None else None
    if first is not None and first.type in ("method", "singleton_method"):
        return _name(first)
    return ""


def _sql(node: _Node) -> str:
    for child in node.named_children:
        if child.type == "object_reference":
            return _text(child)
    return _text(node.child_by_field_name("column"))


def _named(types: str, namer: Namer = _name) -> dict[str, Namer]:
    return dict.fromkeys(types.split(), namer)


# ---- grammars ----------------------------------------------------------------------------------------------------

_JAVASCRIPT = {
    **_named("function_declaration generator_function_declaration class_declaration method_definition"),
    **_named("variable_declarator", _bound("name", "value")),
    **_named("assignment_expression", _bound("left", "right")),
    **_named("pair", _bound("key", "value")),
    **_named("field_definition", _bound("property", "value")),
    **_named("call_expression", _js_call),
}
_JAVASCRIPT_FUNCTIONS = words(
    "function_declaration generator_function_declaration method_definition function_expression arrow_function"
)
_JAVASCRIPT_WRAPPERS = words(
    "export_statement lexical_declaration variable_declaration expression_statement ambient_declaration"
)
_TYPESCRIPT = {
    **_JAVASCRIPT,
    **_named("abstract_class_declaration interface_declaration type_alias_declaration enum_declaration"),
    **_named("internal_module module function_signature method_signature abstract_method_signature"),
    **_named("public_field_definition", _bound("name", "value")),
}
_TYPESCRIPT_CONTAINERS = words("internal_module module")
_C = {
    **_named("function_definition", _declarator),
    **_named("struct_specifier union_specifier enum_specifier class_specifier", _with_body),
    **_named("type_definition", _declarator),
    **_named("preproc_function_def"),
}
_C_WRAPPERS = words("declaration field_declaration")
_C_OPEN = words(
    "preproc_ifdef preproc_if preproc_else preproc_elif preproc_elifdef linkage_specification"
    " namespace_definition declaration_list"
)
_JVM_COMMENTS = frozenset({"comment", "line_comment", "block_comment", "multiline_comment"})

GRAMMARS: dict[str, Grammar] = {
    "python": Grammar(
        "tree_sitter_python",
        {**_named("function_definition class_definition"), **_named("type_alias_statement", _field("left"))},
        wrappers=frozenset({"decorated_definition"}),
        leads=frozenset({"comment", "decorator"}),
        functions=words("function_definition"),
    ),
    "javascript": Grammar(
        "tree_sitter_javascript",
        _JAVASCRIPT,
        wrappers=_JAVASCRIPT_WRAPPERS,
        leads=frozenset({"comment", "decorator", "hash_bang_line"}),
        functions=_JAVASCRIPT_FUNCTIONS,
    ),
    "typescript": Grammar(
        "tree_sitter_typescript",
        _TYPESCRIPT,
        wrappers=_JAVASCRIPT_WRAPPERS,
        containers=_TYPESCRIPT_CONTAINERS,
        leads=frozenset({"comment", "decorator"}),
        entry="language_typescript",
        functions=_JAVASCRIPT_FUNCTIONS,
    ),
    "tsx": Grammar(
        "tree_sitter_typescript",
        _TYPESCRIPT,
        wrappers=_JAVASCRIPT_WRAPPERS,
        containers=_TYPESCRIPT_CONTAINERS,
        leads=frozenset({"comment", "decorator"}),
        entry="language_tsx",
        functions=_JAVASCRIPT_FUNCTIONS,
    ),
    "java": Grammar(
        "tree_sitter_java",
        _named(
            "class_declaration interface_declaration enum_declaration record_declaration annotation_type_declaration"
            " method_declaration constructor_declaration compact_constructor_declaration"
            " annotation_type_element_declaration"
        ),
        leads=_JVM_COMMENTS,
        functions=words("method_declaration constructor_declaration"),
    ),
    "go": Grammar(
        "tree_sitter_go",
        {**_named("function_declaration type_spec type_alias"), **_named("method_declaration", _receiver)},
        open=frozenset({"type_declaration"}),
        functions=words("function_declaration method_declaration"),
    ),
    "rust": Grammar(
        "tree_sitter_rust",
        {
            **_named(
                "function_item function_signature_item struct_item enum_item union_item trait_item mod_item type_item"
                " macro_definition"
            ),
            **_named("impl_item", _impl),
        },
        open=frozenset({"foreign_mod_item"}),
        containers=frozenset({"mod_item"}),
        leads=frozenset({"line_comment", "block_comment", "attribute_item"}),
        functions=words("function_item"),
    ),
    "c": Grammar(
        "tree_sitter_c",
        _C,
        wrappers=_C_WRAPPERS,
        open=_C_OPEN,
        functions=words("function_definition"),
    ),
    "cpp": Grammar(
        "tree_sitter_cpp",
        {**_C, **_named("alias_declaration concept_definition")},
        wrappers=_C_WRAPPERS | {"template_declaration"},
        open=_C_OPEN,
        functions=words("function_definition"),
    ),
    "csharp": Grammar(
        "tree_sitter_c_sharp",
        {
            **_named(
                "class_declaration interface_declaration struct_declaration enum_declaration record_declaration"
                " delegate_declaration method_declaration constructor_declaration property_declaration"
                " event_declaration local_function_statement"
            ),
            **_named("destructor_declaration", lambda node: "~" + _name(node)),
            **_named("operator_declaration", lambda node: "operator " + _field("operator")(node)),
            **_named("indexer_declaration", _fixed("this[]")),
        },
        open=frozenset(
            {"namespace_declaration", "file_scoped_namespace_declaration", "declaration_list", "preproc_if"}
        ),
        functions=words("method_declaration constructor_declaration local_function_statement"),
    ),
    "ruby": Grammar(
        "tree_sitter_ruby",
        {**_named("method singleton_method class module"), **_named("call", _ruby_call)},
        open=frozenset({"singleton_class", "body_statement"}),
        containers=frozenset({"module"}),
        functions=words("method singleton_method"),
    ),
    "php": Grammar(
        "tree_sitter_php",
        _named(
            "class_declaration interface_declaration trait_declaration enum_declaration function_definition"
            " method_declaration"
        ),
        entry="language_php",
        functions=words("function_definition method_declaration"),
    ),
    "kotlin": Grammar(
        "tree_sitter_kotlin",
        {
            **_named("class_declaration object_declaration function_declaration"),
            **_named("companion_object", lambda node: _name(node) or "Companion"),
            **_named("secondary_constructor", _fixed("constructor")),
            **_named("type_alias", _field("type")),
        },
        leads=_JVM_COMMENTS,
    ),
    "scala": Grammar(
        "tree_sitter_scala",
        _named(
            "class_definition object_definition trait_definition enum_definition function_definition"
            " function_declaration type_definition given_definition"
        ),
        open=frozenset({"extension_definition", "package_clause"}),
        leads=_JVM_COMMENTS,
        functions=words("function_definition"),
    ),
    "swift": Grammar(
        "tree_sitter_swift",
        {
            **_named(
                "class_declaration protocol_declaration function_declaration protocol_function_declaration"
                " typealias_declaration macro_declaration"
            ),
            **_named("init_declaration", _fixed("init")),
            **_named("deinit_declaration", _fixed("deinit")),
            **_named("subscript_declaration", _fixed("subscript")),
        },
        leads=_JVM_COMMENTS,
    ),
    "bash": Grammar("tree_sitter_bash", _named("function_definition")),
    "sql": Grammar(
        "tree_sitter_sql",
        _named(
            "create_table create_view create_materialized_view create_function create_procedure create_trigger"
            " create_index create_type create_schema create_sequence create_database",
            _sql,
        ),
        wrappers=frozenset({"statement"}),
        leads=frozenset({"comment", "marginalia"}),
    ),
}
"""By the key that `Language.grammar` holds."""
