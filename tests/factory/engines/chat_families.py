"""Four families of models: their chat templates, and tokenizers with their kinds of control tokens."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "Which of these is an animal?",
    "اكتب كلمة واحدة",
    "これは何ですか",
    "नमस्ते दुनिया",
    "cafe\u0301 <b>[x]</b>",
    "Go on",
    "a > b",
]

CHATML = """{%- if tools %}<|im_start|>system
# Tools
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}<|im_end|>
{% endif -%}
{%- for m in messages %}
{%- set content = m.content if m.content is string else '' %}
{%- set reasoning = m.reasoning_content or '' %}
{%- if m.role == 'assistant' and '</think>' in content %}
{%- set reasoning = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{%- if m.role == 'tool' %}<|im_start|>user
<tool_response>
{{ content }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ m.role }}
{% if m.role == 'assistant' and reasoning and loop.last %}<think>
{{ reasoning }}
</think>

{% endif %}{{ content }}
{%- for call in m.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}{% endif %}"""
"""As Qwen3's: tools and calls, reasoning parted from a text and dropped from all turns but the last, a switch."""

LLAMA = """{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>

{{ m.content | trim }}<|eot_id|>{% endfor %}
{%- if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""
"""As Llama 3's: each text is trimmed."""

GEMMA = """{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for m in messages %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif -%}
<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}
{{ m.content | trim }}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""
"""As Gemma's: system turns are refused; its tokens are words of the vocabulary."""

PHI = """{% for m in messages %}{{ '<|' + m.role + '|>' }}
{{ m.content }}<|end|>
{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}"""
"""As Phi's: the tokens of the roles are put together."""


@dataclass(frozen=True, slots=True)
class Family:
    """A template with its tokens: those that are special and those that are not, and how a turn ends."""

    template: str
    special: tuple[str, ...]
    plain: tuple[str, ...]
    end: str


FAMILIES = {
    "chatml": Family(
        CHATML,
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<b>"),
        "<|im_end|>",
    ),
    "llama": Family(
        LLAMA,
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>"),
        (),
        "<|eot_id|>",
    ),
    "gemma": Family(
        GEMMA,
        ("<pad>", "<bos>", "<eos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
        ("\n\n", "<b>"),
        "<end_of_turn>",
    ),
    "phi": Family(
        PHI, ("<|endoftext|>", "<|system|>", "<|end|>"), ("<|user|>", "<|assistant|>", "<|tool|>"), "<|end|>"
    ),
}


@cache
def make_family(name: str) -> Any:
    """Return the tokenizer of a family; its tokens are within the vocabulary (gemma) or beyond it (the others)."""
    family = FAMILIES[name]
    is_gemma = name == "gemma"
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True) if is_gemma else models.BPE())
    if is_gemma:
        tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    known = [*family.special, *(f"<0x{byte:02X}>" for byte in range(256))] if is_gemma else []
    alphabet = [] if is_gemma else pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=known, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*TEXTS, "system user assistant model tool \n"] * 3, trainer)
    if is_gemma:  # the trainer makes every byte special
        tokenizer = Tokenizer.from_str(tokenizer.to_str().replace('"special":true', '"special":false'))
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in family.plain])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in family.special])
    begin = next((token for token in family.special if token in {"<bos>", "<|begin_of_text|>"}), None)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=begin,
        eos_token=family.end,
        pad_token=family.special[0],
        chat_template=family.template,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
