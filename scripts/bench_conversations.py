"""Times the list and the search of one owner's conversations: `scripts/bench_conversations.py URL [NUMBER]`.

URL is that of a database for this purpose, such as sqlite:////tmp/lists.db or postgresql://user@host/name.
The first time it is filled with NUMBER (10,000) conversations of 5 turns of 100 words, as frequent as those
of a language.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate

from sqlalchemy import insert

from chatstream_flask.conversation.sql_schema import conversations, now
from chatstream_flask.conversation.sql_store import SQLStore

NUM_TURNS, NUM_WORDS, NUM_DIFFERENT = 5, 100, 20_000
REPEATS = 20
OWNER, OTHER = "lucy", "bob"
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
WORDS = [a + b + c for a in SYLLABLES for b in SYLLABLES for c in ("", "n", "s", "ta", "li")][:NUM_DIFFERENT]
random.Random(1).shuffle(WORDS)
WEIGHTS = list(accumulate(1 / rank for rank in range(1, NUM_DIFFERENT + 1)))  # Zipf's law


def fill(store: SQLStore, owner: str, number: int) -> None:
    """Write rows as turns and their lists write them, in one transaction."""
    database, search = store._database, store.index._search
    with database.transaction() as connection:
        for i in range(number):
            conversation_id, title = f"{owner}-{i}", f"Conversation {i}"
            times = {
                "created_at": now(),
                "updated_at": now() - number + i,
                "expires_at": now() + store.ttl_sec,
            }
            times["expires_at"] = now() + store.ttl_sec
            row = {"id": conversation_id, "owner": owner, "title": title, **times}
            connection.execute(insert(conversations).values(**row))
            search.set_title(connection, owner, conversation_id, title)
            turns = [random.choices(WORDS, cum_weights=WEIGHTS, k=NUM_WORDS) for _ in range(NUM_TURNS)]
            texts = [" ".join([*turn, *["東京の天気"] * (i % 10 == 0)]) for turn in turns]
            search.add_turns(connection, owner, conversation_id, texts)


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
    index = store.index
    if not index.entries(OWNER):
        began = time.perf_counter()
        fill(store, OWNER, number)
        fill(store, OTHER, number // 10)
        took = time.perf_counter() - began
        print(f"{number} conversations, and {number // 10} of another owner: filled in {took:.0f} s")
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
