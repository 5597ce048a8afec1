"""Documentation's examples: what is said of a block of code, the code as a reader would use it, and what is refused."""

from __future__ import annotations

import json

import pytest

from embedcode.data import examples
from embedcode.data.docstrings import File

CODE = "with open(path) as file:\n    for line in file:\n        handle(line)"
MARKDOWN = f"""# Guide

Install it first:

```sh
pip install lines
npm install lines
```

## Reading a file line by line

Files may be large.

```python
{CODE}
```

Some prose that does not lead to the code below.

```python
{CODE.replace("handle", "other")}
```

For example, to count the lines of all files in a folder, use the following:

~~~py
total = sum(count(each) for each in folder)
print(total, "lines", "in", folder)
~~~

This is the same as:

```python
{CODE.replace("handle", "third")}
```

## Settings of the program

```json
{{"lines": 1, "other": 2, "third": "a value that is long enough"}}
```
"""


def found(path: str, text: str) -> list[tuple[str, str, str]]:
    return [(pair.query, pair.positives[0], pair.language) for pair in examples.extract(File(path, text, "")).pairs]


def test_a_heading_is_paired_once_and_a_sentence_where_it_leads_to_the_code() -> None:
    assert found("docs/guide.md", MARKDOWN) == [
        ("Reading a file line by line", CODE, "python"),
        (
            "To count the lines of all files in a folder",
            'total = sum(count(each) for each in folder)\nprint(total, "lines", "in", folder)',
            "python",
        ),
    ]
    refused = examples.extract(File("guide.md", MARKDOWN, "")).refused
    assert refused[examples.INSTALLS] == 1 and refused[examples.NO_LANGUAGE] == 1 and refused[examples.UNSAID] == 2


def test_restructuredtext_has_directives_literal_blocks_and_sessions() -> None:
    text = f"""
Walking a tree of folders
=========================

.. code-block:: python
   :linenos:

   {CODE.replace(chr(10), chr(10) + "   ")}

.. highlight:: c

To open a file and read its first byte::

    FILE *file = fopen(path, "r");
    int first = fgetc(file);

Numbers are added up by sum:

>>> total = sum(each.width for each in shapes)
>>> for each in shapes:
...     print(each.width / total)
0.25
0.75

Not code at all::
"""
    assert found("a.rst", text) == [
        ("Walking a tree of folders", CODE, "python"),
        ("To open a file and read its first byte", 'FILE *file = fopen(path, "r");\nint first = fgetc(file);', "c"),
        (
            "Numbers are added up by sum",
            "total = sum(each.width for each in shapes)\nfor each in shapes:\n    print(each.width / total)",
            "python",
        ),
    ]


def test_asciidoc_and_notebooks_are_read() -> None:
    adoc = f"== Reading all lines of a file\n\n[source%nowrap,python]\n----\n{CODE}\n----\n"
    cells = [
        {"cell_type": "markdown", "source": ["# Reading all\n", "We read the lines of a file and handle each one:"]},
        {"cell_type": "code", "source": CODE.splitlines(keepends=True), "outputs": []},
    ]
    assert found("a.adoc", adoc) == [("Reading all lines of a file", CODE, "python")]
    notebook = json.dumps({"cells": cells, "metadata": {"kernelspec": {"language": "python"}}})
    assert found("a.ipynb", notebook) == [("We read the lines of a file and handle each one", CODE, "python")]


def test_a_wheels_description_is_of_the_markup_that_its_fields_say() -> None:
    fields, path = "Metadata-Version: 2.1\nName: a\n", "a-1.0.dist-info/METADATA"
    markdown = f"# Reading all lines of a file\n\n```python\n{CODE}\n```\n"
    rst = "Reading all lines\n=================\n\n.. code:: python\n\n    " + CODE.replace("\n", "\n    ")
    expected = [("Reading all lines of a file", CODE, "python")]
    assert found(path, f"{fields}Description-Content-Type: text/markdown\n\n{markdown}") == expected
    assert found(path, f"{fields}\n{rst}") == [("Reading all lines", CODE, "python")]
    assert found(path, f"{fields}Description-Content-Type: text/plain\n\n{markdown}") == []
    assert found("a-1.0.dist-info/RECORD", f"{fields}\n{rst}") == []


def test_prompts_and_what_a_command_answered_are_not_code() -> None:
    text = "# List all open files of a process\n\n```console\n$ lsof -p 12\nCOMMAND PID\n$ lsof | wc -l\n12\n```\n"
    assert found("a.md", text) == [("List all open files of a process", "lsof -p 12\nlsof | wc -l", "bash")]
    commented = "# Make the sums anew\n\n```sh\n# Of all files\natlas hash --dir x\n```\n"
    assert found("a.md", commented) == [("Make the sums anew", "# Of all files\natlas hash --dir x", "bash")]
    rust = "# Read a file in a loop\n\n"
    rust += "```rust,no_run\n# fn main() {\nlet text = read(path)?;\nprint(text.trim());\n# }\n```\n"
    assert found("a.md", rust)[0][1] == "let text = read(path)?;\nprint(text.trim());"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("CHANGELOG.md", "# Reads a file line by line\n\n```python\n" + CODE + "\n```\n"),
        ("a.md", "# Die Datei wird mit der Funktion gelesen\n\n```python\n" + CODE + "\n```\n"),
        ("a.md", "# Reads a file line by line\n\n```\n" + CODE + "\n```\n"),
        ("a.md", "# Reads a file line by line\n\n```python\nx = 1\n```\n"),
        ("a.md", "# Reads a file line by line\n\n```python\n" + CODE * 100 + "\n```\n"),
        ("a.md", "# Reads a file line by line\n\n```rust\n{{#include ../listings/a/b/c/listing-one.rs}}\n\nx\n```\n"),
        ("a.ipynb", "no notebook"),
        ("a.ipynb", "[1]"),
    ],
)
def test_what_is_no_example_is_left_out(path: str, text: str) -> None:
    assert found(path, text) == []


def test_blocks_that_never_end_cost_their_file_only() -> None:
    assert found("a.md", "# Reads a file line by line\n\n```python\n" + CODE) == [
        ("Reads a file line by line", CODE, "python")
    ]
    assert found("a.md", "```\n" * 50_001) == []
    assert found("a.rst", "x::\n\n" * 50_000) == []
    assert found("a.md", "\n" * 100_000 + "```python\n" + CODE + "\n```\n") == []
