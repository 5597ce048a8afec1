"""Pairs that a language model writes: a server on loopback speaks the protocol, with every fault a real one has."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embedcode.data import pairs, synthesize
from embedcode.data.synthesize import Bounds, Writer, made
from embedcode.engine import endpoint
from embedcode.errors import ModelError, UsageError
from embedcode.types import Pair, digest

LittleDisk = Callable[[int], AbstractContextManager[None]]
TOPICS = [
    "files",
    "sockets",
    "queues",
    "matrices",
    "users",
    "colours",
    "dates",
    "prices",
    "trees",
    "routes",
    "events",
    "images",
]
PAIRS = [
    Pair(
        f"said {topic}", (f"def handle_{topic}(x):\n    return x.{topic}\n",), (), "docstring", "python", "pkg 1", "MIT"
    )
    for topic in TOPICS
]


def completion(
    text: str | None, finish: str = "stop", usage: tuple[int, int] = (100, 10)
) -> tuple[int, dict[str, str], bytes]:
    value = {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]},
    }
    return 200, {}, json.dumps(value).encode()


def topic(asked: Any) -> str:
    said = asked.body["messages"][0]["content"]
    return next(word for word in TOPICS if f"handle_{word}" in said or f"said {word}" in said)


def good(asked: Any) -> tuple[int, dict[str, str], bytes]:
    return completion(f"How can I get at the {topic(asked)} of some object?")


@pytest.fixture
def server(serve: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("EMBEDCODE_API_KEY", "secret\n")
    return serve("openai", answer=good)


def writer(server: Any) -> Writer:
    return Writer(f"{server.url}/v1#tiny")


def test_a_question_for_each_code(server: Any, tmp_path: Path) -> None:
    out = tmp_path / "q.jsonl"
    spent, complete = synthesize.synthesize("question", PAIRS, writer(server), out)
    assert complete and spent.answers == len(PAIRS) and dict(spent.outcomes) == {"taken": len(PAIRS)}
    assert (spent.tokens_in, spent.tokens_out) == (1200, 120)
    found = list(pairs.read(out))
    assert [pair.positives for pair in found] == [pair.positives for pair in PAIRS]
    assert found[0] == Pair(
        "How can I get at the files of some object?",
        PAIRS[0].positives,
        (),
        "synthetic-question",
        "python",
        "pkg 1",
        "MIT",
    )
    asked = server.asked[0]
    assert asked.path == "/v1/chat/completions" and asked.body["model"] == "tiny"
    assert asked.headers["Authorization"] == "Bearer secret"


def test_pairs_of_one_text_are_asked_for_once_and_all_kept(server: Any, tmp_path: Path) -> None:
    """An issue has a pair with its functions and one with its chunks, and may have several commits."""
    server.answer = lambda asked: completion(
        "The files of an object are missing once it has been closed and opened again by a second user of it."
    )
    alike = [replace(PAIRS[0], positives=(f"def f{number}(): ...",)) for number in range(3)]
    out = tmp_path / "s.jsonl"
    spent, _ = synthesize.synthesize("summary", [*alike, alike[0]], writer(server), out)
    assert len(server.asked) == 1 and dict(spent.outcomes) == {"taken": 1}
    assert [pair.positives for pair in pairs.read(out)] == [pair.positives for pair in alike]


def test_a_run_that_was_ended_asks_for_the_rest_only(server: Any, tmp_path: Path) -> None:
    out = tmp_path / "q.jsonl"
    spent, complete = synthesize.synthesize("question", PAIRS, writer(server), out, Bounds(answers=5), parallel=1)
    assert (spent.answers, complete, len(server.asked)) == (5, False, 5)
    assert len(list(pairs.read(out))) == 5
    journal = out.with_name("q.jsonl.journal")
    journal.write_bytes(journal.read_bytes()[:-20])  # killed while it wrote the last one
    spent, complete = synthesize.synthesize("question", PAIRS, writer(server), out)
    assert (spent.answers, complete, len(server.asked)) == (12, True, 5 + 8)
    assert len(list(pairs.read(out))) == 12
    synthesize.synthesize("question", PAIRS, writer(server), out)
    assert len(server.asked) == 13


@pytest.mark.parametrize(
    ("bounds", "most"),
    [
        (Bounds(answers=3), 3),
        (Bounds(tokens=800), 6),
        (Bounds(dollars=0.001, price_in=1.0, price_out=2.0), 7),
    ],
)
def test_bounds_hold_whatever_runs_in_parallel(server: Any, tmp_path: Path, bounds: Bounds, most: int) -> None:
    spent, complete = synthesize.synthesize("question", PAIRS, writer(server), tmp_path / "q.jsonl", bounds, parallel=4)
    assert not complete and 1 <= spent.answers <= most
    assert bounds.tokens is None or spent.tokens_in + spent.tokens_out <= bounds.tokens
    assert bounds.dollars is None or spent.dollars(bounds) <= bounds.dollars


def test_the_rate_is_kept(server: Any, tmp_path: Path) -> None:
    synthesize.synthesize("question", PAIRS[:5], writer(server), tmp_path / "q.jsonl", Bounds(a_minute=600), parallel=5)
    times = sorted(asked.at for asked in server.asked)
    assert times[-1] - times[0] >= 0.35


def test_faults_are_waited_out(server: Any, tmp_path: Path) -> None:
    faults = ["429", "500", "cut", "not json", "no choices"]

    def answer(asked: Any) -> Any:
        if len(server.asked) == 1 or not faults:
            return good(asked)
        match faults.pop(0):
            case "429":
                return 429, {"Retry-After": "0"}, b"slow down"
            case "500":
                return 500, {}, b"{}"
            case "cut":
                server.drop()
                return good(asked)
            case "not json":
                return 200, {}, b"<html>"
        return 200, {}, b'{"choices": []}'

    server.answer = answer
    spent, complete = synthesize.synthesize("question", PAIRS, writer(server), tmp_path / "q.jsonl", parallel=1)
    assert complete and not faults
    assert dict(spent.outcomes) == {"taken": 12}


def test_a_server_that_never_answers_well_costs_no_more_than_its_tries(server: Any, tmp_path: Path) -> None:
    server.answer = lambda asked: (200, {}, b"nonsense")
    with pytest.raises(ModelError, match="completes none of the prompts"):
        synthesize.synthesize("question", PAIRS[:2], writer(server), tmp_path / "q.jsonl", parallel=1)
    assert len(server.asked) == 2 * synthesize.ATTEMPTS


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ((400, {}, b'{"error": {"message": "The model tiny does not exist"}}'), "The model tiny does not exist"),
        ((422, {}, b'{"detail": [{"loc": ["max_tokens"], "msg": "not supported"}]}'), "max_tokens: not supported"),
        ((301, {"Location": "https://there.example/v1"}, b""), "it redirects to https://there.example/v1"),
        ((405, {}, b""), "405 Method Not Allowed"),
        ((501, {}, b""), "501 Not Implemented"),
        ((200, {}, b"<html>Welcome!</html>" * 500), "<html>Welcome!</html>"),
    ],
)
@pytest.mark.parametrize("parallel", [1, 4])
def test_a_wrong_setting_is_said_in_the_server_s_words_and_refuses_no_pair_for_good(
    server: Any, tmp_path: Path, reply: Any, said: str, parallel: int
) -> None:
    server.answer = lambda asked: reply
    out = tmp_path / "q.jsonl"
    out.write_text("of an earlier run\n")
    with pytest.raises(ModelError, match="check the address and the model, tiny") as raised:
        synthesize.synthesize("question", PAIRS, writer(server), out, parallel=parallel)
    assert said in str(raised.value) and len(str(raised.value)) < 600
    assert len(server.asked) <= (synthesize.FIRST + parallel - 1) * synthesize.ATTEMPTS
    assert out.read_text() == "of an earlier run\n"
    server.answer = good
    spent, complete = synthesize.synthesize("question", PAIRS, writer(server), out)
    assert complete and dict(spent.outcomes) == {"taken": 12}


def test_pairs_that_are_refused_after_an_earlier_run_s_success_are_refused_for_good(
    server: Any, tmp_path: Path
) -> None:
    server.answer = lambda asked: (400, {}, b"too long") if topic(asked) == "routes" else good(asked)
    synthesize.synthesize("question", PAIRS[:4], writer(server), tmp_path / "q.jsonl")
    for _ in range(2):
        routes = [pair for pair in PAIRS if "routes" in pair.query]
        spent, complete = synthesize.synthesize("question", PAIRS[:4] + routes, writer(server), tmp_path / "q.jsonl")
        assert complete and dict(spent.outcomes) == {"taken": 4, synthesize.REFUSED: 1}
    assert len(server.asked) == 5


def test_bounds_are_over_all_that_a_journal_holds(server: Any, tmp_path: Path) -> None:
    """With another input or model, `--dollars` began at nothing."""
    out, bounds = tmp_path / "q.jsonl", Bounds(answers=5)
    synthesize.synthesize("question", PAIRS[:4], writer(server), out, bounds)
    spent, complete = synthesize.synthesize("question", PAIRS[4:8], writer(server), out, bounds)
    assert (spent.answers, complete, len(server.asked)) == (5, False, 5)
    spent, complete = synthesize.synthesize("question", PAIRS, Writer(f"{server.url}/v1#large"), out, bounds)
    assert (spent.answers, complete, len(server.asked)) == (5, False, 5)


def test_another_model_is_asked_anew_and_another_address_of_the_same_is_not(server: Any, tmp_path: Path) -> None:
    out = tmp_path / "q.jsonl"
    synthesize.synthesize("question", PAIRS, writer(server), out)
    synthesize.synthesize("question", PAIRS, Writer(f"{server.url}/elsewhere/v1#tiny"), out)
    assert len(server.asked) == 12
    synthesize.synthesize("question", PAIRS, Writer(f"{server.url}/v1#large"), out)
    assert [asked.body["model"] for asked in server.asked[12:]] == ["large"] * 12


def test_answers_of_a_journal_without_models_are_not_paid_for_again(server: Any, tmp_path: Path) -> None:
    rows = [
        {"key": digest("question", synthesize.prompt("question", pair)).hex(), "reason": reason,
         "text": "" if reason else f"How can I get at the {pair.query[5:]} of it?", "tokens_in": 100, "tokens_out": 10}
        for pair, reason in zip(PAIRS, ["", "", "", synthesize.REFUSED], strict=False)
    ]  # fmt: skip
    (tmp_path / "q.jsonl.journal").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spent, _ = synthesize.synthesize("question", PAIRS[:4], writer(server), tmp_path / "q.jsonl")
    assert len(server.asked) == 1, "what a wrong setting may have refused is asked again"
    assert spent.answers == 5, "and was asked twice"


def empty_after_the_first(server: Any) -> Callable[[Any], Any]:
    """As a server that counts, and charges for, answers without a text."""
    return lambda asked: good(asked) if asked is server.asked[0] else completion(None, usage=(100, 100))


@pytest.mark.parametrize("parallel", [1, 4])
@pytest.mark.parametrize(
    "bounds", [Bounds(tokens=900), Bounds(tokens=1500), Bounds(dollars=0.0015, price_in=1.0, price_out=2.0)]
)
def test_answers_without_a_text_stay_within_the_bounds_too(
    server: Any, tmp_path: Path, bounds: Bounds, parallel: int
) -> None:
    server.answer = empty_after_the_first(server)
    out = tmp_path / "q.jsonl"
    spent, complete = synthesize.synthesize("question", PAIRS, writer(server), out, bounds, parallel=parallel)
    paid = synthesize.Spent(0, 100 * len(server.asked), 10 + 100 * (len(server.asked) - 1))
    assert not complete and len(server.asked) > 2
    assert (spent.tokens_in, spent.tokens_out) == (paid.tokens_in, paid.tokens_out)
    assert bounds.tokens is None or paid.tokens_in + paid.tokens_out <= bounds.tokens
    assert bounds.dollars is None or paid.dollars(bounds) <= bounds.dollars


@pytest.mark.parametrize("parallel", [1, 4])
def test_the_rate_is_that_of_all_tries(server: Any, tmp_path: Path, parallel: int) -> None:
    server.answer = empty_after_the_first(server)
    out, bounds = tmp_path / "q.jsonl", Bounds(a_minute=1200)
    synthesize.synthesize("question", PAIRS[:3], writer(server), out, bounds, parallel=parallel)
    times = [asked.at for asked in server.asked]
    assert len(times) == 7 and max(times) - min(times) >= 6 * 0.05 - 0.03


def test_what_is_lost_for_good_is_one_sentence_and_what_was_answered_stays(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "PATIENCE", 0.2)
    server.answer = lambda asked: good(asked) if len(server.asked) <= 4 else (503, {}, b"down")
    out = tmp_path / "q.jsonl"
    with pytest.raises(ModelError, match="is overloaded or not ready"):
        synthesize.synthesize("question", PAIRS, writer(server), out, parallel=1)
    assert len(list(pairs.read(out))) == 4
    server.answer = good
    assert synthesize.synthesize("question", PAIRS, writer(server), out)[1]
    assert len(list(pairs.read(out))) == 12


@pytest.mark.parametrize(
    ("status", "said"), [(401, "check EMBEDCODE_API_KEY"), (402, "check the account"), (404, "model")]
)
def test_access_that_is_denied_ends_the_run(server: Any, tmp_path: Path, status: int, said: str) -> None:
    server.answer = lambda asked: (status, {}, b'{"error": {"message": "no secret"}}')
    with pytest.raises(ModelError, match=said) as raised:
        synthesize.synthesize("question", PAIRS, writer(server), tmp_path / "q.jsonl", parallel=1)
    assert "secret" not in str(raised.value), "the key is never shown"


def test_an_answer_that_was_under_way_as_the_run_failed_is_kept(server: Any, tmp_path: Path) -> None:
    denied = threading.Event()

    def answer(asked: Any) -> Any:
        if topic(asked) == TOPICS[0]:
            denied.wait(10)
            time.sleep(0.2)
            return good(asked)
        denied.set()
        return 401, {}, b"{}"

    server.answer = answer
    out = tmp_path / "q.jsonl"
    with pytest.raises(ModelError, match="denies access"):
        synthesize.synthesize("question", PAIRS[:2], writer(server), out, parallel=2)
    assert [pair.positives for pair in pairs.read(out)] == [PAIRS[0].positives]


def test_answers_are_kept_as_a_run_is_interrupted(server: Any, tmp_path: Path) -> None:
    def interrupted(spent: synthesize.Spent) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "q.jsonl"
    with pytest.raises(KeyboardInterrupt):
        synthesize.synthesize("question", PAIRS, writer(server), out, parallel=4, told=interrupted)
    assert len(list(pairs.read(out))) == len(server.asked)


def test_code_that_is_no_utf8_is_asked_for_too(server: Any, tmp_path: Path) -> None:
    given = [Pair(PAIRS[0].query, (PAIRS[0].positives[0] + "# \udcff",))]
    assert synthesize.synthesize("question", given, writer(server), tmp_path / "q.jsonl")[0].outcomes == {"taken": 1}


def test_one_request_that_is_refused_costs_only_itself(server: Any, tmp_path: Path) -> None:
    server.answer = lambda asked: (400, {}, b"too long") if topic(asked) == "files" else good(asked)
    spent, complete = synthesize.synthesize("question", PAIRS, writer(server), tmp_path / "q.jsonl")
    assert complete and dict(spent.outcomes) == {"taken": 11, synthesize.REFUSED: 1}


def test_answers_that_say_the_same_are_taken_once(server: Any, tmp_path: Path) -> None:
    server.answer = lambda asked: completion("How do I read the attribute of an object?")
    spent, _ = synthesize.synthesize("question", PAIRS, writer(server), tmp_path / "q.jsonl")
    assert dict(spent.outcomes) == {"taken": 1, synthesize.DUPLICATE: 11}


def test_an_answer_that_is_cut_off_is_none(server: Any, tmp_path: Path) -> None:
    server.answer = lambda asked: completion("How can I get", finish="length")
    spent, _ = synthesize.synthesize("question", PAIRS[:1], writer(server), tmp_path / "q.jsonl")
    assert dict(spent.outcomes) == {synthesize.CUT: 1}


def test_a_full_disk_is_said_and_the_journal_keeps_what_it_has(
    server: Any, tmp_path: Path, little_disk: LittleDisk
) -> None:
    out = tmp_path / "q.jsonl"
    with little_disk(900), pytest.raises(UsageError, match="cannot be written"):
        synthesize.synthesize("question", PAIRS, writer(server), out, parallel=1)
    before = len(server.asked)
    assert synthesize.synthesize("question", PAIRS, writer(server), out)[1]
    assert len(server.asked) - before < len(PAIRS)
    assert len(list(pairs.read(out))) == 12


CODE = "def parse_header(raw):\n    return raw.split(b':', 1)\n"
LONG = "The parser fails on headers without a colon because it assumes two parts, in Parser.read of parser.py."


@pytest.mark.parametrize(
    ("kind", "answer", "result"),
    [
        ("question", 'Question: "How do I split a header at the colon?"', "How do I split a header at the colon?"),
        ("question", "How does parse_header work on raw bytes?", synthesize.LEAK),
        ("question", "Header?", synthesize.SHAPE),
        ("question", "How do I split it?\nAnd another question, too?", synthesize.SHAPE),
        ("question", "I'm sorry, but I cannot help with that request.", synthesize.DECLINED),
        ("question", "Wie teile ich eine Zeile der Kopfdaten und was ist der Rest?", "not English"),
        ("code", f"```python\n{CODE}```", CODE.rstrip()),
        ("code", CODE, CODE.rstrip()),
        ("code", f"```python\n{CODE}```\nor\n```python\n{CODE}```", synthesize.SHAPE),
        ("code", "x = 1", synthesize.SHAPE),
        ("summary", LONG, LONG),
        ("summary", "It fails.", synthesize.SHAPE),
    ],
)
def test_answers_are_checked(kind: synthesize.Kind, answer: str, result: str) -> None:
    pair, reason = made(kind, Pair("split a header", (CODE,), language="python"), answer)
    if pair is None:
        assert reason == result
    else:
        assert result == (pair.positives[0] if kind == "code" else pair.query)


def test_a_question_is_answered_by_the_code_it_was_asked_of_alone() -> None:
    pair = Pair("q", ("def first(): ...", "def second(): ..."), language="python")
    question, _ = synthesize.made("question", pair, "How is the first one of them found?")
    assert question is not None and question.positives == ("def first(): ...",)
    summary, _ = synthesize.made("summary", pair, "The first one is not found. " * 8)
    assert summary is not None and summary.positives == pair.positives, "an issue's are all its places"


def test_an_address_names_its_model() -> None:
    with pytest.raises(UsageError, match="needs the name of a model"):
        Writer("http://127.0.0.1:1")
    assert Writer("deepseek")._chat.address.model == "deepseek-chat"


def test_the_key_travels_encrypted_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCODE_API_KEY", "secret")
    with pytest.raises(UsageError, match="unencrypted") as raised:
        Writer("http://models.example:8000#tiny")
    assert "secret" not in str(raised.value)
