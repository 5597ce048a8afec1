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
# Paths in a recipe are from its own folder; hard negatives are mined by the run.
cp "$RECIPE" recipe.yaml
cp "$HELD_OUT" held_out.toml
step run/model embedcode train recipe.yaml --out run --resume
step exported python3 "$here/../scripts/export_default.py" run/model exported
echo "$work/exported" >&2
