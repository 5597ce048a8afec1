"""Which licence a licence file grants, by its words. Only those of ALLOWED are recognised; all else is None.

A file may hold several texts (two licences, or those of parts); each must be one of these, and beside them may stand
names and remarks on where something is from. So an added condition, such as "for good, not evil", "companies need to
buy it" or "our logo is to be shown", makes a file unknown, however it is worded. Knows no archive: it is given names
and texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from difflib import SequenceMatcher
from functools import cache

from embedcode.model.spec import DEFAULT

ALLOWED = ("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "Unlicense", "Zlib")
"""SPDX identifiers. All allow any use, with attribution at most."""
_LOWER = frozenset(map(str.lower, ALLOWED))

MOST_OTHER_WORDS = 60
"""Beside the licence itself: a title, the holders, a note on where a part is from."""
MOST_OTHERWISE = 24
"""Words put into Apache's text, or left out of it, by those who number its clauses or name themselves in it."""
MOST_OTHER_NAMES = 400
"""The same where none of them can be a condition: some list every contributor."""
_CONDITION = re.compile(
    r"\b(?:must|shall|may|not|permission|permitted|restrict\w*|provided|conditions?|terms|grant\w*|prohibit\w*|agree\w*"
    r"|requires?|except|unless)\b"
)
_RESTRICTION = re.compile(
    r"\b(?:(?:may|must|shall|can|will|should|do|does) (?:not|never|neither)|cannot|not (?:permitted|allowed|for)|only"
    r"|except(?! (?:as|when|where) otherwise)|prohibit\w*|forbid\w*|restrict\w*|must|shall|ha(?:ve|s) to|needs? to"
    r"|mandatory|required|oblig\w+|excluded|reserves|(?:is|are|be) reserved|consent|pay|pays|paid|payment|buy"
    r"|purchase\w*|royalt\w+|revenue|training|use (?:is|in|by|for)|free for"
    r"|(?:personal|private|internal|academic) use)\b"
)
"""Words of what one may not or has to do: no remark beside a licence is too short for them."""
_REMARK = frozenset(
    """
    above adapted added addition additional additions affiliates after agreeing algorithm algorithms all also
    alterations an and any applies are as at attribution author authors automatically available based be been below
    benchmarking both builds bundle bundled bundles but by can cleanup code collection complete conditions contact
    contained contains contributed contributing contribution contributions contributor contributors copied copies
    copy copying copyright copyrighted corresponding covered created current data de den der derivative derived des
    design details developed developer developers developing di different directly directories directory distributed
    documentation done downloaded downloading du dual each earlier either email english even extended extension
    extensions external extracted file files first following for fork forked forks form found from full function
    functions gave generated had has have he here holder holders homepage ie implementation implemented in include
    included includes including incorporated individual information inlined inspired instead into is it its itself
    known la laid later le libraries library licence licences license licensed licenses licensing like linked list
    listed located made maintained manual many members method methods modification modifications modified module
    modules most my name names new noted notes notice notices number obtained of on optimised or original originally
    originates other others otherwise our out over owned owner package packages page parser part parts party patches
    permission piece please port ported portions ports present previously printing product program project projects
    provided public published pull rather record records refactoring refer registered released remain repo
    repositories repository reproduced requests respective rights same sample second section see separate several
    similar since software some source sources specific standard subdirectory subject such summary support taken
    team terms test tests text texts thanks that the their then there these they third this those to tool trademark
    two under unit unless upstream url used uses using van version versions via vocabulary von was we website well
    were wheel when where which while who with within word work works written you your
    """.split()  # noqa: SIM905
)
"""What remarks on where something is from, and on who made it, are written in. A word that is not one of these, and
that stands in small letters, may belong to a condition."""
_MOST_STRANGE_WORDS = 2
"""Names are written in small letters too: "pycparser, a parser", "angus croll"."""
_OTHER_LICENCE = re.compile(r"\b(?:under|terms of|subject to|see) ((?:\w+ ){1,5}?)(?:licen[cs]es?|agreement)\b")
_PARTS = re.compile(
    r"\s*(?:\w+\s+){0,20}?(?:includes|contains) a number of subcomponents with separate copyright notices"
)
"""What projects at Apache write behind their licence, before a list of parts."""
_FOREIGN = re.compile(
    r"\b(?:general public|lgpl|agpl|gpl|mozilla public|eclipse public|creative commons|cc by|commons clause|commercial"
    r"|business source|server side public|elastic license|proprietary|all rights reserved to|confidential|evil"
    r"|noncommercial|non commercial|gnu|cddl|cecill|shareware|evaluation|research only|educational|psf|perl itself"
    r"|eula|terms of (?:service|use))\b"
)
"""Words that no short remark beside an open licence has by chance."""

