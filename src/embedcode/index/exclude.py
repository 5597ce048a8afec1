"""What is left out of an index without being asked: by the name of a file or folder, and by what a text says of itself.

Pure functions on names and texts, each giving the reason or None; touches no disk and knows no ignore files. A user
takes anything here back by naming it in .embedcodeignore, but for credentials and version control data.

`build`, `dist`, `out`, `bin` and `obj` are deliberately no rule: where they are output they are git-ignored, and
where they are not ignored they may well be somebody's source. Output that marks itself (CACHEDIR.TAG, CMakeCache.txt)
is left out.
"""

from __future__ import annotations

import re
from collections.abc import Container

from embedcode.index import words

RULES_VERSION = "3"
"""To be raised with every change of what text_reason() decides: files are then read again, and none is cut again that
stays."""

VCS = "version control data"
CREDENTIALS = "looks like credentials"
VENDORED = "dependency or vendored folder"
OUTPUT = "cache, build output or editor state"
LOCK = "lock file"
GENERATED = "generated code"
MINIFIED = "minified code or source map"
CATALOGUE = "translation catalogue"
SNAPSHOT = "test snapshot"
DATA = "data, media or binary format"

FIRM = frozenset({VCS, CREDENTIALS})
"""Reasons that no rule of the user can take back."""

_VCS_FOLDERS = words(".git .hg .svn .bzr .jj .sl _darcs .fossil .pijul CVS")

_CREDENTIAL_FOLDERS = words(".ssh .aws .gnupg .azure .kube .gcloud .password-store")

_VENDORED_FOLDERS = words("""
    node_modules bower_components jspm_packages web_modules vendor vendored _vendor third_party third-party
    thirdparty 3rdparty site-packages Godeps Pods Carthage .bundle .yarn .pnpm-store .venv .virtualenv .eggs
    __pypackages__ elm-stuff
""")

_OUTPUT_FOLDERS = words("""
    __pycache__ .tox .nox .mypy_cache .ruff_cache .pytest_cache .pytype .hypothesis .ipynb_checkpoints .cache
    .gradle .next .nuxt .svelte-kit .angular .parcel-cache .turbo .nyc_output .sass-cache .terraform .serverless
    .dart_tool .stack-work dist-newstyle .bloop .metals .bsp .idea .vs .settings DerivedData xcuserdata .ccls-cache
    .clangd
""")

_SNAPSHOT_FOLDERS = frozenset({"__snapshots__"})

_OUTPUT_BESIDE = {"target": words("Cargo.toml pom.xml build.sbt project.clj")}
"""Folders that are output only beside one of these files."""

_MARKS = {
    "pyvenv.cfg": VENDORED,
    "conda-meta": VENDORED,
    "CACHEDIR.TAG": OUTPUT,
    "CMakeCache.txt": OUTPUT,
}
"""What a folder holds when it is of that kind, whatever its name; CACHEDIR.TAG is https://bford.info/cachedir/."""

_LOCK_NAMES = words("""
    package-lock.json npm-shrinkwrap.json pnpm-lock.yaml bun.lockb go.sum go.work.sum packages.lock.json
    gradle.lockfile package.resolved cartfile.resolved .terraform.lock.hcl conda-lock.yml cabal.project.freeze
""")

