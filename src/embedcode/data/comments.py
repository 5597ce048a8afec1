"""A comment or docstring as written to the sentence that a person would ask by, or why it is none.

The first paragraph counts, without marks, tags and markup: what follows describes parameters. Knows no syntax tree and
no file.
"""

from __future__ import annotations

import re

from embedcode.index import words

LONGEST = 400
"""Characters of a query; longer first paragraphs are cut at a sentence."""
FEWEST_WORDS = 3

SHORT = "too few words"
LICENCE = "licence or authors"
GENERATED = "generated text"
BOILERPLATE = "boilerplate"
FOREIGN = "not English"
CODE = "code in a comment"


def query(comment: str) -> str:
    """The first paragraph on one line; "" where there is nothing but tags."""
    text = _unmarked(comment)
    if "<summary" in text:
        found = _SUMMARY.search(text)
        text = found[1] if found else text
    lines: list[str] = []
    for raw in text.split("\n"):
        line = raw.strip()
        if _RULE.fullmatch(line):
            if lines and _SECTION.fullmatch(lines[-1]):  # a heading with its underline
                lines.pop()
                break
            continue
        if _BRIEF.match(line):
            line = _BRIEF.sub("", line)
        if _TAG.match(line):
            break
        if not line:
            if lines:
                break
            continue
        lines.append(line)
    return _short(_plain(" ".join(lines)))


def unnamed(text: str, name: str) -> str:
    """Without the function's name at the beginning, where Go's convention has it: it would be found by that alone."""
    last = name.rpartition(".")[2]
    first, _, rest = text.partition(" ")
    return rest[:1].upper() + rest[1:] if rest and last and first.rstrip(":,()") == last else text


def reason(text: str, name: str = "") -> str | None:
    """Why a query is not taken; `name` is the function's."""
    said = _WORD.findall(text)
    if len(said) < FEWEST_WORDS:
        return SHORT
    if _LICENCE.search(text):
        return LICENCE
    if _GENERATED.search(text):
        return GENERATED
    if _BOILERPLATE.search(text) or _only_the_name(said, name):
        return BOILERPLATE
    if _is_foreign(text, said):
        return FOREIGN
    if _CODE.search(text) or sum(text.count(mark) for mark in "{};=|\\<>$") * 12 > len(text):
        return CODE
    return None


_QUOTED = re.compile(r"^[a-zA-Z]{0,2}('''|\"\"\"|'|\")(.*?)(?:\1)?$", re.DOTALL)
_MARKS = re.compile(r"^[ \t]*(?:/\*+!?<?|\*+/?|//[/!]*<?|#+!?|--+|=begin\b|=end\b)[ \t]?", re.MULTILINE)


def _unmarked(comment: str) -> str:
    """Without the marks of a comment or the quotes of a string."""
    comment = comment.strip()
    quoted = _QUOTED.match(comment) if comment[:1] not in "/#*-=" else None
    if quoted:
        return quoted[2].replace("\\n", "\n") if quoted[1] in "'\"" else quoted[2]
    return re.sub(r"[ \t]*\**\*/[ \t]*$", "", _MARKS.sub("", comment), flags=re.MULTILINE)


_SUMMARY = re.compile(r"<summary[^>]*>(.*?)(?:</summary>|\Z)", re.DOTALL)
_RULE = re.compile(r"[-=~*_#+/.<>]{2,}|[*#/]")
_BRIEF = re.compile(
    r"^[@\\](?:brief|short|description|desc|summary|details?|internal|function|fn\b.*|method|public|api)\b:?\s*"
)
_TAG = re.compile(
    r"[@\\][a-zA-Z]|:[a-z]+(?: [^:]*)?:|</?(?:remarks|param|returns?|exception|typeparam|example|value|inheritdoc)\b"
    r"|(?:args?|arguments?|params?|parameters?|returns?|raises?|yields?|throws?|examples?|usage|notes?|see also|todo"
    r"|warnings?|attributes?|references?|inputs?|outputs?|options?|keyword args|keyword arguments|returned value|fixme)"
    r"\s*:?$"
    r"|(?:args|arguments|params|parameters|returns?|raises|yields|throws|examples?|usage|notes?|inputs?|outputs?|options"
    r"|note|todo|fixme|xxx|warning|see also|attributes)\s*:|<pre|```|>>>|\.\. \w|\+-|=>|\$ ",
    re.IGNORECASE,
)
_SECTION = re.compile(r"[A-Z][A-Za-z ]{2,25}")

