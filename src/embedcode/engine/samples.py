"""Samples: texts to calibrate and compare on: real code that is on every machine, of the Python standard library, and
a few of what that has none of, written for here: code of other languages, and queries.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence
from pathlib import Path

from embedcode.engine.encoder import LocalEncoder
from embedcode.types import Role, Tokens, Truncate

SIZE = 750
"""Characters: some 200 tokens of code."""

_OTHERS = """\
src/pool.go Pool.Get
func (p *Pool) Get(ctx context.Context) (*Conn, error) {
	select {
	case c := <-p.idle:
		return c, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
----
web/cart.ts
export const total = (items: readonly Item[]): number =>
  items.reduce((sum, { price, count }) => sum + price * count, 0);
----
src/lexer.rs Lexer::next
impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;
    fn next(&mut self) -> Option<Self::Item> {
        let start = self.rest.find(|c: char| !c.is_whitespace())?;
        Some(self.take(start))
    }
}
----
app/OrderService.java OrderService.cancel
@Transactional
public Order cancel(long id) throws NotFoundException {
    Order order = orders.findById(id).orElseThrow(() -> new NotFoundException(id));
    order.setState(State.CANCELLED);
    return orders.save(order);
}
----
lib/ring.c ring_push
int ring_push(struct ring *r, uint8_t byte)
{
    uint32_t next = (r->head + 1) & r->mask;
    if (next == r->tail)
        return -ENOSPC;
    r->data[r->head] = byte;
    r->head = next;
    return 0;
}
----
include/grid.hpp
template <typename T, std::size_t N>
class Grid {
 public:
  constexpr T& at(std::size_t x, std::size_t y) noexcept { return cells_[y * N + x]; }
 private:
  std::array<T, N * N> cells_{};
};
----
Api/UserController.cs UserController.Show
[HttpGet("{id:int}")]
public async Task<ActionResult<User>> Show(int id)
{
    var user = await _db.Users.FindAsync(id);
    return user is null ? NotFound() : Ok(user);
}
----
app/models/post.rb Post
class Post < ApplicationRecord
  belongs_to :author, class_name: "User"
  scope :recent, -> { where("created_at > ?", 1.week.ago) }
  def slug = title.parameterize
end
----
src/Mailer.php Mailer::send
public function send(string $to, array $data = []): bool
{
    $body = $this->view->render('mail.html', $data);
    return mail($to, $data['subject'] ?? '', $body);
}
----
db/report.sql
SELECT c.name, COUNT(*) AS orders, SUM(o.amount) AS total
FROM customers c
LEFT JOIN orders o ON o.customer_id = c.id AND o.placed_at >= DATE '2024-01-01'
GROUP BY c.name
HAVING COUNT(*) > 3
ORDER BY total DESC;
----
deploy/backup.sh
#!/usr/bin/env bash
set -euo pipefail
for db in $(psql -Atc 'select datname from pg_database'); do
  pg_dump "$db" | gzip > "/backup/${db}_$(date +%F).sql.gz"
done
----
.github/workflows/test.yml
on: [push]
jobs:
  test:
    runs-on: ubuntu-latest
    strategy:
      matrix: {node: [18, 20]}
    steps:
      - uses: actions/checkout@v4
      - run: npm ci && npm test"""
OTHERS = tuple(_OTHERS.split("\n----\n"))
QUERIES = (
    "where is a session closed when its user leaves?",
    "TypeError: 'NoneType' object is not subscriptable in parse_args",
    "retry a request with exponential backoff",
    "Parse an ISO 8601 date with a time zone and return seconds since the epoch.",
    "connection pool",
    "Uploading a file above 2 GB fails with 413 although the limit is set to 5 GB. Expected: it is accepted, as before "
    "version 3.2. The log says `client intended to send too large body`.",
    "binary search in a sorted array java",
    "def merge_sorted(a, b):",
    "How do I cancel a goroutine that waits for a channel?",
    "Löschen eines Benutzers schlägt fehl, wenn sein Name einen Umlaut enthält",
    "sql: customers without orders this year",
    "memory leak in event listeners after a component is unmounted",
)


def samples(count: int) -> list[str]:
    """Up to `count` texts of the standard library, spread evenly over its files."""
    texts = []
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text = file.read_text("utf-8", "replace")
        texts += [f"{file.name}\n{part}" for part in (text[:SIZE], text[len(text) // 2 :][:SIZE]) if part.strip()]
    return texts[:: max(1, len(texts) // count)][:count]


def tokenised(encoder: LocalEncoder, texts: Sequence[str], most: int, role: Role = Role.PASSAGE) -> list[Tokens]:
    """At most `most` tokens of each, without those that cannot be encoded."""
    entries = encoder.tokenize(texts, role, truncate=Truncate.END, max_tokens=most)
    return [entry for entry in entries if isinstance(entry, Tokens)]
