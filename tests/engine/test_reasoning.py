"""Reasoning in the engine: apart from the answer in text and limits, and closed in time."""

from __future__ import annotations

import pytest
from fakes import EOS_ID, Bench, EchoRunner, ask
from hypothesis import given, settings
from hypothesis import strategies as st

from chatstream_flask.engine.outcome import FinishReason
from chatstream_flask.engine.reasoning import Piece, Reasoning
from chatstream_flask.engine.request import GenerationRequest
from chatstream_flask.engine.sequence import Sequence
from chatstream_flask.reply_format.reasoning_tags import ReasoningTags

TAGS = ReasoningTags("<", ">")  # of one character, as every character is a token here
CLOSING = "!>"
CLOSING_IDS = tuple(map(ord, CLOSING))
STOP = FinishReason.STOP


class ScriptRunner(EchoRunner):
    """Says its script; whatever was forced on it counts as a token of the script."""

    def __init__(self, script: str) -> None:
        super().__init__()
        self.script = script

    def next_id(self, sequence: Sequence) -> int:
        said = sequence.token_ids[sequence.num_prompt :]
        return ord(self.script[len(said)]) if len(said) < len(self.script) else EOS_ID


class DraftRunner(ScriptRunner):
    """Returns up to three tokens a step, as speculation does."""

    def _new_ids(self, sequence: Sequence) -> list[int]:
        num_said = len(sequence.token_ids) - sequence.num_prompt
        num = 3 if num_said else 1  # a prefill has no drafts
        ids = [*map(ord, self.script[num_said : num_said + num])] or [EOS_ID]
        self.cached[sequence.slot] = sequence.token_ids + ids[:-1]
        return ids


def reply(
    script: str, *, runner: type[ScriptRunner] = ScriptRunner, budget: int = 100, **kwargs: object
) -> GenerationRequest:
    is_counted = bool(kwargs.pop("is_counted", False))
    prompt = str(kwargs.pop("prompt", "a"))
    opening_ids, separator_ids = (
        tuple(map(ord, str(kwargs.pop(name, "")))) for name in ("opening", "separator")
    )
    request = ask(
        prompt,
        reasoning=Reasoning(
            splitter=TAGS.make_splitter(prompt),
            closing_ids=tuple(map(ord, str(kwargs.pop("closing", CLOSING)))),
            max_tokens=budget,
            is_counted=is_counted,
            opening_ids=opening_ids,
            separator_ids=separator_ids,
        ),
        **kwargs,
    )
    bench = Bench(slots=[1], make_runner=lambda: runner(script))
    bench.submit(request)
    bench.finish_all()
    return request


def parts(request: GenerationRequest) -> tuple[str, str]:
    return request.reasoning_text, request.text


def end(request: GenerationRequest) -> FinishReason:
    assert request.outcome is not None
    return request.outcome.finish_reason


def test_reasoning_and_answer_are_apart_and_in_order() -> None:
    request = reply("<hm>yes")
    assert parts(request) == ("hm", "yes")
    assert request.read(0, 0)[0] == [Piece("hm", True), Piece("yes", False)]
    assert request.read(1, 0)[0] == [Piece("m", True), Piece("yes", False)]
    assert request.read(3, 0)[0] == [Piece("es", False)]


def test_the_outcome_tells_how_much_was_reasoning() -> None:
    outcome = reply("<hm>yes").outcome
    assert outcome is not None
    assert (outcome.completion_tokens, outcome.reasoning_tokens) == (len("<hm>yes") + 1, len("<hm>"))
    assert outcome.reasoning_sec is not None
    plain = reply("yes").outcome
    assert plain is not None
    assert (plain.reasoning_tokens, plain.reasoning_sec) == (0, None)


def test_reasoning_does_not_count_as_answer() -> None:
    request = reply("<hmhmhmhm>yes", max_new_tokens=2)
    assert (parts(request), end(request)) == (("hmhmhmhm", "ye"), FinishReason.LENGTH)


def test_reasoning_counts_where_that_is_asked_for() -> None:
    request = reply("<hmhmhmhm>yes", max_new_tokens=5, is_counted=True)
    assert (parts(request), end(request)) == (("hmhm", ""), FinishReason.LENGTH)


@pytest.mark.parametrize("runner", [ScriptRunner, DraftRunner])
def test_a_budget_closes_the_reasoning_in_the_words_of_the_model(runner: type[ScriptRunner]) -> None:
    request = reply("<hmhm..yes", runner=runner, budget=5)
    assert (parts(request), end(request)) == (("hmhm!", "yes"), STOP)


def test_without_a_budget_for_it_the_answer_begins_at_once() -> None:
    assert parts(reply("..yes", prompt="a<", budget=0)) == ("!", "yes")


def test_a_budget_that_is_not_used_up_changes_nothing() -> None:
    assert parts(reply("<hm>yes", budget=5)) == ("hm", "yes")


