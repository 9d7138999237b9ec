"""Prompts of families of models, compared with literal texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from transformers import ByT5Tokenizer

import chatstream_flask.prompts.presets as presets
from chatstream_flask.errors import BadRequest, ConfigError
from chatstream_flask.prompts import TextPrompt

JA_INPUT = (
    "以下は、タスクを説明する指示と、文脈のある入力の組み合わせです。要求を適切に満たす応答を書きなさい。"
)
JA = "以下は、タスクを説明する指示です。要求を適切に満たす応答を書きなさい。"
DOLLY = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)
MPT = (
    "<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. "
    "The assistant gives helpful and honest answers.<|im_end|>\n"
)


@dataclass
class Case:
    clazz: type[TextPrompt]
    one: str  # "Hi {x}" asked
    two: str  # " Yes.\n" replied, "More" asked
    kind: str  # "Hi {x}" asked, with the system text "Be kind."
    stop: list[str]


CASES = [
    Case(
        presets.ChatPromptTogetherRedPajamaINCITEChat,
        "<human>: Hi {x}\n<bot>:",
        "<human>: Hi {x}\n<bot>: Yes.\n<human>: More\n<bot>:",
        "Be kind.\n\n<human>: Hi {x}\n<bot>:",
        ["<|endoftext|>", "<human>:"],
    ),
    Case(
        presets.ChatPromptRinnaJapaneseGPTNeoxInst,
        "ユーザー: Hi {x}<NL>システム: ",
        "ユーザー: Hi {x}<NL>システム: Yes.<NL>ユーザー: More<NL>システム: ",
        "Be kind.<NL>ユーザー: Hi {x}<NL>システム: ",
        [],
    ),
    Case(
        presets.ChatPromptCyberAgentOpenCalm,
        "Hi {x}",
        "Hi {x} Yes.\n\nMore",
        "Be kind.\nHi {x}",
        [],
    ),
    Case(
        presets.ChatPromptStockmarkGptNeoxJp,
        "Hi {x}",
        "Hi {x} Yes.\n\nMore",
        "Be kind.\nHi {x}",
        [],
    ),
    Case(
        presets.ChatPromptMetaLlamaLlama2Chat,
        "<s>[INST] Hi {x} [/INST]",
        "<s>[INST] Hi {x} [/INST] Yes. </s><s>[INST] More [/INST]",
        "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi {x} [/INST]",
        [],
    ),
    Case(
        presets.ChatPromptOpenlmrOpenLlama,
        "Q: Hi {x}\nA:",
        "Q: Hi {x}\nA: Yes.\nQ: More\nA:",
        "Be kind.\n\nQ: Hi {x}\nA:",
        ["\nQ:", "\nB:", "\nC:"],
    ),
    Case(
        presets.ChatPromptStabilityAiJpGptNeoxInstSft,
        f"{JA_INPUT}\n\n### 指示: \nHi {{x}}\n\n### 応答: \n",
        f"{JA_INPUT}\n\n### 指示: \nHi {{x}}\n\n### 応答: \nYes.\n\n### 指示: \nMore\n\n### 応答: \n",
        "Be kind.\n\n### 指示: \nHi {x}\n\n### 応答: \n",
        ["### 指示:"],
    ),
    Case(
        presets.ChatPromptMatsuoLabJpGptNeoxInstSft,
        f"{JA}\n\n### 指示:\nHi {{x}}\n\n### 応答:",
        f"{JA}\n\n### 指示:\nMore\n\n### 応答:",
        "Be kind.\n\n### 指示:\nHi {x}\n\n### 応答:",
        ["\nQ:", "### 指示:"],
    ),
    Case(
        presets.ChatPromptLineCorpJpLargeLmInstSft,
        "ユーザー: Hi {x}\nシステム: ",
        "ユーザー: Hi {x}\nシステム: Yes.\nユーザー: More\nシステム: ",
        "Be kind.\n\nユーザー: Hi {x}\nシステム: ",
        ["ユーザー:"],
    ),
    Case(
        presets.ChatPromptMosaicmlMptChat,
        f"{MPT}<|im_start|>user\nHi {{x}}<|im_end|>\n<|im_start|>assistant\n",
        f"{MPT}<|im_start|>user\nHi {{x}}<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n"
        "<|im_start|>user\nMore<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi {x}<|im_end|>\n<|im_start|>assistant\n",
        ["<|im_end|>"],
    ),
    Case(
        presets.ChatPromptDatabricksDolly,
        f"{DOLLY}\n\n### Instruction:\nHi {{x}}\n\n### Response:\n",
        f"{DOLLY}\n\n### Instruction:\nHi {{x}}\n\n### Response:\nYes.\n\n### End\n\n"
        "### Instruction:\nMore\n\n### Response:\n",
        "Be kind.\n\n### Instruction:\nHi {x}\n\n### Response:\n",
        ["### End", "### Instruction:"],
    ),
]
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.clazz.__name__)


def ask(prompt: TextPrompt, message: str) -> TextPrompt:
    prompt.add_requester_msg(message)
    prompt.add_responder_msg(None)
    return prompt


def test_every_family_has_a_case() -> None:
    classes = {getattr(presets, name) for name in presets.__all__}
    assert classes == {case.clazz for case in CASES}
    assert presets.ChatPromptRinnaJpGptNeoxInstSft is presets.ChatPromptRinnaJapaneseGPTNeoxInst


@each
def test_one_turn(case: Case) -> None:
    prompt = case.clazz()
    prompt.build_initial_prompt(prompt)
    assert ask(prompt, "Hi {x}").create_prompt() == case.one
    assert prompt.get_final_stop_strs() == case.stop


@each
def test_two_turns_also_when_read_from_a_store(case: Case) -> None:
    prompt = ask(case.clazz(), "Hi {x}")
    prompt.set_responder_last_msg(" Yes.\n")
    prompt = ask(case.clazz.from_dict(prompt.to_dict()), "More")
    assert prompt.create_prompt() == case.two
    assert prompt.get_final_stop_strs() == case.stop


@each
def test_a_system_text_of_ones_own(case: Case) -> None:
    prompt = case.clazz()
    prompt.set_system("Be kind.")
    assert ask(prompt, "Hi {x}").create_prompt() == case.kind


@each
def test_a_reply_made_anew_has_the_same_prompt(case: Case) -> None:
    prompt = ask(case.clazz(), "Hi {x}")
    prompt.set_responder_last_msg(" Yes.\n")
    prompt.clear_last_responder_message()
    assert prompt.create_prompt() == case.one


@each
def test_without_chat_mode_there_is_no_format(case: Case) -> None:
    prompt = ask(case.clazz(), "Hi {x}")
    prompt.set_chat_mode_enabled(False)
    assert (prompt.create_prompt(), prompt.get_final_stop_strs()) == ("Hi {x}", [])


@each
def test_the_next_prompt_begins_with_the_last_one(case: Case) -> None:
    """Check that the prompt of a turn starts with that of the turn before, so that the prefix cache works."""
    if case.clazz is not presets.ChatPromptMatsuoLabJpGptNeoxInstSft:
        assert case.two.startswith(case.one)


def test_names_can_be_changed() -> None:
    prompt = presets.ChatPromptTogetherRedPajamaINCITEChat()
    prompt.set_requester("<guest>")
    assert ask(prompt, "Hi").create_prompt() == "<guest>: Hi\n<bot>:"
    assert prompt.get_final_stop_strs() == ["<|endoftext|>", "<guest>:"]


def test_examples_and_a_greeting() -> None:
    prompt = presets.ChatPromptMetaLlamaLlama2Chat()
    prompt.set_system("Be kind.")
    prompt.add_requester_msg("hi")
    prompt.add_responder_msg("hello")
    assert ask(prompt, "a").create_prompt() == (
        "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nhi [/INST] hello </s><s>[INST] a [/INST]"
    )


def test_rinna_writes_newlines_its_own_way() -> None:
    prompt = ask(presets.ChatPromptRinnaJapaneseGPTNeoxInst(), "a\nb")
    prompt.set_responder_last_msg(prompt.replace_string("c<NL>d", prompt.get_replacement_when_output()))
    assert prompt.get_responder_last_msg() == "c\nd"
    assert ask(prompt, "e").create_prompt() == (
        "ユーザー: a<NL>b<NL>システム: c<NL>d<NL>ユーザー: e<NL>システム: "
    )


@pytest.mark.parametrize(
    ("clazz", "text"),
    [
        (
            presets.ChatPromptStabilityAiJpGptNeoxInstSft,
            f"{JA_INPUT}\n\n### 指示: \n要約\n\n### 入力: \n本文\n\n### 応答: \n",
        ),
        (
            presets.ChatPromptMatsuoLabJpGptNeoxInstSft,
            f"{JA}\n\n### 指示:\n要約\n\n### 入力:\n本文\n\n### 応答:",
        ),
        (
            presets.ChatPromptDatabricksDolly,
            f"{DOLLY}\n\n### Instruction:\n要約\n\nInput:\n本文\n\n### Response:\n",
        ),
    ],
)
def test_a_message_with_a_text_to_work_on(clazz: type[TextPrompt], text: str) -> None:
    prompt = clazz()
    prompt.add_requester_msg("要約", child_message="本文")
    prompt.add_responder_msg(None)
    assert clazz.from_dict(prompt.to_dict()).create_prompt() == text
    wrong: Any = 1
    with pytest.raises(BadRequest, match="must be strings"):
        prompt.add_requester_msg("要約", child_message=wrong)


def test_a_family_without_a_form_for_a_second_text_says_so() -> None:
    with pytest.raises(ConfigError, match="Llama2Chat does not support child messages"):
        presets.ChatPromptMetaLlamaLlama2Chat().add_requester_msg("a", child_message="b")


def test_a_format_knows_whether_the_tokenizer_may_add_tokens() -> None:
    tokenizer = ByT5Tokenizer()  # ends a text with </s>, as rinna's and LINE's do
    line = ask(presets.ChatPromptLineCorpJpLargeLmInstSft(), "a")
    assert line.to_token_ids(tokenizer)[-1] != tokenizer.eos_token_id
    assert line.to_token_ids(tokenizer, True)[-1] == tokenizer.eos_token_id
    open_llama = ask(presets.ChatPromptOpenlmrOpenLlama(), "a")
    assert open_llama.to_token_ids(tokenizer)[-1] == tokenizer.eos_token_id
