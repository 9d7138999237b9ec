"""Train the demo model of `chatstream_flask` from scratch: dialogues, tokenizer and weights.

    python scripts/train_demo_model.py

Training has two phases; the second continues at half the learning rate and teaches arithmetic and counting.
The same seed on the same machine gives the same model. The model in the package took 18 and 8 minutes on
2 otherwise idle cores.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path
from random import Random
from typing import Any

import torch
from demo_dialogues import Message, dialogue
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END, PAD = "<|end|>", "<|pad|>"
SPECIAL_TOKENS = [PAD, END, "<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ('system', 'user', 'assistant') %}"
    "{{ raise_exception('unknown role ' ~ message['role']) }}"
    "{% endif %}"
    "{{ '<|' ~ message['role'] ~ '|>' }}"
    "{{ message['content'] if message['role'] == 'assistant' else message['content'] | trim }}"
    "{{ '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
PIECES = (
    r" ?\p{Lu}| ?\p{Ll}+|[\p{Han}\p{Hiragana}\p{Katakana}ー]| ?\p{L}"
    r"| ?\d|'(?:s|t|re|ve|m|ll|d)\b| ?[^\s\p{L}\d]+|\s+"
)
"""Pre-tokenizer pattern: the most that one token may contain.

Names must be easy to copy. So a capital letter is a token of its own, and 'Anna' and ' Anna' differ in one
token only; and so is each Japanese character, as no space marks the end of a name.
"""

MAX_LENGTH = 1024
TOKENS_PER_STEP = 4000
LEARNING_RATES = (0.02, 0.01)  # peak of each phase, for the matrices
SHARPNESS = 1.5
"""Factor applied to the saved model's logits, so that sampling at temperature 1 rarely misspells a word."""


def train_tokenizer(rng: Random, vocab_size: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PIECES), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet, show_progress=False
    )
    corpus = (message.content for _ in range(4000) for message in dialogue(rng, num_turns=6))
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=SPECIAL_TOKENS[2:],
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def new_optimizers(model: LlamaForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.0, momentum=0.95),
        torch.optim.AdamW(others, lr=0.15 * lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def encode(
    tokenizer: PreTrainedTokenizerFast, messages: list[Message], max_length: int
) -> tuple[list[int], list[bool]]:
    """Return the token ids of as many whole messages as fit, and which of them contribute to the loss."""
    texts = [f"<|{message.role}|>{message.content}{END}" for message in messages]
    ids: list[int] = []
    learned: list[bool] = []
    for message, turn in zip(messages, tokenizer.backend_tokenizer.encode_batch_fast(texts), strict=True):
        if len(ids) + len(turn.ids) > max_length:
            break
        ids += turn.ids
        learned += [False] + [message.is_learned] * (len(turn.ids) - 1)
    return ids, learned


def batch(
    rng: Random, tokenizer: PreTrainedTokenizerFast, has_long: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and loss mask `[rows, length]`, about `TOKENS_PER_STEP` tokens; at first short dialogues."""
    max_length = rng.choices((192, 384, 640, MAX_LENGTH), (30, 25, 20, 25) if has_long else (1, 0, 0, 0))[0]
    rows, filled = [], 0
    while filled < TOKENS_PER_STEP:
        rows.append(
            encode(tokenizer, dialogue(rng, rng.randint(max_length // 64, max_length // 22)), max_length)
        )
        filled = len(rows) * max(len(ids) for ids, _ in rows)
    width = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    learned = torch.zeros((len(rows), width), dtype=torch.bool)
    for row, (row_ids, row_learned) in enumerate(rows):
        ids[row, : len(row_ids)] = torch.tensor(row_ids)
        learned[row, : len(row_ids)] = torch.tensor(row_learned)
    return ids, learned


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor, learned: torch.Tensor) -> torch.Tensor:
    """Return the mean cross entropy over the assistant's tokens; padding on the right needs no mask."""
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    return F.cross_entropy(model.lm_head(hidden[learned[:, 1:]]), ids[:, 1:][learned[:, 1:]])


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the Hugging Face files with sharpened float16 weights; the model itself is not changed."""
    half = copy.deepcopy(model).half()  # type: ignore[no-untyped-call]
    half.model.norm.weight.data *= SHARPNESS
    half.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    half.save_pretrained(out)
    tokenizer.save_pretrained(out, save_jinja_files=False)
    (out / "model.safetensors").chmod(0o644)


def begin(phase: int, args: argparse.Namespace, rng: Random) -> tuple[LlamaForCausalLM, Any]:
    """Return the model and the tokenizer of a phase: new ones, or those that the previous phase saved."""
    if phase == 0:
        tokenizer = train_tokenizer(rng, args.vocab_size)
        return new_model(tokenizer), tokenizer
    model = LlamaForCausalLM.from_pretrained(args.out, dtype=torch.float32)
    model.model.norm.weight.data /= SHARPNESS
    return model, PreTrainedTokenizerFast.from_pretrained(args.out)


def train(phase: int, args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed + phase)
    rng = Random(args.seed + phase)
    model, tokenizer = begin(phase, args, rng)
    steps = args.steps[phase]
    optimizers = new_optimizers(model, LEARNING_RATES[phase])
    warmup = steps // 20 + 1
    schedules = [
        LambdaLR(optimizer, lambda step: min((step + 1) / warmup, 1 - step / steps))
        for optimizer in optimizers
    ]
    print(f"phase {phase + 1}: {model.num_parameters():,} parameters, {len(tokenizer)} tokens", flush=True)

    started = time.monotonic()
    recent = 0.0
    for step in range(1, steps + 1):
        has_long = phase > 0 or step > steps * 0.3
        loss = loss_of(model, *batch(rng, tokenizer, has_long))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        for schedule in schedules:
            schedule.step()
        model.zero_grad()
        recent = loss.item() if step == 1 else 0.95 * recent + 0.05 * loss.item()
        if step % 50 == 0 or step == steps:
            spent = time.monotonic() - started
            left = spent / step * (steps - step)
            print(f"step {step}/{steps}  loss {recent:.3f}", end="  ")
            print(f"{spent / 60:.1f} min, {left / 60:.1f} to go", flush=True)
    save(model, tokenizer, args.out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, default="chatstream_flask/demo_model", help="output folder")
    parser.add_argument(
        "--steps", type=int, nargs=2, default=[2400, 900], help="training steps of each phase"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of dialogues and weights")
    parser.add_argument("--vocab-size", type=int, default=1000, help="vocabulary size")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    for phase in range(len(LEARNING_RATES)):
        train(phase, args)


if __name__ == "__main__":
    main()
