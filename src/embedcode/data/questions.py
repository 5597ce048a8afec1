"""Questions: mined pairs asked as people type, made by rule from a docstring or from a name, without a model.

A docstring states ("Returns the open files."), a person asks ("how to return open files in python"), and a model
trained on statements alone loses where people ask. Of a pair one of two is made: its docstring as a question for the
same code, or the words of its function's name as a question for the code with its docstring, as code in a repository
has it. All is decided by the pair and a seed. Knows no file.
"""

from __future__ import annotations

import random
import re

from embedcode.data.comments import FEWEST_WORDS
from embedcode.index import words
from embedcode.types import Pair, digest

TASK = "question"
MOST_WORDS = 12
"""Of what is asked; people type six to eight (CoSQA's mean is 7)."""

_COMMENT = {"ruby": "# {}", "go": "// {}", "rust": "/// {}", "csharp": "/// {}"}
_SPOKEN = {"cpp": "c++", "csharp": "c#", "go": "golang"}
_ACTION = ("how to {q} in {l}", "how to {q} {l}", "how to {q}", "{l} how to {q}", "{l} {q}", "{q} in {l}", "{q} {l}",
           "{q}", "how do i {q} in {l}", "how can i {q}", "{l} code to {q}", "{l} function to {q}")  # fmt: skip
_THING = ("{l} {q}", "{q} in {l}", "{q} {l}", "{q}", "how to get {q} in {l}", "{l} get {q}")
_SENTENCE = re.compile(r"(?<=[a-z)\]])[.:;]\s|[.:;]$|\s[-(\[]|,\s(?:which|where|if|and|or|so|but|using|with)\b")
_ARTICLES = re.compile(r"\b(?:the|a|an|this|that|given|specified|provided|current)\s+", re.IGNORECASE)
_CODE = re.compile(r"[<>{}()\[\]=/\\|*_$@&^~\"`]|::|\w\.\w")
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_NAME = re.compile(r"([A-Za-z_]\w*)\s*(?:<[^<>()]*>)?\s*\(")
_DEFINED = re.compile(r"\b(?:def|function|func|fn)\s+(?:\([^()]*\)\s*)?([A-Za-z_][\w.]*)")
_ASSIGNED = re.compile(r"([A-Za-z_]\w*)\s*[=:]\s*(?:async\s+)?(?:function\b|\()")
_NO_NAME = words("if for while switch return function func fn def catch sizeof decltype async static void")
_VERBS = words(
    "add append apply assert attach bind build calculate call check clean clear clone close collect combine "
    "compare compile compute concatenate configure connect construct convert copy count create decode decrypt "
    "delete deserialize detect determine disable display download draw dump emit enable encode encrypt ensure "
    "escape evaluate execute expand extract fetch fill filter find flatten flush format generate get group handle "
    "hash import increment initialize insert install invoke iterate join launch list load lock log look make map "
    "mark match merge move normalize open parse perform pop prepare print process push put query read receive "
    "record refresh register release reload remove rename render replace reset resize resolve restore retrieve "
    "return reverse rotate round run sample save scale scan schedule search select send serialize set show "
    "shuffle skip sort split start stop store strip subtract swap sync take test throw toggle transform translate "
    "traverse trim truncate unregister update upload validate verify wait walk wrap write"
)


def asked(pair: Pair, seed: int = 0) -> Pair | None:
    """The pair as a question; None where neither its docstring nor a name gives one."""
    rng = random.Random(digest(str(seed), pair.query, pair.positives[0]))
    code, spoken = pair.positives[0], _SPOKEN.get(pair.language, pair.language)
    ways = [(_statement(pair.query), code), (_name(code), documented(code, pair.query, pair.language))]
    if rng.random() < 0.5:
        ways.reverse()
    for said, passage in ways:
        if said is not None:
            what, acts = said
            forms = [form for form in (_ACTION if acts else _THING) if spoken or "{l}" not in form]
            text = rng.choice(forms).format(q=" ".join(what), l=spoken)
            return Pair(text, (passage,), (), TASK, pair.language, pair.source, pair.licence)
    return None


def _statement(text: str) -> tuple[list[str], bool] | None:
    """The words of a docstring's first clause, and whether they say what to do."""
    clause = _SENTENCE.split(text, maxsplit=1)[0]
    said = _ARTICLES.sub("", clause).split()
    if not FEWEST_WORDS <= len(said) <= MOST_WORDS or _CODE.search(clause):
        return None
    first = imperative(said[0])
    acts = first in _VERBS
    if acts:
        said[0] = first
    return [word if word[1:] != word[1:].lower() else word.lower() for word in said], acts


def _name(code: str) -> tuple[list[str], bool] | None:
    """The words of a function's name."""
    for line in code.split("\n")[:6]:
        if line.lstrip().startswith(("@", "#", "//", "[", "template")):
            continue
        if name := _defined(line):
            parts = [part.lower() for part in _PARTS.findall(name)]
            if not 2 <= len(parts) <= 6 or any(len(part) == 1 for part in parts):
                return None
            return parts, parts[0] in _VERBS
    return None


def _defined(line: str) -> str:
    """The name that a line defines a function by; "" where it defines none."""
    if found := _DEFINED.search(line):
        return found[1].rpartition(".")[2]
    opened = line.find("(")
    if (found := _ASSIGNED.search(line)) and found.end(1) < opened:
        return found[1]
    return next((one for one in _NAME.findall(line) if one not in _NO_NAME), "")


def imperative(verb: str) -> str:
    """The verb of a docstring as one asks: Returns as return, Applies as apply; other words in lower case."""
    word = verb.lower()
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def documented(code: str, text: str, language: str) -> str:
    """Code with its docstring, where the language has it."""
    if language == "python":
        lines = code.split("\n")
        for number, line in enumerate(lines):
            if line.rstrip().endswith(":") and not line.lstrip().startswith(("@", "#")):
                below = next((one for one in lines[number + 1 :] if one.strip()), "    ")
                indent = below[: len(below) - len(below.lstrip())]
                lines.insert(number + 1, f'{indent}"""{text}"""')
                return "\n".join(lines)
        return code
    return _COMMENT.get(language, "/** {} */").format(text) + "\n" + code
