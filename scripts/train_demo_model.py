"""Train the demo model of `chatstream_flask` from nothing: dialogues, tokenizer and weights.

    python scripts/train_demo_model.py --out chatstream_flask/demo_model

The same seed on the same machine gives the same model.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path
from random import Random

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
"""What one token may hold at most. A capital letter stands alone, so that 'Anna' and ' Anna' differ in one
token, and so does each Japanese letter, as no space tells where a name ends: names become easy to copy."""

MAX_LENGTH = 1024
TOKENS_PER_STEP = 4000


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


def new_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    return [
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0.0, momentum=0.95),
        torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def encode(
    tokenizer: PreTrainedTokenizerFast, messages: list[Message], max_length: int
) -> tuple[list[int], list[bool]]:
    """The ids of a dialogue, as many whole messages as fit, and which of them the model shall learn."""
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
    rng: Random, tokenizer: PreTrainedTokenizerFast, progress: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and learned marks `[rows, length]`, about `TOKENS_PER_STEP`; long dialogues come in later."""
    max_length = rng.choices(
        (192, 384, 640, MAX_LENGTH), (60, 22, 10, 8) if progress > 0.3 else (1, 0, 0, 0)
    )[0]
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
    """Mean cross entropy over the assistant's tokens; padding stands on the right, where no token looks."""
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    return F.cross_entropy(model.lm_head(hidden[learned[:, 1:]]), ids[:, 1:][learned[:, 1:]])


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the Hugging Face files, weights as float16; the model itself stays as it is."""
    half = copy.deepcopy(model).half()  # type: ignore[no-untyped-call]
    half.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    half.save_pretrained(out)
    tokenizer.save_pretrained(out, save_jinja_files=False)
    (out / "model.safetensors").chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, default="chatstream_flask/demo_model", help="folder to write")
    parser.add_argument("--steps", type=int, default=2200, help="optimizer steps")
    parser.add_argument("--seed", type=int, default=0, help="seed of dialogues and weights")
    parser.add_argument("--vocab-size", type=int, default=1000, help="tokens of the tokenizer")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--save-every", type=int, default=500, help="steps between checkpoints")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = Random(args.seed)
    tokenizer = train_tokenizer(rng, args.vocab_size)
    model = new_model(tokenizer)
    optimizers = new_optimizers(model)
    warmup = args.steps // 20 + 1
    schedules = [
        LambdaLR(optimizer, lambda step: min((step + 1) / warmup, 1 - step / args.steps))
        for optimizer in optimizers
    ]
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens, {args.steps} steps", flush=True)

    started = time.monotonic()
    recent = 0.0
    for step in range(1, args.steps + 1):
        loss = loss_of(model, *batch(rng, tokenizer, step / args.steps))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        for schedule in schedules:
            schedule.step()
        model.zero_grad()
        recent = loss.item() if step == 1 else 0.95 * recent + 0.05 * loss.item()
        if step % 50 == 0 or step == args.steps:
            spent = time.monotonic() - started
            left = spent / step * (args.steps - step)
            print(f"step {step}/{args.steps}  loss {recent:.3f}", end="  ")
            print(f"{spent / 60:.1f} min, {left / 60:.1f} to go", flush=True)
        if step % args.save_every == 0 or step == args.steps:
            save(model, tokenizer, args.out)


if __name__ == "__main__":
    main()
