"""Which language a file is written in, told by its name, its extension or its first bytes.

Knows names only: not how a language is parsed (`grammars`) and not whether a file should be read at all (`walk`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from embedcode.errors import UsageError
from embedcode.types import Content


@dataclass(frozen=True, slots=True)
class Language:
    """`name` is lower case, as typed after `--lang`; `grammar` is the key of a parser, None where there is none."""

    name: str
    content: Content
    grammar: str | None = None


TEXT = Language("text", "docs")
UNKNOWN = Language("text", "code")
"""An extension nobody knows is more often a rare language than prose, and `--content code` must find it."""

# name [aliases]: extensions, | then whole file names. One line a language, in three blocks.
_CODE = """
python [py python3]: py pyi pyw pyx pxd pxi bzl star | sconstruct sconscript wscript build.bazel buck
javascript [js node jsx]: js mjs cjs jsx es6 | jakefile
typescript [ts tsx]: ts mts cts tsx
java: java
go [golang]: go
rust [rs]: rs
c [h]: c h
cpp [c++ cc cxx hpp]: cpp cc cxx c++ hpp hh hxx h++ ipp inl tpp cu cuh ino
csharp [c# cs]: cs csx
ruby [rb]: rb rake gemspec ru podspec thor jbuilder | rakefile gemfile guardfile vagrantfile podfile brewfile capfile
php: php phtml php3 php4 php5 php7 inc
kotlin [kt]: kt kts ktm
scala [sc]: scala sc sbt
swift: swift
bash [sh shell zsh ksh]: sh bash zsh ksh bats | .bashrc .bash_profile .profile .zshrc pkgbuild
sql [mysql postgres postgresql sqlite plsql]: sql ddl dml pgsql plsql psql
ada: adb ads
agda: agda
assembly [asm]: asm s nasm
awk: awk
ballerina: bal
batch [bat cmd]: bat cmd
clojure [clj]: clj cljs cljc edn
cobol: cob cbl cpy
coffeescript [coffee]: coffee
commonlisp [lisp]: lisp lsp cl asd
crystal: cr
css: css
d: d di
dart: dart
elisp [emacs-lisp]: el
elixir [ex exs]: ex exs heex eex leex
elm: elm
erlang [erl]: erl hrl escript
fish: fish
forth: fth 4th
fortran [f90]: f for f77 f90 f95 f03 f08
fsharp [f# fs]: fs fsi fsx
gdscript: gd
gherkin [cucumber]: feature
gleam: gleam
glsl: glsl vert frag geom comp wgsl hlsl metal
graphql [gql]: graphql gql graphqls
groovy: groovy gvy gradle | jenkinsfile
haskell [hs]: hs lhs hsc
haxe: hx
html [htm]: html htm xhtml jinja jinja2 j2 twig hbs handlebars mustache ejs erb haml pug liquid njk cshtml razor tmpl
idris: idr
janet: janet
julia [jl]: jl
jupyter [ipynb notebook]: ipynb
less: less
lean: lean
lua: lua rockspec luau
matlab: mlx
mojo: mojo
nim: nim nims nimble
nix: nix
objective-c [objc objectivec]: mm
ocaml [ml]: ml mli mll mly
odin: odin
pascal [delphi]: pas pp dpr lpr
perl [pl]: pl pm t pod
powershell [ps1 pwsh]: ps1 psm1 psd1
prolog: pro prolog
protobuf [proto]: proto
purescript: purs
qml: qml
r: r rmd
racket: rkt
reason: re rei
scheme: scm ss sld
scss: scss
sass: sass
smalltalk: st
solidity [sol]: sol
stylus: styl
svelte: svelte
tcl: tcl tk
thrift: thrift
typst: typ
v: vsh
vala: vala
verilog [systemverilog]: v sv svh vh
vhdl: vhd vhdl
vim [viml vimscript]: vim | .vimrc
visualbasic [vb vb.net vba]: vb bas vbs cls frm
vue: vue
astro: astro
webassembly [wat]: wat wast
yacc: y yy l ll
zig: zig zon
"""
_DOCS = """
markdown [md]: md markdown mdx mdown mkd qmd
restructuredtext [rst]: rst rest
asciidoc [adoc]: adoc asciidoc
org: org
tex [latex]: tex ltx sty bib
text [txt plain]: txt text log out | readme license licence copying notice authors contributors changelog changes news
man: 1 2 3 4 5 6 7 8 man mdoc
diff [patch]: diff patch
textile: textile
"""
_CONFIG = """
json: json jsonc json5 jsonl ndjson geojson webmanifest avsc | .babelrc .eslintrc .prettierrc .swcrc pipfile.lock
yaml [yml]: yaml yml | .clang-format .clang-tidy
toml: toml | pipfile cargo.lock poetry.lock uv.lock
ini [cfg conf]: ini cfg conf cnf desktop service timer socket editorconfig | .editorconfig .gitconfig .npmrc .flake8
properties: properties
xml: xml xsd xsl xslt svg plist csproj fsproj vbproj props targets resx xaml wsdl rss atom ui qrc
dockerfile [docker containerfile]: dockerfile | dockerfile containerfile
makefile [make mk]: mk mak make | makefile gnumakefile kbuild
cmake: cmake | cmakelists.txt
meson: meson | meson.build meson_options.txt
just: just | justfile
terraform [tf hcl]: tf tfvars hcl nomad
bazel: bazel | build workspace module.bazel
ninja: ninja
gn: gn gni
autoconf: ac am m4
gomod: | go.mod go.sum go.work
requirements: | requirements.txt constraints.txt requirements.in
nginx: nginx
ignore: | .gitignore .dockerignore .npmignore .ignore .gitattributes
csv [tsv]: csv tsv
gettext [po]: po pot
kconfig: | kconfig
nsis: nsi
prisma: prisma
"""

_GRAMMARS = " python javascript typescript java go rust c cpp csharp ruby php kotlin scala swift bash sql "


def _read(table: str, content: Content) -> None:
    for line in table.strip().splitlines():
        head, _, tail = line.partition(":")
        name, _, aliases = head.partition("[")
        name = name.strip()
        language = Language(name, content, name if f" {name} " in _GRAMMARS else None)
        _BY_NAME[name] = language
        _ALIASES.update(dict.fromkeys(aliases.rstrip("] ").split(), name))
        extensions, _, files = tail.partition("|")
        _BY_EXTENSION.update(dict.fromkeys(extensions.split(), language))
        _BY_FILE.update(dict.fromkeys(files.split(), language))


_BY_NAME: dict[str, Language] = {}
_BY_EXTENSION: dict[str, Language] = {}
_BY_FILE: dict[str, Language] = {}
_ALIASES: dict[str, str] = {}
_read(_CODE, "code")
_read(_DOCS, "docs")
_read(_CONFIG, "config")
_BY_EXTENSION["tsx"] = Language("typescript", "code", "tsx")
# Typed in the same words as `--lang typescript`, parsed by a grammar of its own.

NAMES = tuple(sorted(_BY_NAME))
"""Every language name, for messages."""

_INTERPRETERS = {
    "python": "python", "pypy": "python", "node": "javascript", "deno": "typescript", "bun": "typescript",
    "ts-node": "typescript", "tsx": "typescript", "sh": "bash", "bash": "bash", "dash": "bash", "zsh": "bash",
    "ksh": "bash", "ash": "bash", "ruby": "ruby", "perl": "perl", "php": "php", "lua": "lua", "luajit": "lua",
    "rscript": "r", "julia": "julia", "awk": "awk", "gawk": "awk", "fish": "fish", "tclsh": "tcl", "wish": "tcl",
    "elixir": "elixir", "escript": "erlang", "runghc": "haskell", "runhaskell": "haskell", "stack": "haskell",
    "groovy": "groovy", "scala": "scala", "kotlin": "kotlin", "swift": "swift", "ocaml": "ocaml", "guile": "scheme",
    "racket": "racket", "sbcl": "commonlisp", "make": "makefile", "pwsh": "powershell", "nu": "text",
}  # fmt: skip

_CPP_HEADER = re.compile(rb"^\s*(?:class|namespace|template|using|public:|private:|protected:)\b|\bstd::", re.M)
_RST = re.compile(rb"^\.\. (?:[\w-]+::|_[^:\n]+:)|:[a-z]+:`", re.M)
_OBJECTIVE_C = re.compile(rb"^\s*(?:@interface|@implementation|@protocol|@class|@import|#import)\b", re.M)


def language_of(path: str, head: bytes = b"") -> Language | None:
    """The language of a file; None for content that is not text (a NUL byte in `head`).

    `head` is the first bytes of the file, 4 KiB are plenty: they decide what a name leaves open (`.h`, `.m`, a script
    without an extension). Text that nothing recognises is `text`: docs without an extension, code with one.
    """
    if b"\0" in head:
        return None
    base = path.replace("\\", "/").rpartition("/")[2].lower()
    stem, dot, extension = base.rpartition(".")
    found = _BY_FILE.get(base)
    if found is None and dot and stem:
        found = _by_content(extension, head) or _BY_EXTENSION.get(extension)
    if found is None:
        found = _by_shebang(head) or _BY_FILE.get(base.split(".")[0])
    if found is not None:
        return found
    return UNKNOWN if dot and stem and not extension.isdigit() else TEXT


def canonical(name: str) -> str | None:
    """A language as a user types it (`js`, `C++`, `golang`) to its name here; None for one that is not known."""
    typed = name.strip().lower()
    return typed if typed in _BY_NAME else _ALIASES.get(typed)


def of_name(name: str) -> Language | None:
    """The language that `canonical` means."""
    return _BY_NAME.get(canonical(name) or "")


def named(name: str) -> str:
    """The same; UsageError with the nearest name for one that is not known."""
    if found := canonical(name):
        return found
    from difflib import get_close_matches

    near = get_close_matches(name.strip().lower(), NAMES, n=1)
    cure = f"did you mean {near[0]!r}?" if near else "`embedcode status` names those of a repository."
    raise UsageError(f"{name!r} is not a language known here: {cure}")


def _by_content(extension: str, head: bytes) -> Language | None:
    """Extensions that several languages share."""
    if extension in ("h", "m", "mm") and (extension == "mm" or _OBJECTIVE_C.search(head)):
        return _BY_NAME["objective-c"]
    if extension == "h" and _CPP_HEADER.search(head):
        return _BY_NAME["cpp"]
    if extension == "m":
        return _BY_NAME["matlab" if re.match(rb"\s*(?:%|function\b)", head) else "objective-c"]
    if extension in ("ts", "ui") and head.lstrip().startswith(b"<?xml"):
        return _BY_NAME["xml"]
    if extension == "txt" and _RST.search(head):
        return _BY_NAME["restructuredtext"]
    if extension == "cls" and b"\\ProvidesClass" in head:
        return _BY_NAME["tex"]
    return None


def _by_shebang(head: bytes) -> Language | None:
    if not head.startswith(b"#!"):
        return None
    words = head[2:].split(b"\n", 1)[0].decode("ascii", "replace").split()
    for word in words:
        program = word.rpartition("/")[2]
        if program == "env" or program.startswith("-") or "=" in program:
            continue
        program = program.lower()
        name = _INTERPRETERS.get(program) or _INTERPRETERS.get(program.rstrip("0123456789."))
        return _BY_NAME[name] if name else None
    return None
