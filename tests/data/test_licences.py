"""Licences by their words: installed packages say which they have, and what is added to one makes it unknown."""

from __future__ import annotations

from importlib.metadata import distributions
from pathlib import Path

import pytest

from embedcode.data import licences

APACHE = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8")
MIT = """MIT License

Copyright (c) 2024 Somebody <a@example.org>

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
ISC = """Permission to use, copy, modify, and/or distribute this software for any
purpose with or without fee is hereby granted, provided that the above
copyright notice and this permission notice appear in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES
WITH REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF
MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR
ANY SPECIAL, DIRECT, INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES
WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN
ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF
OR IN CONNECTION WITH THE USE OR PERFORMANCE OF THIS SOFTWARE.
"""
BSD = """Redistribution and use in source and binary forms, with or without
modification, are permitted provided that the following conditions are met:
1. Redistributions of source code must retain the above copyright notice(s),
   this list of conditions and the following disclaimer.
2. Redistributions in binary form must reproduce the above copyright notice(s),
   this list of conditions and the following disclaimer in the documentation
   and/or other materials provided with the distribution.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDER(S) ``AS IS'' AND ANY EXPRESS
OR IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF
MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE DISCLAIMED.  IN NO
EVENT SHALL THE COPYRIGHT HOLDER(S) BE LIABLE FOR ANY DIRECT, INDIRECT,
INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT
LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE, DATA, OR
PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF
LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE
OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE OF THIS SOFTWARE, EVEN IF
ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
"""
PARTS = """
ACME SUBCOMPONENTS:

Acme includes a number of subcomponents with separate copyright notices and
license terms. Your use of the source code of these subcomponents is subject to
the terms and conditions of the following licenses.

>>> the zipper in src/zip, version 3:

"""
ZLIB = """This software is provided 'as-is', without any express or implied
warranty. In no event will the authors be held liable for any damages
arising from the use of this software.

Permission is granted to anyone to use this software for any purpose,
including commercial applications, and to alter it and redistribute it
freely, subject to the following restrictions:

1. The origin of this software must not be misrepresented; you must not
   claim that you wrote the original software. If you use this software
   in a product, an acknowledgment in the product documentation would be
   appreciated but is not required.
2. Altered source versions must be plainly marked as such, and must not be
   misrepresented as being the original software.
