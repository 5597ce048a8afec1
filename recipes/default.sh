#!/usr/bin/env bash
# From sources to the exported file: what makes the default model. Where it was ended, the same command goes on.
#
#     recipes/default.sh WORK
#
# Needs pip, npm, git and apt-get with deb-src lines. Wanted in WORK beforehand, since it may not be passed on here:
#
#     tasks/cosqa-dev, tasks/conala     tasks to steer by, in BEIR layout
#     tasks/reported-NAME               those that the model is reported on: no pair may copy a text of theirs. NAME is
#                                       mbpp, humaneval, nl2bash, concode-java-dev, so-title2code-csharp and
#                                       codetrans-java-cs
#     questions/wikisql.jsonl.gz        {"query": question, "doc": SQL} a line, github.com/salesforce/WikiSQL
#     questions/tldr.jsonl.gz           {"query": what for, "doc": command} a line, github.com/tldr-pages/tldr
#
# Each step writes its file whole or not at all, and is passed over where the file is. Another size is set by variables;
# a RECIPE of one's own has to be of a network of BERT's kind.
set -euo pipefail
work=${1:?give a folder to work in}
here=$(cd "$(dirname "$0")" && pwd)
SOURCES=$(realpath "${SOURCES:-$here/sources.toml}")   # what is mined
HELD_OUT=$(realpath "${HELD_OUT:-$here/held_out.toml}")
RECIPE=$(realpath "${RECIPE:-$here/default.yaml}")
COMMITS=${COMMITS:-12000}   # of each repository, the newest

step() { # step FILE COMMAND...: what makes FILE
  [ -e "$1" ] && return
  echo "$1" >&2
  "${@:2}"
}

mkdir -p "$work/pairs" "$work/tasks"
cd "$work"
# Paths in a recipe are from its own folder: it and those that it inherits come here. What is wrong with them, and what of
# the tasks and questions is not here, is found now and not after a night of mining.
cp "$HELD_OUT" held_out.toml
[ -e run/model ] || python3 - "$RECIPE" "$COMMITS" <<'END'
import shutil, sys
from dataclasses import replace
from pathlib import Path

import yaml
from embedcode.data import holdout
from embedcode.errors import EmbedcodeError
from embedcode.train.recipe import check, check_idle, read

file, here = Path(sys.argv[1]), Path.cwd()
try:
    recipe = replace(read(file), folder=here)
    check(recipe)
    check_idle(recipe)
    parts = holdout.load(here / "held_out.toml").parts
except EmbedcodeError as error:
    sys.exit(str(error))
split = {f"{part}-{language}" for part, languages in parts.items() for language in languages}
lost = [one for one in (*recipe.evaluate, *recipe.never) if "*" not in one and Path(one).name not in split]
lost = [one for one in lost if not recipe.path(one).is_dir()]
given = {one.name.partition(".")[0] for one in here.glob("questions/*.jsonl.gz")}
made = {"docstrings", *(["commits"] if sys.argv[2] != "0" else []), *(given & {"wikisql", "tldr"})}
files = [one for data in recipe.data for one in recipe.missing(data)]
lost += [one for one in files if Path(one).name.partition(".")[0].rstrip("*") not in made]
if lost:
    sys.exit(f"{', '.join(lost)}, which {file.name} names, is not in {here}, nor what it is made of: put it there")
while True:
    if file.parent != here:
        shutil.copy(file, here)
    if not (parent := yaml.safe_load(file.read_text("utf-8")).get("inherits")):
        break
    file = file.parent / parent
END
if [ ! -e collected ]; then
  echo collect >&2
  embedcode data collect "$SOURCES" mined --commits "$COMMITS" --found found.toml || {
    code=$?   # 1 if some could not be fetched; else a full disk, Ctrl-C: without the rest it is another model
    [ "$code" != 1 ] || echo "not all sources could be fetched: run this again, or do without them by" \
      "\`touch $work/collected\`" >&2
    exit "$code"
  }
  touch collected
fi
step merged.jsonl.gz embedcode data merge mined/*.jsonl.gz -o merged.jsonl.gz
step pairs/docstrings.jsonl.gz embedcode data split merged.jsonl.gz --held-out "$HELD_OUT" --tasks tasks \
  -o pairs/docstrings.jsonl.gz
# Not merged: commits that edit one function after the other are different questions about nearly the same text.
if compgen -G 'mined/commits/*.jsonl.gz' >/dev/null; then
  step pairs/commits.jsonl.gz embedcode data check mined/commits/*.jsonl.gz --held-out "$HELD_OUT" \
    -o pairs/commits.jsonl.gz
fi
if [ -e questions/wikisql.jsonl.gz ]; then
  step pairs/wikisql.jsonl.gz embedcode data convert questions/wikisql.jsonl.gz --task text2sql --language sql \
    --source WikiSQL --licence BSD-3-Clause -o pairs/wikisql.jsonl.gz
fi
if [ -e questions/tldr.jsonl.gz ]; then
  step pairs/tldr.jsonl.gz embedcode data convert questions/tldr.jsonl.gz --task text2shell --language shell \
    --source tldr-pages --licence CC-BY-4.0 -o pairs/tldr.jsonl.gz
fi
step run/model embedcode train "$(basename "$RECIPE")" --out run --resume   # which mines hard negatives, if asked to
step exported python3 "$here/../scripts/export_default.py" run/model exported
echo "$work/exported" >&2
