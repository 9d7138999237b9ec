"""Text decoders against decode() of all ids at once, with tokenizers trained here."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import ByT5Tokenizer, GPTNeoXJapaneseTokenizer, PreTrainedTokenizerFast

from chatstream_flask.inference.text_decoder import MAX_WINDOW, WindowDecoder, make_text_decoder

SPECIAL = ["<s>", "</s>", "<unk>"]
TEXTS = [
    "今日はいい天気ですね。東京タワーへ行きましょう。",
    "The quick brown fox, it's said, doesn't jump.  Two spaces!",
    "家族👨‍👩‍👧‍👦と旗🇯🇵と🎉🎊、 ひらがなカタカナ漢字。\n\n次の行",
]
fast: Any = PreTrainedTokenizerFast
japanese: Any = GPTNeoXJapaneseTokenizer
Ids = st.lists(st.integers(0, 10_000), max_size=60)


def byte_level() -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return train(
        tokenizer, trainers.BpeTrainer(vocab_size=330, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )


def llama_style() -> Any:
    """Make a tokenizer with metaspace and byte fallback: every byte is a token, few characters are."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained.train_from_iterator(TEXTS[:2], trainers.BpeTrainer(vocab_size=90, special_tokens=SPECIAL))
    model = json.loads(trained.to_str())["model"]
    vocab = model["vocab"] | {f"<0x{byte:02X}>": len(model["vocab"]) + byte for byte in range(256)}
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = trained.normalizer
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return fast(tokenizer_object=tokenizer, eos_token="</s>")


def unigram() -> Any:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return train(
        tokenizer, trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>")
    )


def word_piece() -> Any:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return train(tokenizer, trainers.WordPieceTrainer(vocab_size=150, special_tokens=SPECIAL))


def train(tokenizer: Any, trainer: Any) -> Any:
    tokenizer.train_from_iterator(TEXTS, trainer)
    return fast(tokenizer_object=tokenizer, eos_token="</s>")


MAKERS = {maker.__name__: functools.cache(maker) for maker in (byte_level, llama_style, unigram, word_piece)}
# Pure Python; it drops invalid bytes, which others replace by U+FFFD.
MAKERS["byt5"] = functools.cache(ByT5Tokenizer)
kinds = pytest.mark.parametrize("kind", MAKERS)


def streamed(tokenizer: Any, ids: list[int], *, skip: bool = True) -> str:
    decoder = make_text_decoder(tokenizer, skip_special_tokens=skip)
    return "".join([decoder.push(token_id) for token_id in ids]) + decoder.finish()


def at_once(tokenizer: Any, ids: list[int], *, skip: bool = True) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
    return text


def without_cut(text: str) -> str:
    """Return the text without the marks of a character that is not finished at its end."""
    bare = text.rstrip("\ufffd")
    return bare if len(text) - len(bare) <= 3 else text


@kinds
@given(text=st.text(st.sampled_from("".join(TEXTS) + "é\t "), max_size=60), cut=st.integers(0, 5))
@example(text="\ufffdら\ufffda", cut=0)  # U+FFFD itself may be in a text
@settings(deadline=None, max_examples=60)
def test_the_pieces_of_a_text_equal_decode(kind: str, text: str, cut: int) -> None:
    """Also if the ids end in the middle of a character."""
    tokenizer = MAKERS[kind]()
    ids = tokenizer.encode(text, add_special_tokens=False)
    ids = ids[: len(ids) - cut]
    expected = at_once(tokenizer, ids)
    if kind == "llama_style" and expected.endswith("\ufffd"):  # decode() drops the whole run of bytes
        assert streamed(tokenizer, ids).rstrip("\ufffd").startswith(expected.rstrip("\ufffd"))
    else:
        assert without_cut(streamed(tokenizer, ids)) == without_cut(expected)


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind != "llama_style"])
@given(ids=Ids, skip=st.booleans())
@settings(deadline=None, max_examples=150)
def test_the_pieces_of_any_ids_equal_decode(kind: str, ids: list[int], skip: bool) -> None:
    """With and without special tokens."""
    tokenizer = MAKERS[kind]()
    ids = [token_id % len(tokenizer) for token_id in ids]
    text, expected = streamed(tokenizer, ids, skip=skip), at_once(tokenizer, ids, skip=skip)
    assert text == expected or text.rstrip("\ufffd") == expected.rstrip("\ufffd")


