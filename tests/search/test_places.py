"""Which file a path is that somebody wrote, perhaps on another machine."""

from __future__ import annotations

import pytest

from embedcode.search.places import ends


@pytest.mark.parametrize(
    ("path", "repo", "typed"),
    [
        ("src/click/core.py", "click", "src/click/core.py"),
        ("src/click/core.py", "click", "./core.py"),
        ("src/click/core.py", "click", "src/click/"),
        ("src/click/core.py", "click", "/usr/lib/site-packages/click/core.py"),
        ("libs/core/src/core/a.py", "r", "/usr/lib/site-packages/core/a.py"),
        ("click/src/click/core.py", "click", "C:\\lib\\site-packages\\click\\core.py"),
        ("sqlalchemy/lib/sqlalchemy/orm/query.py", "sqlalchemy", "/x/site-packages/sqlalchemy/orm/query.py"),
        ("backend/shop/cart.py", "backend", "/app/shop/cart.py"),
        ("external/foo/pkg/x.py", "foo", "/build/pkg/x.py"),
        ("third_party/foo/src/foo/pkg/x.py", "foo", "/usr/lib/site-packages/foo/pkg/x.py"),
        ("context.go", "gin", "/go/pkg/mod/github.com/gin-gonic/gin@v1.9.1/context.go"),
        ("gin/context.go", "gin", "/go/pkg/mod/github.com/gin-gonic/gin@v1.9.1/context.go"),
        ("grape/lib/grape/api.rb", "grape", "/gems/grape-2.0.0/lib/grape/api.rb"),
        ("gin/render/json.go", "gin", "//github.com/gin-gonic/gin/blob/master/render/json.go"),
        ("gin/render/json.go", "gin", "//gitlab.com/gin-gonic/gin/-/blob/v1.2/render/json.go"),
        ("vendor/a-1.2/b.c", "r", "/home/me/vendor/a-1.2/b.c"),
    ],
)
def test_a_path_of_another_machine(path: str, repo: str, typed: str) -> None:
    assert ends(path, repo, typed)


@pytest.mark.parametrize(
    ("path", "repo", "typed"),
    [
        ("src/click/core.py", "click", "/usr/lib/site-packages/attr/core.py"),
        ("src/click/sub/core.py", "click", "/usr/lib/site-packages/attr/sub/core.py"),
        ("external/foobar/pkg/x.py", "foo", "/build/pkg/x.py"),
        ("src/core.py", "click", "/usr/lib/site-packages/attr/core.py"),
        ("requests/api.py", "requests", "/home/me/project/api.py"),
        ("app/lib/utils/index.js", "web", "node_modules/x/utils/index.js"),
        ("src/click/core.py", "click", "score.py"),
        ("src/click/core.py", "click", "click"),
        ("src/click/core.py", "click", "/"),
    ],
)
def test_another_file(path: str, repo: str, typed: str) -> None:
    assert not ends(path, repo, typed)
