"""A ``[policy]`` for the small recipe: the microworld's base in two clusters, an SFT step, pairs, and online rounds."""

from factory.microworld.questions import MODELS

COMMON = 'max_length = 512, batch_rows = 8, dtype = "float32"'
CLUSTERS = '{ west = ["fr"], east = ["ar", "ja"] }'
RUN = 'run = { device = "cpu", checkpoint_every = 1, tensorboard = false, plot = false }'


def make_policy(
    *, rounds: int = 1, beta: float = 0.1, watch: str = "", later: str = "clusters = {}", max_steps: int = 2
) -> str:
    """Return the table as TOML; ``later`` is for the steps after the first, which by default train one model each.

    By default no round is stopped: stand-ins answer at random.
    """
    return f"""
models = "models"
[policy]
base = "{MODELS / "base"}"
shared = ["en"]
clusters = {CLUSTERS}
train = {{ max_steps = {max_steps}, {COMMON}, {RUN} }}
held_out = {{ bootstrap_rounds = 20 }}
watch = {{ {watch or "max_win_rate_drop = 1.0, max_length_ratio = 100, max_kl = 100, max_repetition_rise = 1"} }}
[[policy.steps]]
name = "sft"
train = {{ objective = "sft", learning_rate = 1e-4 }}
[[policy.steps]]
name = "offline"
{later}
pairs = ["best_vs_worst"]
train = {{ objective = "dpo", learning_rate = 1e-4 }}
[[policy.steps]]
name = "online"
{later}
train = {{ objective = "dpo", learning_rate = 1e-4 }}
on_policy = {{ rounds = {rounds}, betas = {[beta] * rounds}, samples = 2 }}
"""