@given(ids=Ids)
@settings(deadline=None, max_examples=150)
def test_invalid_bytes_of_byte_fallback_change_only_replacement_characters(ids: list[int]) -> None:
    """decode() replaces a whole run of bytes if one is invalid; text returned before that stays."""
    tokenizer = MAKERS["llama_style"]()
    ids = [token_id % len(tokenizer) for token_id in ids]
    rest = iter(streamed(tokenizer, ids))
    assert all(char in rest for char in at_once(tokenizer, ids) if char != "\ufffd")


def test_a_reply_continues_where_decode_stream_fails() -> None:
    tokenizer = MAKERS["llama_style"]()
    ids = tokenizer.convert_tokens_to_ids(["<0xE3>", "<0x81>", "<0x82>", "<0xFF>", "▁", "o"])
    stream = decoders.DecodeStream(skip_special_tokens=True)
    with pytest.raises(Exception, match="Invalid prefix"):
        [stream.step(tokenizer.backend_tokenizer, token_id) for token_id in ids]
    assert at_once(tokenizer, ids) == "\ufffd" * 4 + " o"
    assert streamed(tokenizer, ids) == "あ\ufffd o"


@pytest.mark.parametrize("kind", ["byte_level", "llama_style"])
def test_invalid_bytes_and_special_tokens_do_not_slow_decoding_down(kind: str) -> None:
    tokenizer = MAKERS[kind]()
    longest = 0

    def decode(ids: list[int], *, skip_special_tokens: bool) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        text: str = tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        return text

    wrong = tokenizer.convert_tokens_to_ids("<0xFF>" if kind == "llama_style" else "ÿ")
    decoder = WindowDecoder(decode)
    text = "".join([decoder.push(i) for i in [wrong] * 200 + [tokenizer.eos_token_id] * 200])
    assert text + decoder.finish() == "\ufffd" * 200
    assert longest == MAX_WINDOW + 1


def test_a_japanese_tokenizer_without_rust(tmp_path: Path) -> None:
    """It strips decoded text, so white space is returned once something follows it."""
    words = ["今日", "は", "晴れ", "<SP>", "<BR>", "<|emoji1|>", *SPECIAL, "<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    emoji = {"emoji": {"😀": "<|emoji1|>"}, "emoji_inv": {"<|emoji1|>": "😀"}}
    (tmp_path / "emoji.json").write_text(json.dumps(emoji), encoding="utf-8")
    tokenizer = japanese(str(tmp_path / "vocab.txt"), str(tmp_path / "emoji.json"))
    ids = [0, 1] + [3] * 20 + [4, 2, 10, 5, 3, 0, 4]
    assert streamed(tokenizer, ids) == at_once(tokenizer, ids) == "今日は" + " " * 20 + "\n晴れ😀 今日"


def test_a_character_that_is_cut_is_left_out() -> None:
    for kind in ("byte_level", "llama_style"):
        tokenizer = MAKERS[kind]()
        ids = tokenizer.encode("Hi 👨", add_special_tokens=False)
        assert [streamed(tokenizer, ids[:-n]).strip() for n in (1, 2, 3)] == ["Hi"] * 3


def test_the_first_word_of_a_continued_text_keeps_its_space() -> None:
    tokenizer = MAKERS["llama_style"]()
    ids = tokenizer.encode("fox jumps", add_special_tokens=False)
    decoder = make_text_decoder(tokenizer, follows_text=True)
    assert "".join([decoder.push(i) for i in ids]) + decoder.finish() == " fox jumps"
    assert streamed(tokenizer, ids) == "fox jumps"


def test_unknown_ids_do_not_slow_decoding_down() -> None:
    tokenizer = MAKERS["byte_level"]()
    decoder: Any = make_text_decoder(tokenizer)
    unknown, (known,) = len(tokenizer) + 5, tokenizer.encode("H", add_special_tokens=False)
    assert "".join(decoder.push(i) for i in [known] + [unknown] * 200) == "H"
    assert len(decoder._ids) <= MAX_WINDOW
    assert decoder.push(known) + decoder.finish() == "H"
