"""TRL's side of the training benchmark, in TRL's own environment: see ``tests/benchmarks/training.py``.

``python training_trl.py MODEL ROWS OUTPUT --micro 1 --precompute --dtype float32``: prints one line of JSON.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("rows", type=Path)
    parser.add_argument("output")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--micro", type=int, default=1)
    parser.add_argument("--rate", type=float, default=1e-5)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--defaults", action="store_true", help="TRL's own defaults for everything else")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    library_bytes = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    rows = [json.loads(line) for line in arguments.rows.read_text(encoding="utf-8").splitlines()]
    dataset = Dataset.from_list([{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in rows])
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    best = {} if arguments.defaults else {"precompute_ref_log_probs": True, "gradient_checkpointing": False}
    config = DPOConfig(
        output_dir=arguments.output,
        per_device_train_batch_size=arguments.micro,
        gradient_accumulation_steps=arguments.batch // arguments.micro,
        num_train_epochs=1,
        learning_rate=arguments.rate,
        lr_scheduler_type="constant",
        beta=0.1,
        max_length=4096,
        logging_steps=1,
        train_sampling_strategy="sequential",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        bf16=arguments.dtype == "bfloat16",
        **best,
    )
    started, wall = time.process_time(), time.monotonic()
    trainer = DPOTrainer(model=model, args=config, train_dataset=dataset, processing_class=tokenizer)
    trainer.train()
    seconds, wall = time.process_time() - started, time.monotonic() - wall
    steps = [line for line in trainer.state.log_history if "loss" in line]
    print(
        json.dumps(
            {
                "cpu_seconds": seconds,
                "wall_seconds": wall,
                "library_bytes": library_bytes,
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
                "losses": [line["loss"] for line in steps],
                "margins": [line["rewards/margins"] for line in steps],
            }
        )
    )


if __name__ == "__main__":
    main()
