"""The next turn of a conversation reuses the keys and values of the previous one, and only its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fakes import Bench, EchoRunner, ask
from flask_fakes import PlainPrompt, ScriptedRunner, read_events, running_chat, say
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import IdsAsText, TinyTokenizer, make_prompt, tiny_model

from chatstream_flask.config import EngineConfig
from chatstream_flask.engine.outcome import FinishReason, Outcome
from chatstream_flask.engine.prefix_cache import MIN_REUSED_LEN, common_prefix_len
from chatstream_flask.engine.request import GenerationRequest
from chatstream_flask.errors import ConfigError
from chatstream_flask.inference.model_runner import ModelRunner
from chatstream_flask.inference.prepared_model import PreparedModel

SYSTEM = "You are a kind and patient assistant."
MINE = "My name is Hanako, and this is my own conversation."


def outcome(request: GenerationRequest) -> Outcome:
    assert request.outcome is not None
    return request.outcome


def run(
    bench: Bench, prompt: str, owner: str | None, num_shared: int = 0, **kwargs: Any
) -> GenerationRequest:
    request = ask(prompt, cache_owner=owner, num_shared=num_shared, **kwargs)
    bench.submit(request)
    bench.finish_all()
    return request


@given(
    st.lists(st.integers(0, 1), max_size=40), st.lists(st.integers(0, 1), max_size=40), st.integers(-1, 50)
)
def test_common_prefix(a: list[int], b: list[int], most: int) -> None:
    expected = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert common_prefix_len(a, b, most) == max(min(expected, most), 0)


# -- which prefix is reused --------------------------------------------------------------------------


def test_the_next_turn_computes_only_what_is_new() -> None:
    bench = Bench(slots=[2])
    first = run(bench, MINE, "hanako")
    second = run(bench, MINE + first.text + " And now?", "hanako")
    runner = bench.workers[0].runner
    assert isinstance(runner, EchoRunner)
    assert second.text == MINE + first.text + " And now?"
    assert outcome(first).cached_tokens == 0
    assert outcome(second).cached_tokens == len(MINE + first.text) == 2 * len(MINE)
    assert runner.chunks == [len(MINE), len(" And now?")]
    assert bench.workers[0].stats.num_reused == 2 * len(MINE)


def test_the_same_prompt_again_still_computes_its_last_token() -> None:
    bench = Bench(slots=[1])
    run(bench, MINE, "hanako")
    assert outcome(run(bench, MINE, "hanako")).cached_tokens == len(MINE) - 1


@pytest.mark.parametrize("owner", ["taro", None])
def test_no_other_conversation_reuses_a_private_prefix(owner: str | None) -> None:
    bench = Bench(slots=[2])
    run(bench, MINE, "hanako")
    assert outcome(run(bench, MINE, owner)).cached_tokens == 0


def test_requests_without_an_owner_cache_nothing() -> None:
    bench = Bench(slots=[2])
    run(bench, MINE, None)
    assert outcome(run(bench, MINE, None)).cached_tokens == 0


@pytest.mark.parametrize("is_running", [True, False])
def test_the_system_prompt_is_shared_by_all(is_running: bool) -> None:
    bench = Bench(slots=[2])
    first = ask(SYSTEM + MINE, cache_owner="hanako", num_shared=len(SYSTEM))
    bench.submit(first)
    bench.step()
    if not is_running:
        bench.finish_all()
    prompt = SYSTEM + MINE.replace("Hanako", "Hanae")  # the common prefix is longer than the system text
    second = run(bench, prompt, "hanae", len(SYSTEM))
    assert outcome(second).cached_tokens == len(SYSTEM)
    assert second.text == prompt
    assert first.text == SYSTEM + MINE


def test_a_short_prefix_is_computed_again() -> None:
    bench = Bench(slots=[1])
    run(bench, "x" * (MIN_REUSED_LEN - 1) + "a", "hanako")
    assert outcome(run(bench, "x" * (MIN_REUSED_LEN - 1) + "b", "hanako")).cached_tokens == 0
    run(bench, "x" * MIN_REUSED_LEN + "a", "hanako")
    assert outcome(run(bench, "x" * MIN_REUSED_LEN + "b", "hanako")).cached_tokens == MIN_REUSED_LEN


def test_the_least_recently_used_prefix_is_evicted_first() -> None:
    bench = Bench(slots=[1], num_kept_slots=3)
    for owner in ("a", "b", "c"):
        run(bench, owner + MINE, owner)
    assert outcome(run(bench, "a" + MINE, "a")).cached_tokens == len(MINE)
    run(bench, "d" + MINE, "d")  # in place of b
    assert outcome(run(bench, "b" + MINE, "b")).cached_tokens == 0  # in place of c
    assert [outcome(run(bench, owner + MINE, owner)).cached_tokens for owner in ("a", "d", "b")] == [
        len(MINE)
    ] * 3


def test_nothing_is_reused_after_a_fault() -> None:
    class Broken(EchoRunner):
        is_broken = False

        def decode(self, sequences: Any) -> list[list[int]]:
            if self.is_broken:
                raise RuntimeError("no")
            return super().decode(sequences)

    bench = Bench(slots=[2], make_runner=Broken)
    run(bench, MINE, "hanako")
    runner = bench.workers[0].runner
    assert isinstance(runner, Broken)
    runner.is_broken = True
    bench.submit(ask("x", cache_owner="taro"))
    bench.workers[0].admit()
    bench.workers[0]._step_safely()
    runner.is_broken = False
    assert outcome(run(bench, MINE, "hanako")).cached_tokens == 0


def step_all(bench: Bench) -> None:
    for worker in bench.workers:
        worker.admit()
        worker.step()


def test_a_conversation_goes_back_to_its_thread() -> None:
    bench = Bench(slots=[2, 2])
    for owner in ("a", "b", "a", "b", "b", "a"):
        request = run(bench, owner + MINE, owner)
    assert outcome(request).cached_tokens == len(MINE)
    home = bench.queue._dispatcher._last_workers["a"]
    others = [ask("x" * 500) for _ in range(4)]
    bench.submit(*others)
    while bench.queue.num_waiting:
        step_all(bench)
    other = bench.workers[1 - home]  # only this worker will have a free slot, so the conversation moves
    other.scheduler.running[0].request.request_stop(FinishReason.CANCELLED)
    other.step()
    again = ask("a" + MINE, cache_owner="a")
    bench.submit(again)
    while bench.queue.num_waiting:
        step_all(bench)
    assert again in [sequence.request for sequence in other.scheduler.running]
    assert bench.queue._dispatcher._last_workers["a"] == other.index
    bench.finish_all()


# -- faults ------------------------------------------------------------------------------------------

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from(["a", "b", "c", None]), st.text("xyz", max_size=30)),
        st.tuples(st.just("step"), st.integers(1, 40), st.just("")),
        st.tuples(st.just("cancel"), st.integers(0, 5), st.just("")),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ACTIONS, st.integers(1, 3), st.integers(0, 3))
def test_replies_equal_those_without_a_prefix_cache(
    actions: list[tuple[str, Any, str]], num_slots: int, num_more: int
) -> None:
    """EchoRunner fails if a token is computed without its predecessors in the slot."""
    bench = Bench(slots=[num_slots], chunk_len=7, num_waiting=100, num_kept_slots=num_slots + num_more)
    system = 2 * SYSTEM  # long enough that requests wait while another one computes it
    said = {owner: system for owner in ("a", "b", "c", None)}
    requests: list[GenerationRequest] = []
    for action, argument, text in actions:
        if action == "say":
            said[argument] += text + "!"
            request = ask(said[argument], cache_owner=argument, num_shared=len(system), max_new_tokens=25)
            bench.submit(request)
            requests.append(request)
        elif action == "step":
            for _ in range(argument):
                bench.step()
        elif requests:
            bench.cancel(requests[argument % len(requests)])
    bench.finish_all()
    for request in requests:
        prompt = "".join(map(chr, request.prompt_ids))
        assert prompt.startswith(request.text)
        assert outcome(request).is_success is (request.text == prompt[:25])
        assert outcome(request).cached_tokens <= len(prompt) - 1
        if request.cache_owner is None:
            assert outcome(request).cached_tokens <= len(system)


# -- a model -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma3_text", "deepseek_v3", "gpt2"])
def test_greedy_replies_of_a_conversation_equal_those_of_a_fresh_prefill(kind: str) -> None:
    """Three conversations take turns, each sending its whole history, on two slots and a spare one."""
    model = tiny_model(kind)

    def make_runner() -> ModelRunner:
        runner = IdsAsText(PreparedModel(model, 250), TinyTokenizer(), num_slots=3)
        runner.open()
        return runner

    system = make_prompt(20)
    bench = Bench(slots=[2], chunk_len=16, num_kept_slots=3, make_runner=make_runner)
    fresh = Bench(slots=[1], make_runner=make_runner)
    said = {owner: "".join(map(chr, system)) for owner in "abc"}
    reused = []
    for turn in range(4):
        requests = []
        for number, owner in enumerate(said):
            said[owner] += "".join(map(chr, make_prompt(5 + number, turn)))
            requests.append(
                ask(said[owner], cache_owner=owner, num_shared=20, temperature=0.0, max_new_tokens=20)
            )
        bench.submit(*requests)
        bench.finish_all()
        for owner, request in zip(said, requests, strict=True):
            expected = run(fresh, said[owner], None, temperature=0.0, max_new_tokens=20)
            assert outcome(expected).cached_tokens == 0
            assert request.text == expected.text
            said[owner] += request.text
            reused.append(outcome(request).cached_tokens)
    assert reused[:3] == [0, 16, len(system)]  # the second one began when the first had one chunk
    assert sum(length > len(system) for length in reused) >= 6


# -- over HTTP ---------------------------------------------------------------------------------------


class HelpfulPrompt(PlainPrompt):
    def build_initial_prompt(self, chat_prompt: Any) -> None:
        chat_prompt.add_requester_msg("be kind to everybody")
        chat_prompt.add_responder_msg("as you say")


def cached_tokens(response: Any) -> int:
    done = list(read_events(response))[-1]
    assert done.name == "done"
    number: int = done.data["usage"]["cached_tokens"]
    return number


def test_clients_are_told_how_much_was_reused(tmp_path: Path) -> None:
    runner = ScriptedRunner()
    with running_chat(tmp_path, runner, chat_prompt_clazz=HelpfulPrompt) as chat:
        client, other = chat.client(), chat.client()
        shared = len("U:be kind to everybody|A:as you say|U:")
        assert cached_tokens(say(client, "my secret is 7")) == 0
        assert cached_tokens(say(other, "my secret is 8")) == shared
        first = len("U:be kind to everybody|A:as you say|U:my secret is 7|A:ok")
        assert cached_tokens(say(client, "what is it?")) == first
        assert runner.prompts[-1].endswith("|U:my secret is 7|A:ok|U:what is it?|A:")


def test_kv_cache_slots() -> None:
    config = EngineConfig(max_running=3, num_of_generation_threads=2, kv_cache_slots=8)
    assert [config.num_kept_slots(i) for i in (0, 1)] == [4, 4]
    assert [EngineConfig(max_running=3).num_kept_slots(0)] == [3]
    with pytest.raises(ConfigError, match="kv_cache_slots must be between 3 and 65536, not 2"):
        EngineConfig(max_running=3, kv_cache_slots=2)