_SUFFIXES = {
    LOCK: ".lock",
    MINIFIED: ".min.js .min.mjs .min.cjs .min.css .min.html -min.js -min.css .bundle.js .map",
    GENERATED: """
        _pb2.py _pb2.pyi _pb2_grpc.py .pb.go .pb.gw.go .pb.cc .pb.h .pb.swift .pb.dart .pbgrpc.dart .pbjson.dart
        .pbobjc.h .pbobjc.m .g.dart .freezed.dart .mocks.dart .designer.cs .designer.vb .g.cs .g.i.cs .generated.cs
        .generated.go .generated.ts .generated.js _generated.go .gen.go
    """,
    CATALOGUE: ".po .mo .pot .xlf .xliff",
    SNAPSHOT: ".snap",
    OUTPUT: ".swp .swo ~",
    DATA: """
        .csv .tsv .psv .jsonl .ndjson .geojson .topojson .parquet .feather .arrow .avro .orc .npy .npz .h5 .hdf5
        .mat .sav .dta .rdata .rds .pkl .pickle .joblib .db .sqlite .sqlite3 .mdb .accdb .dbf .shp .shx .mmdb .dat
        .bin .dump .log .pcap .tfrecord .svg .png .jpg .jpeg .gif .bmp .ico .icns .cur .tif .tiff .webp .avif .heic
        .psd .ai .eps .xcf .sketch .fig .drawio .blend .fbx .glb .stl .3ds .dae .mp3 .wav .flac .ogg .oga .opus .m4a
        .aac .mid .mp4 .m4v .mov .avi .mkv .webm .wmv .flv .ttf .otf .woff .woff2 .eot .pdf .doc .docx .xls .xlsx
        .ppt .pptx .odt .ods .odp .epub .mobi .djvu .rtf .ps .zip .tar .gz .tgz .bz2 .tbz2 .xz .txz .zst .lzma .lz4
        .br .7z .rar .cab .jar .war .ear .aar .whl .egg .gem .nupkg .deb .rpm .apk .ipa .dmg .iso .img .msi .exe
        .dll .so .dylib .lib .a .o .obj .ko .pdb .class .pyc .pyo .pyd .wasm .beam .elc .hi .rlib .rmeta .node .dex
        .swf .safetensors .pt .pth .ckpt .onnx .gguf .ggml .tflite .caffemodel .keras .mlmodel .crt .cer .der
        .gpg
    """,
}
_ENDINGS = {reason: tuple(suffixes.split()) for reason, suffixes in _SUFFIXES.items()}

_KEY_MATERIAL = re.compile(
    r".*\.(pem|key|p8|p12|pfx|pkcs12|ppk|keystore|jks|bks|kdbx?|ovpn|keytab|agekey|tfstate|tfstate\.backup)"
    r"|id_(rsa|dsa|ecdsa|ed25519).*"
)
_SECRETS = re.compile(
    r"\.env|\.env[._-].*|.*\.env|\.envrc([._-].*)?"
    r"|[._]netrc|\.pgpass|pgpass\.conf|\.npmrc|\.pypirc|\.htpasswd|\.git-credentials|\.dockercfg|\.dockerconfigjson"
    r"|\.my\.cnf|\.mylogin\.cnf|\.s3cfg|\.boto|\.vault[-_](token|pass|password)|vault[-_]pass(word)?(\.txt)?|.*\.tfvars(\.json)?"
    r"|\.?kubeconfig(\.(ya?ml|json|conf))?|.*\.kubeconfig"
    r"|\.?credentials|(.*[-_.])?credentials\.(json|ya?ml|toml|ini|csv|xml|cfg|properties)"
    r"|\.?secrets?|(.*[-_.])?secrets?\.(ya?ml|json|toml|ini|properties)"
    r"|g?shadow-?|master\.passwd"
    r"|.*service[-_]?account.*\.json|client[-_]secret.*\.json|.*firebase-adminsdk.*\.json"
)
_COPY = re.compile(r"(~|\.(bak|backup|bkp|old|orig|save|[0-9]{1,3}))+$")
"""What programs and people append to the name of a copy, which holds the same: `terraform.tfstate.1.backup`."""
_PAGE = re.compile(r"[^.]+\.[1-9]")
"""Of a manual: `credentials.7`, which is no copy."""
_STAND_IN = re.compile(
    r"[-_.](example|sample|template|tmpl|tpl|dist|defaults?)(?=[-_.]|$)|^(example|sample|template)[-_.]"
)
"""A name that says the values are made up: `.env.example`, `credentials.sample.json`."""