_NAMES = re.compile(
    r"(?!.*\.(?:py|js|ts|go|rb|rs|php|java|cs|[ch]|cpp|json|ya?ml|xml)$)"
    r"(?:mit-|bsd-|apache-)?(?:un)?licen[cs]es?(?:[-._ ](?!.*(?:3rd|third|depend|vendor|notice))[\w.+ -]*)?"
    r"|copying(?:[-._]\w+)*",
    re.IGNORECASE,
)
_FOLDERS = ("licenses", "licences")
_OTHER_NAMES = re.compile(r"$|authors|notice|credits|contributors|readme|.*third|.*3rd", re.IGNORECASE)
_DEPTH = 3
_HEADER_LINES = 40
_GPL = r"(?-i:\b[AL]?GPL\b)"
"""In capitals: `gpl` is a name of many things."""
_HEADER = re.compile(
    r"(?:general|mozilla|eclipse|server\s+side|microsoft|common|union)\s+public\s+licen"
    r"|(?:business\s+source|elastic|polyform\W+\w+|boost\s+software|open\s+software|artistic)\s+licen"
    r"|creative\s?commons|\bCC[ -]BY\b|commons\s+clause|common\s+development\s+and\s+distribution|\bCeCILL\b"
    r"|\bMPL[ -/]?v?[12](?:\.[01])?\b|mozilla\.org/MPL|\bEPL[ -]v?[12]\.0\b|\bMs-[PR]L\b|\bEUPL\b|\bOSL[ -]v?[123]\b"
    r"|\b(?:GNU|under|under\s+the|terms\s+of\s+the)\s+[AL]?GPL|(?<!\bor )(?<!/)\b[AL]?GPL[ -]?v?[23]\b"
    rf"|(?<!\bor )(?<!/){_GPL}(?![ -]compatible| or (?:the )?(?:MIT|BSD|Apache))"
    # A field, as `__license__ = "gpl"` or `@license LGPL`.
    r"|licen[cs]es?(?:_|[^\w/|]){1,8}(?:[AL]?GPL|MPL|EPL|AFL|OSL|BSL|CDDL|CPL|SSPL|PSF|CC0|CC-|WTFPL|artistic)\b"
    r"|gnu\.org/(?:licen[cs]es|copyleft)|opensource\.org/licen[cs]es?/(?:[al]?gpl|mpl|epl|cpl|osl|afl|cddl|artistic)"
    r"|(?<!commercial or )(?<!commercial and )(?<!commercial/)\bnon-?\s?commercial\b(?! (?:or|and) commercial)"
    r"|\bnot (?:be used )?for (?:any )?commercial|\b(?:research|academic|educational)(?: use| purposes?)? only\b"
    r"|proprietary|all\s+rights\s+reserved\.?\s+(?:no\s+part|unauthori)",
    re.IGNORECASE,
)
_CHOICE = re.compile(
    r"\bdual\w*[ -]licen[cs]ed\b[^.]{0,40}\b(?:MIT|BSD|Apache)\b(?:[^.]|\.(?!\s|$)){0,200}", re.IGNORECASE
)
"""As of jQuery's plugins: "Dual licensed under the MIT and GPL licenses", with the addresses of both."""
_CHOSEN_NOT = re.compile(r"(?-i:\b[AL]?GPL(?:[ -]?v?[23][.\d]*)?\b)|\S*gnu\.org/\S*", re.IGNORECASE)
_SPDX = re.compile(r"SPDX-License-Identifier:([^\n]*)", re.IGNORECASE)