_INLINE = (
    (re.compile(r"\{@(?:link|linkplain|code|literal|see|value)\s+([^{}]*)\}"), r"\1"),
    (re.compile(r"\{@\w+\}"), " "),
    (re.compile(r"<(?:see|paramref|typeparamref)\s+\w+=\"(?:\w:)?([^\"]*)\"\s*/?>"), r"\1"),
    (re.compile(r"</?(?:code|tt|b|i|em|strong|a|c|see|kbd|var)\b[^<>]*>"), ""),
    (re.compile(r"</?(?:p|br|pre|ul|ol|li|para|h\d)\b[^<>]*>"), " "),
    (re.compile(r":[a-z]+(?::[a-z]+)?:`~?([^`<]*?)(?:\s*<[^>]*>)?`"), r"\1"),
    (re.compile(r"!?\[([^\[\]]+)\]\([^()\s]*\)"), r"\1"),
    (re.compile(r"[@\\](?:p|c|a|ref|e|em|b|link|endlink)\s+"), ""),
    (re.compile(r"`+|\*\*"), ""),
    (re.compile(r"&lt;"), "<"),
    (re.compile(r"&gt;"), ">"),
    (re.compile(r"&amp;"), "&"),
    (re.compile(r"\s+"), " "),
)


def _plain(text: str) -> str:
    for pattern, by in _INLINE:
        text = pattern.sub(by, text)
    return text.strip(" -*/#\t")


_END = re.compile(r"[.!?](?=\s+[A-Z(\"'])")


def _short(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    ends = [found.end() for found in _END.finditer(text[:LONGEST])]
    return text[: ends[-1]] if ends else text[:LONGEST].rpartition(" ")[0]


_WORD = re.compile(r"[^\W\d_]{2,}")
_LICENCE = re.compile(
    r"copyright|©|\(c\) ?\d{4}|licen[cs]ed? under|all rights reserved|without warranty|SPDX-|\bauthors?\s*:|@author"
    r"|redistribut|permission is hereby",
    re.IGNORECASE,
)
_GENERATED = re.compile(
    r"auto(?:matically|-)?\s?generated|generated by|do not (?:edit|modify)|machine.generated", re.IGNORECASE
)
_BOILERPLATE = re.compile(
    r"^(?:todo|fixme|xxx|hack|\(?non-javadoc|inherit(?:ed|s)? (?:doc|from)|overrid(?:es?|den)\b.{0,40}$"
    r"|see (?:also |the )?[\w.#:]+(?: for .{0,30})?\.?$"
    r"|(?:default |copy |move |private |public |empty |protected )?(?:constructor|destructor|ctor)\b.{0,25}$"
    r"|(?:simple |a |the )?(?:getter|setter|accessor|mutator)s?\b.{0,30}$"
    r"|(?:this is )?(?:an? )?(?:internal|private|helper|deprecated)\b.{0,25}$"
    r"|not implemented|no.?op\b|stub\b|dummy\b|placeholder|missing doc|undocumented|description of|insert (?:doc|desc)"
    r"|eslint|tslint|jshint|istanbul|pylint|noqa|nolint|noinspection|clang-format|prettier|webpack|rubocop|phpcs|@ts-"
    r"|type: ignore|-{3,}|={3,}|given .* when|test(?:s|ing)?\b|https?://\S+$|(?:end)?region\b|since v?\d"
    r"|\W*(?:public|private|protected|internal|helpers?|static|getters?|setters?|utils?|api|methods?|functions?)"
    r"(?: \w+){0,2}\W*$"
    r"|changed in|added in|new in version|(?:created|modified|written) by|fallthrough|falls? through|unused"
    r"|(?:used|called) by \w+$|implements? [\w.:<>]+\.?$)"
    r"|lorem ipsum|for internal use only|do not use\b|this (?:method|function) (?:was|is) deprecated",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"^(?:if|for|while|return|var|let|const|import|from|print|echo|def|int|void|char|public|private|self|this)\b[\s(.].*[;:{)=]$"
    r"|;\s*$|^[\w.$>-]+\s*\(.*\)\s*\{?$|^[\w.\[\]$]+\s*[+-]?=\s*\S"
)
_ENGLISH = words("""
    the a an of to is are in for and or if with this that be by from as on it not all which when at given returns
    return into can has will should whether its than only no one set get use used using new value
""")
_OTHERS = words("""
    der die das und ist ein eine für wird nicht mit den dem des zur zum auf werden le la les une est pour dans que qui
    et avec sur par el los las una con del se como il di che per della dei gli nel uma não os dos das com ao het een van
    voor niet met wordt och att som på det og til på är jest nie się dla oraz lub
""")


def _is_foreign(text: str, said: list[str]) -> bool:
    letters = sum(character.isalpha() for character in text)
    if sum(character.isalpha() and not character.isascii() for character in text) * 20 > letters:
        return True
    lower = [word.lower() for word in said]
    english, others = sum(word in _ENGLISH for word in lower), sum(word in _OTHERS for word in lower)
    return others > english or (others >= 2 and others * 4 > len(lower))


_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def _only_the_name(said: list[str], name: str) -> bool:
    """Whether a comment says no more than the name: "Get user name" above getUserName."""
    named = {_stem(part) for part in _CAMEL.findall(name)}
    return bool(named) and {_stem(part) for word in said for part in _CAMEL.findall(word)} - _EMPTY <= named


_EMPTY = frozenset(["the", "a", "an", "of", "to", "for", "this", "return", "method", "function", "that"])


def _stem(word: str) -> str:
    word = word.lower()
    return word[:-1] if len(word) > 3 and word.endswith("s") else word
