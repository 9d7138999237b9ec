"""Times the list and the search of one owner's conversations: `scripts/bench_conversations.py URL [NUMBER]`.

URL is that of an empty database, such as sqlite:////tmp/lists.db or postgresql://user@host/name; it is
filled with NUMBER (10,000) conversations of 5 turns of about 100 words, as frequent as those of a language.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate

from chatstream_flask.conversation import Conversation
from chatstream_flask.conversation.sql_store import SQLStore
from chatstream_flask.prompts import AbstractChatPrompt

NUM_TURNS, NUM_WORDS, NUM_DIFFERENT = 5, 100, 20_000
REPEATS = 20
OWNER, OTHER = "lucy", "bob"
SYLLABLES = ["ka", "ri", "to", "men", "sul", "va", "ne", "pol", "du", "shi"]
WORDS = ["".join(SYLLABLES[int(digit)] for digit in str(n)) for n in range(10, 10 + NUM_DIFFERENT)]
WEIGHTS = list(accumulate(1 / rank for rank in range(1, NUM_DIFFERENT + 1)))  # Zipf's law


def fill(store: SQLStore, owner: str, number: int) -> None:
    for i in range(number):
        prompt = AbstractChatPrompt()
        for _ in range(NUM_TURNS):
            words = random.choices(WORDS, cum_weights=WEIGHTS, k=NUM_WORDS)
            prompt.add_requester_msg(
                " ".join(words[: NUM_WORDS // 4]) + (" 東京の天気" if i % 10 == 0 else "")
            )
            prompt.add_responder_msg(" ".join(words[NUM_WORDS // 4 :]))
        conversation_id = f"{owner}-{i}"
        lease = store.hold(conversation_id)
        lease.save(Conversation(prompt).to_record())
        lease.close()
        store.index.keep_turn(owner, conversation_id, prompt, is_appended=False)


def timed(name: str, work: Callable[[], Sequence[object]]) -> None:
    num_found, times = 0, []
    for _ in range(REPEATS):
        began = time.perf_counter()
        num_found = len(work())
        times.append(1000 * (time.perf_counter() - began))
    median = statistics.median(times)
    print(f"{name:34} {num_found:5} found, median {median:6.1f} ms, worst {max(times):6.1f} ms")


def main(url: str, number: int = 10_000) -> None:
    random.seed(1)
    store = SQLStore(url, ttl_sec=1e6, is_synced=False)
    store.create_or_migrate()
    began = time.perf_counter()
    fill(store, OWNER, number)
    fill(store, OTHER, number // 10)
    took = time.perf_counter() - began
    print(f"{number} conversations, and {number // 10} of another owner: filled in {took:.0f} s")
    index = store.index
    timed("list: the first 50", partial(index.entries, OWNER, 51))
    timed("list: the last 50", partial(index.entries, OWNER, 51, number - 50))
    searches = {
        "the most frequent word": WORDS[0],
        "a frequent word": WORDS[20],
        "a rare word": WORDS[5000],
        "the rarest word": WORDS[-1],
        "two letters": WORDS[0][:2],
        "three words": " ".join(WORDS[i] for i in (1, 30, 200)),
        "Japanese": "京の天",
        "nothing": "qqq",
    }
    for name, words in searches.items():
        timed(f"search: {name}", partial(index.search, OWNER, words, 51))
    store.close()


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    main(sys.argv[1], *map(int, sys.argv[2:]))