def test_closing_tokens_do_not_count_as_answer() -> None:
    request = reply("<h..yes", budget=2, max_new_tokens=3)
    assert (parts(request), end(request)) == (("h!", "yes"), FinishReason.LENGTH)


def test_closing_tokens_do_not_end_the_reply() -> None:
    assert parts(reply("<h..yes", budget=2, stop_ids=frozenset(CLOSING_IDS))) == ("h!", "yes")


def test_a_visitor_who_wants_the_answer_now_gets_it() -> None:
    request = ask(
        "a", reasoning=Reasoning(splitter=TAGS.make_splitter("a"), closing_ids=CLOSING_IDS, max_tokens=100)
    )
    bench = Bench(slots=[1], make_runner=lambda: ScriptRunner("<hmhmhm"))
    bench.submit(request)
    for _ in range(3):
        bench.step()
    request.answer_now()
    bench.finish_all()
    assert parts(request) == ("hmhm!", "")  # the token under way is still shown
    assert end(request) is STOP


def test_stop_strings_end_the_answer_only() -> None:
    assert parts(reply("<a.b>c.d", stop=(".",))) == ("a.b", "c")


def test_a_grammar_begins_with_the_answer() -> None:
    assert parts(reply("hm>yes", prompt="<", grammar="yes")) == ("hm", "yes")
    assert end(reply("hm>no", prompt="<", grammar="yes")) is FinishReason.ERROR


def test_a_reply_with_a_grammar_may_reason_first() -> None:
    assert parts(reply("<hm>yes", opening="<", grammar="yes")) == ("hm", "yes")
    assert parts(reply("yes", opening="<", grammar="yes")) == ("", "yes")
    assert parts(reply("<hmhm..yes", opening="<", grammar="yes", budget=5)) == ("hmhm!", "yes")
    assert end(reply("<hm>no", opening="<", grammar="yes")) is FinishReason.ERROR
    assert end(reply("<hm>yes", grammar="yes")) is FinishReason.ERROR


@pytest.mark.parametrize("runner", [ScriptRunner, DraftRunner])
def test_a_model_that_ends_within_its_reasoning_still_gives_the_answer_that_a_grammar_holds(
    runner: type[ScriptRunner],
) -> None:
    end_token = chr(EOS_ID)
    request = reply(f"hm{end_token}.yes", runner=runner, prompt="<", grammar="yes")
    assert (parts(request), end(request)) == (("hm!", "yes"), STOP)
    cut = reply(
        f"hm{end_token}.yes", runner=runner, prompt="<", grammar="yes", max_new_tokens=3, is_counted=True
    )
    assert (parts(cut), end(cut)) == (("hm!", ""), FinishReason.LENGTH)
    free = reply(f"hm{end_token}.yes", runner=runner, prompt="<")
    assert (parts(free), end(free)) == (("hm", ""), STOP)


@pytest.mark.parametrize(("prompt", "opening", "begin"), [("a", "<", "<"), ("<", "", "")])
def test_white_space_may_separate_reasoning_from_an_answer_with_a_grammar(
    prompt: str, opening: str, begin: str
) -> None:
    for separator in ("\n ", "\n", ""):
        request = reply(
            f"{begin}hm>{separator}yes", prompt=prompt, opening=opening, separator="\n ", grammar="yes"
        )
        assert (parts(request), end(request)) == (("hm", "yes"), STOP)
    wrong = reply(f"{begin}hm> yes", prompt=prompt, opening=opening, separator="\n ", grammar="yes")
    assert end(wrong) is FinishReason.ERROR


def test_the_words_that_close_the_reasoning_may_end_in_what_the_grammar_does_not_allow() -> None:
    request = reply("hmhm...yes", prompt="<", grammar="yes", budget=4, closing="!>\n")
    assert (parts(request), end(request)) == (("hmhm!", "yes"), STOP)


def test_log_probabilities_are_those_of_the_answer() -> None:
    request = reply("<hm>yes", num_logprobs=0)
    assert "".join(chr(entry.token_id) for entry in request.token_logprobs(0)) == "yes"


@settings(deadline=None)
@given(script=st.text("ab<>", max_size=30), budget=st.integers(0, 8), max_new_tokens=st.integers(1, 8))
def test_a_reply_never_has_more_tokens_than_it_was_given_room_for(
    script: str, budget: int, max_new_tokens: int
) -> None:
    for is_counted in (False, True):
        replies = [
            reply(script, runner=runner, budget=budget, max_new_tokens=max_new_tokens, is_counted=is_counted)
            for runner in (ScriptRunner, DraftRunner)
        ]
        for request in replies:
            assert end(request) in (STOP, FinishReason.LENGTH)
            assert request.num_generated <= request.max_generated
        assert parts(replies[0]) == parts(replies[1])