_KEY_START = re.compile(r"\s*-----BEGIN ")
_PUTTY_START = re.compile(r"\s*PuTTY-User-Key-File-")
_JSON_START = re.compile(r"\s*\{")
_JSON_KEY = re.compile(r'"private_key"\s*:\s*"-----BEGIN ')

GENERATED_LINES = 30
"""How far down a marker counts: below a licence header it still belongs to the file, further it is about another."""
_COMMENT = re.compile(r"""\s*(#|//|/\*|\*|--|<!--|;|%|"{3}|'{3}|'|REM\b|\(\*|\{-)""")
_MARKER = re.compile(
    r"(?<![\w-])@generated\b|\bDO NOT (EDIT|MODIFY)\b|<auto-?generated"
    r"|(?i:\bcode generated by\b|\bauto(matically|-|\s)?\s?generated (by|from|file|code)\b"
    r"|\bthis (file|code) (is|was|has been) (auto(matically|-)?\s?)?generated\b)"
)

MEAN_LINE = 300
"""Bytes a line of a minified file has at least. Django 5.2: the longest mean of a source file is 80, the shortest of a
minified one 690."""
MINIFIED_BYTES = 2048
"""Below this, one long line says nothing."""
_PROSE = (".md", ".markdown", ".mdx", ".rst", ".txt", ".adoc", ".tex", ".org", ".ipynb")
"""Formats in which a paragraph or an embedded picture may be one line, and talk of generated code is only talk."""


def folder_reason(name: str, beside: Container[str]) -> str | None:
    """Why a folder of this name is left out; `beside` holds the names in the same folder."""
    if name in _VCS_FOLDERS:
        return VCS
    if name in _CREDENTIAL_FOLDERS:
        return CREDENTIALS
    if name in _VENDORED_FOLDERS:
        return VENDORED
    if name in _SNAPSHOT_FOLDERS:
        return SNAPSHOT
    if name in _OUTPUT_FOLDERS or name.endswith((".egg-info", ".dist-info", ".xcodeproj")):
        return OUTPUT
    if any(mark in beside for mark in _OUTPUT_BESIDE.get(name, ())):
        return OUTPUT
    return None


def content_reason(names: Container[str]) -> str | None:
    """Why a folder that holds these names is left out, whatever it is called."""
    return next((reason for mark, reason in _MARKS.items() if mark in names), None)


def file_reason(name: str) -> str | None:
    """Why a file of this name is left out, compared without regard to case."""
    if name == ".git":  # what a worktree or a submodule has in place of the folder
        return VCS
    lower = name.lower()
    if _names_credentials(lower):
        return CREDENTIALS
    if lower in _LOCK_NAMES:
        return LOCK
    return next((reason for reason, endings in _ENDINGS.items() if lower.endswith(endings)), None)


def text_reason(name: str, text: str) -> str | None:
    """Why a text is left out for what it says: a private key, generated code, minified code."""
    if _holds_key(text):
        return CREDENTIALS
    if name.lower().endswith(_PROSE):
        return None
    for line in text[: GENERATED_LINES * 200].split("\n", GENERATED_LINES)[:GENERATED_LINES]:
        if _MARKER.search(line) and _COMMENT.match(line):
            return GENERATED
    if len(text) >= MINIFIED_BYTES and len(text) > MEAN_LINE * (text.count("\n") + 1):
        return MINIFIED
    return None


def _names_credentials(name: str) -> bool:
    if not _PAGE.fullmatch(name):
        name = _COPY.sub("", name)
    if _KEY_MATERIAL.fullmatch(name):
        return True
    return _SECRETS.fullmatch(name) is not None and _STAND_IN.search(name) is None


def _holds_key(text: str) -> bool:
    """A private key is what the text is, not what it mentions: its first line begins one, or it is JSON around one."""
    if _KEY_START.match(text):
        return "PRIVATE KEY-----" in text or "PRIVATE KEY BLOCK-----" in text
    return _PUTTY_START.match(text) is not None or (
        _JSON_START.match(text) is not None and _JSON_KEY.search(text) is not None
    )