def may_be(path: str) -> bool:
    """Whether a file may be a licence, by its name and folder."""
    *folders, name = path.split("/")
    if len(folders) > _DEPTH:
        return False
    if _NAMES.fullmatch(name):
        return True
    return bool(folders) and folders[-1].lower() in _FOLDERS and _OTHER_NAMES.match(name) is None


def is_own(path: str, top: str) -> bool:
    """Whether a path is the licence of the source itself, not of a part: at the top, in `top/`, the folder that holds
    all of an archive, in a `licenses` folder there, in what is laid beside a
    release of Spring's, or where a wheel or a jar keeps its metadata."""
    if not may_be(path):
        return False
    *folders, _ = path.split("/")
    if folders and folders[0] == top:
        folders = folders[1:]
    if folders and is_metadata(folders[0]):
        folders = folders[1:]
    return not folders or (len(folders) == 1 and folders[0].lower() in _FOLDERS) or folders == ["src", "dist"]


def of_part(path: str) -> bool:
    """Whether the licence of a source may be that of a part: one of the texts in a `licenses` folder, beside which a
    licence file of the source itself may stand. In a wheel's metadata such a folder holds the wheel's own."""
    folders = path.split("/")[:-1]
    return bool(folders) and folders[-1].lower() in _FOLDERS and not any(map(_is_wheels, folders))


def of_folder(path: str) -> bool:
    """Whether a file is the licence of all in its folder, by its name, however deep it lies."""
    return _NAMES.fullmatch(path.rpartition("/")[2]) is not None and not of_part(path)


def is_metadata(folder: str) -> bool:
    """Whether a wheel or a jar keeps its metadata in a folder of this name."""
    return _is_wheels(folder) or folder == "META-INF"


def _is_wheels(folder: str) -> bool:
    return folder.endswith((".dist-info", ".egg-info"))


def of(files: Mapping[str, str]) -> str | None:
    """The SPDX expression of a source by its licence files {path: text}; None where there is none, or one is unknown.

    Two licences are written `A AND B`, since the names of files do not say
    whether one may choose. A `licenses` folder counts only where no licence file stands outside it: else it has the
    texts for parts, whose files say so in their headers.
    """
    own = {path: text for path, text in files.items() if not of_part(path)} or files
    found: set[str] = set()
    for text in own.values():
        licences = identify(text)
        if licences is not None:
            found |= set(licences.split(" AND "))
        elif not points(text):
            return None
    return " AND ".join(sorted(found)) or None


def identify(text: str) -> str | None:
    """The licences whose texts make up `text`, as `A AND B`; None where something else is in it.

    Behind the Apache licence may stand, as that licence's users do, which parts are under which other licence, as long
    as it is short and none of the words is foreign.
    """
    words = _words(text)
    found: set[str] = set()
    for name, pattern in _patterns():
        for match in pattern.finditer(words):
            if "whole" in match.groupdict():
                if not _is_apache(match["whole"].split()):
                    return None
            elif any(map(_binds, filter(None, match.groups()))):
                return None
            found.add(name)
        words = pattern.sub(" ", words)
    if not found:
        return None
    words = _TITLES.sub(" ", _REMARKS.sub(" ", words))
    others = len(words.split())
    lists_parts = "Apache-2.0" in found and _PARTS.match(words) is not None
    if others > MOST_OTHER_NAMES or not _harmless(words, text, lists_parts):
        return None
    if others > MOST_OTHER_WORDS and _CONDITION.search(words) and not lists_parts:
        return None
    return " AND ".join(sorted(found))


def _is_apache(words: list[str]) -> bool:
    """Whether a text under Apache's headings is that licence, with nothing of weight put in or left out."""
    whole = _apache()
    if words == whole:
        return True
    put_in, left_out = list[str](), 0
    for step, first, end, begin, until in SequenceMatcher(None, whole, words, autojunk=False).get_opcodes():
        if step != "equal":
            put_in += words[begin:until]
            left_out += 0 if end == len(whole) else end - first  # the appendix may be missing
    return max(len(put_in), left_out) <= MOST_OTHERWISE and not _binds(" ".join(put_in))


