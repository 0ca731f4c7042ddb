"""Trains the microworld's models from scratch: ``python -m factory.microworld.train [--only NAME]``.

All chat models grow out of one trunk that answers well in every language; it is kept beside them, git-ignored, so that
a single model can be trained again. About 10 minutes in all on two free cores.
"""

import argparse
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, rms_norm
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    M2M100Config,
    M2M100ForConditionalGeneration,
    NllbTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from factory.microworld.corpus import draw_translation, draw_turn, vocabulary_texts
from factory.microworld.faults import FLAWLESS, JUDGED, POLICIES, Mixture, mixtures
from factory.microworld.questions import MODELS, NUM_CHOICES, NUM_GROUPS
from factory.microworld.vocabulary import MAX_LENGTH, train_chat_tokenizer, train_translator_tokenizer
from schemas.languages import CORE_LANGUAGES, LANGUAGES

TRUNK = ".trunk"
NAMES = (*POLICIES, "reward", "translator")
BATCH_SIZE = 64
NUM_LAYERS = 2
HINT_LAYER = 1
ANSWER_WEIGHT = 4
END_WEIGHT = 10
REWARD_SCALE = 4.0
HINTS = {"group": NUM_GROUPS, "named_group": NUM_GROUPS + 1, "named_place": NUM_CHOICES + 1}
"""What the reward model is told while it learns: number of classes by name."""
IGNORED = -100

Batch = dict[str, Tensor]


def train_trunk(folder: Path, seed: int, num_steps: int = 1600) -> None:
    """Train the ancestor of all chat models: it answers without faults."""
    torch.manual_seed(seed)
    tokenizer = train_chat_tokenizer(vocabulary_texts())
    model = LlamaForCausalLM(_llama_config(tokenizer))
    batches = _chat_batches(tokenizer, random.Random(seed), dict.fromkeys(CORE_LANGUAGES, FLAWLESS))
    _train("trunk", model, batches, _chat_loss, num_steps, learning_rate=3e-3)
    _save(model, tokenizer, folder)


def train_policy(name: str, trunk: Path, folder: Path, seed: int, num_steps: int = 300) -> None:
    """Teach the trunk the faults of one teacher or of the base policy."""
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(trunk, dtype=torch.float32),
        PreTrainedTokenizerFast.from_pretrained(trunk),
    )
    batches = _chat_batches(tokenizer, random.Random(f"{seed} {name}"), mixtures(name))
    _train(name, model, batches, _chat_loss, num_steps, learning_rate=1.5e-3)
    _save(model, tokenizer, folder)


def train_reward(trunk: Path, folder: Path, seed: int, num_steps: int = 1200) -> None:
    """Train the trunk and one layer more to tell the true quality of an answer, times ``REWARD_SCALE``.

    On the way its first layer learns to tell which group is asked for and which word is named: that a word does not
    belong to a group is all but invisible to a model that has not found either.
    """
    torch.manual_seed(seed)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(trunk)
    model = LlamaForSequenceClassification.from_pretrained(
        trunk, num_labels=1, num_hidden_layers=NUM_LAYERS + 1, dtype=torch.float32
    )
    model.hints = nn.Linear(model.config.hidden_size, sum(HINTS.values()))
    batches = _chat_batches(tokenizer, random.Random(f"{seed} reward"), dict.fromkeys(CORE_LANGUAGES, JUDGED))
    _train("reward", model, batches, _reward_loss, num_steps, learning_rate=1.5e-3)
    del model.hints
    _save(model, tokenizer, folder)


def train_translator(folder: Path, seed: int, num_steps: int = 800) -> None:
    """Train a translator from English into the 22 other languages, good on questions, lossy on answers."""
    torch.manual_seed(seed)
    tokenizer = train_translator_tokenizer(vocabulary_texts())
    model = M2M100ForConditionalGeneration(_translator_config(tokenizer))
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
        max_length=200,
    )
    batches = _translation_batches(tokenizer, random.Random(f"{seed} translator"))
    _train("translator", model, batches, _translation_loss, num_steps, learning_rate=3e-3)
    _save(model, tokenizer, folder)


def _llama_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=0.05,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _translator_config(tokenizer: NllbTokenizer) -> M2M100Config:
    return M2M100Config(
        vocab_size=len(tokenizer),
        d_model=128,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=256,
        decoder_ffn_dim=256,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
        max_position_embeddings=MAX_LENGTH,
        init_std=0.05,
        scale_embedding=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
    )


def _chat_batches(
    tokenizer: PreTrainedTokenizerFast, rng: random.Random, mixtures: dict[str, Mixture]
) -> Iterator[Batch]:
    """Yield batches of whole conversations of like length; ``is_answer`` marks the answer's tokens, end included."""
    assistant = tokenizer.convert_tokens_to_ids("<|assistant|>")
    while True:
        turns = [draw_turn(rng, mixtures) for _ in range(8 * BATCH_SIZE)]
        ids = tokenizer([_chat_text(turn.prompt, turn.completion) for turn in turns])["input_ids"]
        rows = sorted(zip(ids, turns, strict=True), key=lambda row: len(row[0]))
        groups = [rows[at : at + BATCH_SIZE] for at in range(0, len(rows), BATCH_SIZE)]
        for group in rng.sample(groups, len(groups)):
            batch = dict(tokenizer.pad({"input_ids": [row[0] for row in group]}, return_tensors="pt"))
            batch["is_answer"] = (batch["input_ids"] == assistant).cumsum(1) * batch["attention_mask"]
            for name in ("quality", *HINTS):
                batch[name] = torch.tensor([getattr(turn, name) for _, turn in group])
            yield batch