3. This notice may not be removed or altered from any source distribution.
"""


def installed() -> list[tuple[str, str, str]]:
    """(package, its declared SPDX identifier, the text of its only licence file)."""
    found = []
    for package in distributions():
        declared = package.metadata.get("License-Expression", "")
        files = [file for file in package.files or () if licences.is_own(file.as_posix(), "")]
        named = declared and "LicenseRef-" not in declared  # one of NVIDIA's packages is BSD
        if named and len(files) == 1 and Path(str(files[0].locate())).is_file():
            found.append((package.name, declared, Path(str(files[0].locate())).read_text("utf-8")))
    return found


def test_installed_packages_have_the_licence_that_they_declare() -> None:
    packages = installed()
    allowed = [one for one in packages if one[1] in licences.ALLOWED]
    assert len(allowed) >= 20
    recognised = 0
    for name, declared, text in packages:
        licence = licences.identify(text)
        if licence is not None:  # what is added to a licence may make it unknown, never another one
            recognised += 1
            assert declared in licence or set(licence.split(" AND ")) & set(declared.split()), name
    assert recognised >= 0.85 * len(allowed)


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        (APACHE, "Apache-2.0"),
        (MIT, "MIT"),
        (ISC, "ISC"),
        (
            ISC.replace(
                ", provided that the above\ncopyright notice and this permission notice appear in all copies", ""
            ),
            "0BSD",
        ),
        (ZLIB, "Zlib"),
        (MIT + "\n" + APACHE, "Apache-2.0 AND MIT"),
        (BSD, "BSD-2-Clause"),
        (APACHE.replace("Apache License\n", "\n", 1), "Apache-2.0"),
        (APACHE.replace("apache.org/licenses/\n", "apache.org/licenses/LICENSE-2.0\n", 1), "Apache-2.0"),
        (APACHE + PARTS + MIT + "\n" + BSD, "Apache-2.0 AND BSD-2-Clause AND MIT"),
        (APACHE + PARTS + "which may be had for non-commercial use only.", None),
        (APACHE + PARTS + "and other words " * 300, None),
        (MIT + PARTS + "Terms and conditions: every copy has to be paid." * 8, None),
        (MIT.replace("\n", "\r\n"), "MIT"),
        (MIT.replace("\n", "\r"), "MIT"),
        ("\n".join(f" * {line}" for line in MIT.split("\n")), "MIT"),
        ("Copyright (c) 2020 A\n" * 500 + MIT, "MIT"),
        (MIT.replace("copies or", "copies or portions, for good and not evil, or"), None),
        (MIT + "\nThe Software shall be used for Good, not Evil.\n", None),
        ("Commons Clause: not for commercial use.\n" + MIT, None),
        (MIT + "\nThe files in src/x are under the GNU General Public License.\n", None),
        (MIT.split("The above")[0], None),
        ("All rights reserved.", None),
        ("", None),
    ],
)
def test_texts(text: str, licence: str | None) -> None:
    assert licences.identify(text) == licence


def test_every_licence_file_of_a_source_must_be_known() -> None:
    assert licences.of({"LICENSE-MIT": MIT, "LICENSE-APACHE": APACHE}) == "Apache-2.0 AND MIT"
    pointer = "This software is made available under the terms of either of the licenses found in LICENSE-MIT or ..."
    assert licences.of({"LICENSE": pointer, "LICENSE-MIT": MIT}) == "MIT"
    assert licences.of({"LICENSE": pointer}) is None
    paid = "This software is under the licenses found in LICENSE-MIT while your company has fewer than ten employees."
    assert licences.of({"LICENSE": paid, "LICENSE-MIT": MIT}) is None
    assert licences.of({"LICENSE": MIT, "COPYING": "GNU GENERAL PUBLIC LICENSE"}) is None
    assert licences.of({}) is None


def test_a_folder_of_licences_is_of_parts_beside_a_licence_of_the_source() -> None:
    gpl = "GNU GENERAL PUBLIC LICENSE"
    assert licences.of({"x/LICENSES/GPL-3.0.txt": gpl, "x/LICENSE.MIT": MIT}) == "MIT"
    assert licences.of({"x/LICENSES/GPL-3.0.txt": gpl, "x/LICENSE": gpl}) is None
    assert licences.of({"x/LICENSES/GPL-3.0.txt": gpl, "x/LICENSES/MIT.txt": MIT}) is None
    wheel = "x-1.dist-info/licenses/"
    assert licences.of({wheel + "LICENSE": MIT, wheel + "sub/licenses/LICENSE": gpl}) is None


@pytest.mark.parametrize(
    ("path", "top", "own"),
    [
        ("LICENSE", "", True),
        ("pkg-1.0/LICENSE.txt", "pkg-1.0", True),
        ("pkg-1.0/COPYING", "pkg-1.0", True),
        ("pkg-1.0.dist-info/licenses/LICENSE", "pkg", True),
        ("pkg-1.0.dist-info/licenses/AUTHORS", "pkg", False),
        ("LICENSES/MIT.txt", "", True),
        ("pkg-1.0/src/LICENSE", "pkg-1.0", False),
        ("sub/LICENSE", "", False),
        ("pkg-1.0/licence.py.md", "pkg-1.0", True),
        ("pkg-1.0/LICENSE-3rd-party.txt", "pkg-1.0", False),
        ("pkg-1.0/license_checker.py.c", "pkg-1.0", False),
        ("README", "", False),
    ],
)
def test_which_files_are_licences(path: str, top: str, own: bool) -> None:
    assert licences.is_own(path, top) is own


@pytest.mark.parametrize(
    "condition",
    [
        "This software may not be used to train machine learning models.",
        "You must not sell it.",
        "It shall not be hosted.",
        "For internal use only.",
        "Any use is fine except in weapons.",
        "Military use is prohibited.",
        "Use by competitors is not permitted.",
        "You must display our logo in every product built on this software.",
        "Companies with more than 50 employees need to buy a license from us.",
        "Use for training machine learning models is reserved.",
        "The directory enterprise/ is under the Acme Enterprise License, see enterprise/LICENSE.",
        "Attribution in the user interface is mandatory.",
        "Every deployed copy displays a visible badge.",
        "See https://example.org/terms because a fee is due for hosting.",
        "This is free for individuals, others write to sales@example.org.",
    ],
)
@pytest.mark.parametrize("text", [MIT, ISC, BSD, ZLIB, APACHE])
def test_a_condition_counts_however_short_it_is(text: str, condition: str) -> None:
    assert licences.identify(text) is not None
    assert licences.identify(f"{text}\n{condition}\n") is None
    assert licences.identify(f"Copyright 2024 Somebody. {condition}\n{text}") is None


@pytest.mark.parametrize(
    "condition",
    [
        "The Work may be used for non-commercial purposes only.",
        "You may not use the Work to train machine learning models.",
        "Every company with more than ten employees must buy a licence from us.",
        "Words that are no condition by themselves and that still make of this text another one than the one it is "
        "called after, since there are so many of them put into the middle of it.",
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        '"License" shall mean',
        "2. Grant of Copyright",
        "4. Redistribution.",
        "6. Trademarks.",
        "APPENDIX",
        "7. Disclaimer",
    ],
)
def test_a_condition_inside_of_apache_s_text_makes_it_another(condition: str, place: str) -> None:
    assert place in APACHE
    assert licences.identify(APACHE.replace(place, f"{condition}\n\n{place}", 1)) is None


def test_what_is_left_out_of_apache_s_text_makes_it_another() -> None:
    begin, end = APACHE.index("You may reproduce"), APACHE.index("You may add Your own")
    assert licences.identify(APACHE[:begin] + APACHE[end:]) is None
    assert licences.identify(APACHE[: APACHE.index("APPENDIX")]) == "Apache-2.0"
    assert licences.identify(APACHE.replace("1. Definitions.", "Definitions.").replace("(a)", "1.")) == "Apache-2.0"


def test_a_condition_in_the_place_of_a_name_counts() -> None:
    holder = "the authors, whose work only paying members are to use,"
    assert licences.identify(MIT.replace("THE\nAUTHORS OR COPYRIGHT HOLDERS", "THE\nAuthors of Acme")) == "MIT"
    assert licences.identify(MIT.replace("THE\nAUTHORS OR COPYRIGHT HOLDERS", holder)) is None


@pytest.mark.parametrize(
    "remark",
    [
        "Do not edit: made by a template.",
        "Except where otherwise noted, this is the licence of all files.",
        "This project is licensed under the MIT License, see LICENSE or https://example.org/a/b for the full text.",
        "Parts of src/sort.c are derived from the Quick project, and were written by its authors and contributors.",
        "Jane Doe <jane@example.org>\nJohn van Doe, Some Street 12, 3000 Bern, Switzerland\nhttps://example.org/~john",
        "pycparser -- A C parser in Python",
        "You may use this software under either of the following licenses:",
    ],
)
def test_a_remark_is_no_condition(remark: str) -> None:
    assert licences.identify(f"{remark}\n{MIT}") == "MIT"


MPL = """This Source Code Form is subject to the terms of the Mozilla Public
License, v. 2.0. If a copy of the MPL was not distributed with this
file, You can obtain one at http://mozilla.org/MPL/2.0/.
"""
GPL = """This program is free software; it comes under the GNU General
Public License, as its second version says.
"""


@pytest.mark.parametrize("text", [MPL, GPL])
@pytest.mark.parametrize(
    "mark", [("/* ", " * "), ("# ", "# "), ("// ", "// "), ("-- ", "-- "), (";; ", ";; "), ("<!-- ", "  "), ("", "")]
)
def test_a_header_may_go_on_behind_the_mark_of_the_next_line(text: str, mark: tuple[str, str]) -> None:
    first, *others = text.splitlines()
    head = "\n".join([mark[0] + first, *(mark[1] + line for line in others)])
    assert licences.foreign_header(f"{head}\n\nint a;\n")
    assert licences.foreign_header(head.replace("\n", "\r\n"))


def test_headers_of_files_count() -> None:
    assert licences.foreign_header("/* This is free software under the GNU General Public License */\nint a;")
    assert not licences.foreign_header("int a;\n" * 100 + "// the GNU General Public License, or GPL\n")


@pytest.mark.parametrize(
    ("said", "foreign"),
    [
        ("GPL-2.0-only", True),
        ("GPL-2.0-only AND MIT", True),
        ("(GPL-2.0 AND BSD-3-Clause)", True),
        ("MIT AND (GPL-2.0-only OR LGPL-2.1-only)", True),
        ("BSD-4-Clause", True),
        ("CC-BY-NC-4.0 (c) Smith", True),
        ("Apache-2.0 WITH Commons-Clause", True),
        ("MIT, GPL-2.0", True),
        ("LicenseRef-MIT", True),
        ("(" * 4_000, True),
        ("", True),
        ("Apache-2.0", False),
        ("MIT (c) Smith", False),
        ("GPL-2.0-only OR (BSD-3-Clause AND ISC)", False),
        ("Apache-2.0 WITH LLVM-exception", False),
        ("mit or gpl-3.0-or-later", False),
    ],
)
def test_an_expression_in_a_header_needs_a_permitted_choice(said: str, foreign: bool) -> None:
    for line in (f"// SPDX-License-Identifier: {said}", f"/* SPDX-License-Identifier: {said} */"):
        assert licences.foreign_header(f"{line}\nint a;\n") is foreign, line


@pytest.mark.parametrize(
    ("said", "foreign"),
    [
        ("GNU GPL v3 or later", True),
        ("Licensed under the GPLv2", True),
        ("LGPL-2.1", True),
        ("Elastic License 2.0", True),
        ("Business Source License 1.1", True),
        ("Server Side Public License", True),
        ("PolyForm Noncommercial License", True),
        ("From an answer under CC BY-SA 4.0", True),
        ("License: GPL", True),
        ("__license__ = 'GPL'", True),
        ('__license__ = "lgpl"', True),
        ("License:\n#   AGPL", True),
        ("GPL version 2 or later", True),
        ("Licence: AGPL", True),
        ("@license LGPL", True),
        ("@license http://www.gnu.org/licenses/gpl-2.0.txt  GPL", True),
        ("See http://www.gnu.org/licenses/ for more", True),
        ("@license https://opensource.org/licenses/osl-3.0.php", True),
        ("MPLv2", True),
        ("Ms-PL", True),
        ("Licensed under the EUPL", True),
        ("OSL-3.0", True),
        ("Under the Artistic License", True),
        ("License: Artistic", True),
        ("Distributed under the Boost Software License, Version 1.0.", True),
        ("not for commercial use", True),
        ("free for non-commercial use", True),
        ("for research purposes only", True),
        ("License: MIT", False),
        ("License: BSD, see the file LICENSE", False),
        ("__license__ = 'MIT'", False),
        ("Licensed under either of Apache-2.0 or MIT", False),
        ("@license MIT https://opensource.org/licenses/MIT", False),
        ("for any purpose, commercial or non-commercial, and by any means", False),
        ("Dual licensed under the MIT or GPL Version 2 licenses", False),
        ("Dual licensed under the MIT and GPLv2.", False),
        ("GPL or MIT", False),
        ("Licensed under the GPL\n# Contains jQuery UI, dual licensed under the MIT and GPL licenses.", True),
        ("free software under the GPL v3. It includes code dual-licensed under BSD or GPL.", True),
        ("Licensed under GPL v2.\n * Sizzle is dual licensed under the MIT and BSD licenses.", True),
        ("License: GPL-3.0\n * bundles foo, dual-licensed MIT/Apache", True),
        ("Dual licensed under the MIT and GPL licenses: http://www.gnu.org/licenses/gpl.html", False),
        ("License: MIT/GPL", False),
        ("gpl = read(licenses)", False),
        ("Reads the sensor MPL3115A2", False),
        ("Licensed under the Apache License, Version 2.0", False),
        ("Reads GPLs", False),
    ],
)
def test_words_in_a_header_name_another_licence(said: str, foreign: bool) -> None:
    assert licences.foreign_header(f"# {said}\nimport os\n") is foreign


def test_expressions() -> None:
    assert licences.allowed("Apache-2.0 AND MIT")
    assert licences.allowed("MIT OR GPL-3.0") and licences.allowed("MIT AND (GPL-3.0 OR Zlib)")
    assert not licences.allowed("MIT AND GPL-3.0 OR GPL-2.0") and not licences.allowed("MIT WITH a-condition")
    assert licences.allowed("X OR MIT", ["X"]) and not licences.allowed("MIT", ["X"])
    assert not licences.allowed("")