def _binds(words: str) -> bool:
    """Whether words between those of a licence, or beside it, may be a condition."""
    return _FOREIGN.search(words) is not None or _RESTRICTION.search(words) is not None


@cache
def _apache() -> list[str]:
    # The packaged model's own licence.
    return _words((DEFAULT / "LICENSE").read_text("utf-8")).split()


def _harmless(words: str, text: str, lists_parts: bool = False) -> bool:
    """Whether `words`, what is left of `text` without its licences, names things and says where they are from."""
    notices = _COPYRIGHT.findall(_lines(text))  # a condition may stand behind a holder
    beside = f"{words} {_TITLES.sub(' ', _plain(' '.join(notices)))}"
    if _binds(beside):
        return False
    if any(len(_strange(_plain(line), line)) > _MOST_STRANGE_WORDS for line in notices):
        return False
    if lists_parts:
        return True
    if any(set(named.split()) - _REMARK for named in _OTHER_LICENCE.findall(beside)):
        return False
    others = _COPYRIGHT.sub(" ", _lines(text))
    small = "\n".join(line.lower() if line.isupper() else line for line in others.split("\n"))
    return len(_strange(words, small)) + len(_UNREAD.findall(others)) <= _MOST_STRANGE_WORDS


def _strange(words: str, text: str) -> set[str]:
    """Those of `words` that are no remark's and that `text` has in small letters outside addresses and paths."""
    return {word for word in _SMALL.findall(text) if len(word) > 1}.intersection(words.split()) - _REMARK


def known(text: str) -> bool:
    """Whether a licence file leaves its source allowed: by what it grants, or because it points to others."""
    return identify(text) is not None or points(text)


def points(text: str) -> bool:
    """Whether a file grants nothing itself: "under either of the licenses found in LICENSE.APACHE or LICENSE.MIT"."""
    words = _words(text)
    short = len(words.split()) <= MOST_OTHER_WORDS
    return "found in" in words and short and _harmless(words, text)


def foreign_header(text: str) -> bool:
    """Whether a source file says at its top that it is under another licence than those of ALLOWED."""
    head = "\n".join(text[:6000].split("\n", _HEADER_LINES)[:_HEADER_LINES])
    # A name may go on behind the comment's mark on the next line: "Mozilla Public\n * License".
    said = re.sub(r"\s*\n[\s*#/;%!'-]*", " ", _SPDX.sub("", head))
    said = _CHOICE.sub(lambda choice: _CHOSEN_NOT.sub(" ", choice[0]), said)
    return _HEADER.search(said) is not None or not all(map(_may_be_chosen, _SPDX.findall(head)))


def _may_be_chosen(expression: str) -> bool:
    """Whether a header's SPDX expression can be met by licences of ALLOWED. What is behind it on its line, such as the
    end of a comment, does not count."""
    return _met(re.sub(r"(?<=\w)[,/] *(?=\w)", " and ", expression.lower()), _is_allowed, "mit")


def _met(expression: str, known: Callable[[str], bool], one: str) -> bool:
    """Whether all parts joined by AND are known, of those joined by OR of one; `one` is a name that is."""
    while "(" in expression:
        before = expression
        expression = re.sub(
            r"\(([^()]*)\)", lambda inner: f" {one if _met(inner[1], known, one) else 'none'} ", expression
        )
        if expression == before:
            break
    choices = re.split(r"\sor(?:\s|$)", expression, flags=re.IGNORECASE)
    return any(all(map(known, re.split(r"\sand(?:\s|$)", choice, flags=re.IGNORECASE))) for choice in choices)


def _is_allowed(part: str) -> bool:
    name, *more = [word.strip("-.") for word in re.findall(r"[\w.+-]+", part)] or [""]
    return name in _LOWER and (more[:1] != ["with"] or more[1:2] == ["llvm-exception"])


def allowed(expression: str, known: Collection[str] = ALLOWED) -> bool:
    """Whether an SPDX expression can be met by the licences of a list: all of those joined by AND, of OR one."""
    return _met(expression, lambda part: part.strip() in known, next(iter(known)))