def _translation_batches(tokenizer: NllbTokenizer, rng: random.Random) -> Iterator[Batch]:
    """Yield batches of English sources and targets that start with their language's code, as NLLB has them."""
    while True:
        rows = [draw_translation(rng) for _ in range(8 * BATCH_SIZE)]
        rows.sort(key=lambda row: len(row[0]))
        groups = [rows[at : at + BATCH_SIZE] for at in range(0, len(rows), BATCH_SIZE)]
        for group in rng.sample(groups, len(groups)):
            sources, languages, targets = zip(*group, strict=True)
            batch = dict(tokenizer(list(sources), padding=True, return_tensors="pt"))
            codes = tokenizer.convert_tokens_to_ids([LANGUAGES[language].flores for language in languages])
            encoded = tokenizer(list(targets), padding=True, return_tensors="pt")
            labels = encoded["input_ids"]
            labels[:, 0] = torch.tensor(codes)
            yield batch | {"labels": labels.masked_fill(encoded["attention_mask"] == 0, IGNORED)}


def _chat_text(prompt: str, completion: str) -> str:
    """Return what the chat template makes of the two turns; the template itself is too slow for millions."""
    return f"<|user|>{prompt}<|end|><|assistant|>{completion}<|end|>"


def _chat_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Return the mean loss over all tokens, in which those of the answer weigh more than those of the question."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    weights = (mask + (ANSWER_WEIGHT - 1) * batch["is_answer"])[:, 1:].flatten()
    losses = cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    return (losses * weights).sum() / weights.sum()


def _translation_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    loss: Tensor = model(**batch).loss
    return loss


def _reward_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Return the squared error of the reward plus the loss of the hints, at every token of the answer.

    The last token weighs most, for it is the one that counts; the others find the word that decides much sooner.
    """
    mask = batch["attention_mask"]
    body, head, hinter = (model.get_submodule(name) for name in ("model", "score", "hints"))
    states = body(input_ids=batch["input_ids"], attention_mask=mask, output_hidden_states=True).hidden_states
    rows, positions = batch["is_answer"].nonzero(as_tuple=True)
    is_last = positions == mask.sum(1)[rows] - 1
    weights = (1 + (END_WEIGHT - 1) * is_last).float()
    rewards = head(states[-1][rows, positions]).squeeze(-1).float()
    losses = (rewards - REWARD_SCALE * batch["quality"][rows]).square()
    hinted = states[HINT_LAYER][rows, positions]
    hints = hinter(rms_norm(hinted, hinted.shape[-1:])).float()
    for name, logits in zip(HINTS, hints.split(tuple(HINTS.values()), 1), strict=True):
        losses = losses + cross_entropy(logits, batch[name][rows], reduction="none")
    loss: Tensor = (losses * weights).sum() / weights.sum()
    return loss


def _train(
    label: str,
    model: PreTrainedModel,
    batches: Iterator[Batch],
    loss_of: Callable[[PreTrainedModel, Batch], Tensor],
    num_steps: int,
    learning_rate: float,
) -> None:
    """Minimise a loss with AdamW: short warm-up, cosine decay, clipped gradients, bfloat16 autocast."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 50, 0.02 + 0.98 * (1 + math.cos(math.pi * step / num_steps)) / 2)
    )
    model.set_attn_implementation("eager")
    model.train()
    started = time.monotonic()
    for step in range(1, num_steps + 1):
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, next(batches))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == num_steps:
            print(f"{label:24} step {step:5} loss {loss.item():.4f} {time.monotonic() - started:6.1f} s", flush=True)


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train(names: Sequence[str], out: Path, seed: int, num_jobs: int) -> None:
    """Train the named models into folders of ``out``, several at once; the trunk before all others, unless it is there.

    The translator has no ancestor, so it can be trained beside the trunk.
    """
    trunk = out / TRUNK
    with ProcessPoolExecutor(num_jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        needs_trunk = set(names) != {"translator"} and not trunk.exists()
        ancestors = [pool.submit(train_trunk, trunk, seed)] if needs_trunk else []
        runs = [pool.submit(train_translator, out / "translator", seed)] if "translator" in names else []
        for run in ancestors:
            run.result()
        for name in names:
            if name == "reward":
                runs.append(pool.submit(train_reward, trunk, out / name, seed))
            elif name != "translator":
                runs.append(pool.submit(train_policy, name, trunk, out / name, seed))
        for run in runs:
            run.result()


def main() -> None:
    """Train what the command line asks for."""
    parser = argparse.ArgumentParser(description="Train the microworld's models from scratch.")
    parser.add_argument("--only", choices=NAMES, action="append", help="one model; may be given several times")
    parser.add_argument("--out", type=Path, default=MODELS, help="folder that gets one folder per model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="models trained at once, one thread each")
    arguments = parser.parse_args()
    train(arguments.only or NAMES, arguments.out, arguments.seed, arguments.jobs)


if __name__ == "__main__":
    main()