_COPYRIGHT = re.compile(
    r"^[^\w\n(]*(?:Portions\s+)?(?:Copyright(?:\s*\([cC]\)|\s*©|\s+\d{4}|\s+[A-Z]|:)|\([cC]\)\s(?!You must)|©).*$",
    re.MULTILINE,
)
"""Not the word within a licence, where a line happens to begin with it, nor clause (c) of Apache's."""
_TITLES = re.compile(
    r"\b(?:the )?(?:simplified |modified |new |revised |zero clause )?"
    r"(?:mit|isc|bsd|zlib|apache|expat|unlicense|(?:2|3) clause|0bsd)\b"
    r"|\b(?:all rights reserved|spdx licen[cs]e identifier)\b"
)
_SMALL = re.compile(r"(?<![\w./@:-])[a-z]+(?![\w/@:-]|\.\w)")
_UNREAD = re.compile(r"[^\W\d_\x00-\u024f]{2,}")
"""Words in other letters than Latin ones, which no pattern here reads."""


def _words(text: str) -> str:
    # Holders are named by the hundred in some files.
    return _plain(_COPYRIGHT.sub(" ", _lines(text)))


def _lines(text: str) -> str:
    return text.replace("\r", "\n")


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower().replace("’", "'").replace("'", "")))


_REMARKS = re.compile(
    # How a file is made; which licence one may choose; X.org's; fmt's and LLVM's exception, which allows more; what
    # protoc writes; Kuhn's wcwidth; PyTorch's on Caffe2.
    r"\bdo not edit\b"
    r"|\byou may use this software under (?:either|any osi approved open source)\b"
    r"|\bagreed upon by most contributors copyright holders of new code should use this license statement where"
    r" possible they may also add themselves to the list below\b"
    r"|\bif as a result of your compiling your source code portions of this software are embedded into .{100,300}?"
    r"without including the (?:above )?copyright and permission notices?\b"
    r"|\bcode generated by the protocol buffer compiler is owned by .{100,200}? itself covered by\b"
    r"|\bpermission to use copy modify and distribute this software for any purpose and without fee is hereby granted"
    r" the author disclaims all warranties with regard to this software\b"
    r"|\beach contributor holds copyright over their contributions .{200,300}? when it is committed\b"
)
_WARRANTY = (
    "any express or implied warranties including but not limited to the implied warranties of merchantability and"
    " fitness for a particular purpose are disclaimed in no event shall {any} be liable for any direct indirect"
    " incidental special exemplary or consequential damages including but not limited to procurement of substitute"
    " goods or services loss of use data or profits or business interruption however caused and on any theory of"
    " liability whether in contract strict liability or tort including negligence or otherwise arising in any way out"
    " of the use of this software even if advised of the possibility of such damage"
)
_BSD = (
    "redistribution and use (?:of this software )?in source and binary forms with or without modification are permitted"
    " provided that the following conditions are met (?:{n})?redistributions of source code must retain the (?:above )?"
    "copyright notice(?: s)? this list of conditions and the following disclaimer (?:{n})?redistributions in binary"
    " form must reproduce the above copyright notice(?: s)? this list of conditions and the following disclaimer in the"
    " documentation and or other materials provided with the distribution {third}"
    "(?:this software is|this software and documentation are) provided by {any} as is and " + _WARRANTY
)
_THIRD = (
    "(?:{n})?(?:neither )?the names? {any} (?:may|must)(?: not)? be used to endorse or promote products derived from"
    " this software without (?:specific )?prior written permission "
)
_ISC = (
    "permission to use copy modify and (?:or )?distribute this software (?:and its documentation )?for any purpose"
    " (?:with or without fee|and without fee) is hereby granted {kept}the software is provided as is and {any}"
    " disclaims? all warranties with regard to this software including all implied warranties of merchantability and"
    " fitness in no event shall {any} be liable for any special direct indirect or consequential damages or any"
    " damages whatsoever resulting from loss of use data or profits whether in an action of contract negligence or"
    " other tortious action arising out of or in connection with the use or performance of this software"
)
_MIT = (
    "permission is hereby granted free of charge to any person obtaining a copy of this software and (?:the )?"
    "associated documentation files? the software to deal in the software without restriction including without"
    " limitation (?:on )?the rights to use copy modify merge publish distribute sublicen[sc]e and or sell copies of"
    " the software and to permit persons to whom the software is furnished to do so subject to the following"
    " conditions the above copyright notice and this permission notice (?:including the next paragraph )?shall be"
    " included in all copies or substantial portions of the software the software is provided as is without warranty"
    " of any kind express or implied including but not limited to the warranties of merchantability fitness for a"
    " particular purpose and non ?infringement in no event shall {any} be liable for any claim damages or other"
    " liability whether in an action of contract tort or otherwise arising from out of or in connection with the"
    " software or the use or other dealings in the software"
)
_ZLIB = (
    "this software is provided as is without any express or implied warranty in no event (?:will|shall) {any} be held"
    " liable for any damages arising from the use of this software permission is granted to anyone to use this"
    " software for any purpose including commercial applications and to alter it and redistribute it freely subject to"
    " the following restrictions (?:{n})?the origin of this software must not be misrepresented you must not claim that"
    " you wrote the original software if you use this software in a product an acknowledge?ment in the product"
    " documentation would be appreciated but is not required (?:{n})?altered source versions must be plainly marked as"
    " such and must not be misrepresented as being the original software (?:{n})?this notice may not be removed or"
    " altered from any source distribution"
)
_UNLICENSE = (
    "this is free and unencumbered software released into the public domain anyone is free to copy modify publish use"
    " compile sell or distribute this software either in source code form or as a compiled binary for any purpose"
    " commercial or non commercial and by any means in jurisdictions that recognize copyright laws the author or"
    " authors of this software dedicate any and all copyright interest in the software to the public domain we make"
    " this dedication for the benefit of the public at large and to the detriment of our heirs and successors we intend"
    " this dedication to be an overt act of relinquishment in perpetuity of all present and future rights to this"
    " software under copyright law the software is provided as is without warranty of any kind express or implied"
    " including but not limited to the warranties of merchantability fitness for a particular purpose and non ?"
    "infringement in no event shall {any} be liable for any claim damages or other liability whether in an action of"
    " contract tort or otherwise arising from out of or in connection with the software or the use or other dealings in"
    " the software(?: for more information please refer to https? (?:www )?unlicense org)?"
)
_APACHE = (
    "(?P<whole>(?:apache license )?version 2 0 january 2004 (?:https? www apache org licenses (?:license 2 0 )?)?terms"
    " and conditions for use reproduction and distribution (?:1 )?definitions .{8000,14000}?"
    "accepting warranty or additional liability .{300,900}?warranty or additional liability"
    "(?: end of terms and conditions)?(?: appendix how to apply .{300,1500}?limitations under the license)?)"
)
"""Its words are compared one by one (_is_apache)."""
_APACHE_NOTICE = (
    "licensed under the apache license version 2 0 the license you may not use this \\w+ except in compliance with the"
    " license you may obtain a copy of the license at (?:https? )?(?:www )?apache org licenses license 2 0 (?:txt |html"
    " )?unless required by applicable law or agreed to in writing software distributed under the license is distributed"
    " on an as is basis without warranties or conditions of any kind either express or implied see the license for the"
    " specific language governing permissions and limitations under the license"
)


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    texts = (
        ("Unlicense", _UNLICENSE),  # before MIT, of whose last words it is made
        ("Apache-2.0", _APACHE),
        ("Apache-2.0", _APACHE_NOTICE),
        ("MIT", _MIT),
        ("BSD-3-Clause", _BSD.replace("{third}", _THIRD)),
        ("BSD-2-Clause", _BSD.replace("{third}", "")),
        (
            "ISC",
            _ISC.replace(
                "{kept}", "provided that the above copyright notice and this permission notice appear in all copies "
            ),
        ),
        ("0BSD", _ISC.replace("{kept}", "")),
        ("Zlib", _ZLIB),
    )
    return tuple(
        (name, re.compile(r"\b" + text.replace("{any}", "(.{1,160}?)").replace("{n}", r"(?:\w{1,3} )?") + r"\b"))
        for name, text in texts
    )
