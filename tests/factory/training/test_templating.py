"""Rows into tokens: one template, one begin token, one trained end token, masks from the tokens, no row lost silently."""

import copy
import json

import pytest

from factory.training.data.examples import Example
from factory.training.data.reading import Rejected, read_rows
from factory.training.data.templating import Templater
from schemas.errors import InputError, TrainingError
from schemas.reasons import Reason
from schemas.recipe.training import TrainSettings
from tests.factory.training.conftest import chat, make_tokenizer, write_rows

END, EOS, BOS = 6, 2, 1

THINKING = (
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['role'] == 'assistant' and loop.last %}<think></think>{% endif %}"
    "{{ message['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Drops the reasoning of all turns but the last, as Qwen3 does."""


def encode(tmp_path, rows, template=None, **values):
    values = {"model": "tiny", "objective": "sft"} | values
    settings = TrainSettings(data=str(write_rows(tmp_path / "rows.jsonl", rows)), **values)
    tokenizer = make_tokenizer()
    if template is not None:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.chat_template = template or None
    templater = Templater(tokenizer, settings, [EOS, END])
    return list(templater.examples(read_rows(settings, settings.data, "train")))


def decode(ids) -> str:
    return str(make_tokenizer().decode(ids))


def trained(example: Example, branch: int = 0) -> str:
    return decode(example.branches[branch][example.trained[branch]])


def test_a_conversation_ends_in_one_trained_end_token_and_begins_with_one_begin_token(tmp_path):
    (example,) = encode(tmp_path, [chat("اكتب كلمة واحدة", "قطة")])
    (ids,) = example.branches
    assert decode(ids) == "<bos><|user|>اكتب كلمة واحدة<|end|>\n<|assistant|>قطة<|end|>"
    assert trained(example) == "قطة<|end|>"
    assert ids.tolist().count(BOS) == 1
    assert ids[-1] == END


def test_every_assistant_turn_is_trained(tmp_path):
    messages = [*chat("one", "first")["messages"], *chat("two", "second")["messages"], {"role": "user", "content": "x"}]
    (example,) = encode(tmp_path, [{"messages": messages}])
    assert trained(example) == "first<|end|>second<|end|>"


def test_all_tokens_but_the_first_are_trained_when_asked(tmp_path):
    (example,) = encode(tmp_path, [chat("one", "first")], train_on="all")
    assert example.trained[0].tolist() == [False] + [True] * (len(example.branches[0]) - 1)


def test_a_turn_that_the_template_changes_later_is_an_example_of_its_own(tmp_path):
    messages = [*chat("one", "first")["messages"], *chat("two", "second")["messages"]]
    whole, alone = encode(tmp_path, [{"id": "a", "messages": messages}], template=THINKING)
    assert trained(whole) == "<think></think>second<|end|>"
    assert decode(whole.branches[0]).startswith("<|user|>one<|end|><|assistant|>first<|end|>")
    assert trained(alone) == "<think></think>first<|end|>"


def test_a_template_whose_prompt_is_no_prefix_of_its_answer_is_listed(tmp_path):
    template = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|><think>{% endif %}"
    (rejected,) = encode(tmp_path, [chat("one", "first")], template=template)
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "template_prefix"


def test_a_prompt_keeps_its_own_tokens_where_the_answer_would_join_them(tmp_path):
    """The tokenizer joins ' a' to one token across the border: at inference the prompt ends in the space."""
    template = (
        "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'user' %} {% else %}<|end|>{% endif %}{% endfor %}"
    )
    (example,) = encode(tmp_path, [chat("the", "cat and")], template=template)
    tokenizer = make_tokenizer()
    prompt = tokenizer("the ", add_special_tokens=False)["input_ids"]
    whole = tokenizer("the cat and<|end|>", add_special_tokens=False)["input_ids"]
    assert whole[: len(prompt)] != prompt
    assert example.branches[0][: len(prompt)].tolist() == prompt
    assert trained(example) == "cat and<|end|>"


def test_texts_get_one_end_token_too(tmp_path):
    rows = [{"prompt": "Where is", "completion": " the cat?"}, {"prompt": "Where is", "completion": " the cat?<eos>"}]
    for example in encode(tmp_path, rows):
        assert trained(example) == " the cat?<eos>"
        assert example.branches[0].tolist().count(EOS) == 1


def test_an_answer_that_brings_its_own_end_token_has_one(tmp_path):
    (example,) = encode(tmp_path, [chat("one", "first<|end|>\n")])
    assert trained(example) == "first<|end|>"


def test_a_text_that_begins_with_the_begin_token_has_one(tmp_path):
    tokenizer = make_tokenizer()
    settings = TrainSettings(model="tiny", data="d", objective="sft")
    templater = Templater(tokenizer, settings)
    assert templater._mend([BOS, BOS, 9, EOS]) == [BOS, 9]


def test_a_pair_shares_its_prompt(tmp_path):
    (example,) = encode(tmp_path, [chat("これは", "猫です", "犬です")], objective="dpo")
    assert decode(example.prompt) == "<bos><|user|>これは<|end|>\n<|assistant|>"
    assert [trained(example, side) for side in (0, 1)] == ["猫です<|end|>", "犬です<|end|>"]


def test_pairs_without_a_prompt_column_share_what_they_begin_with(tmp_path):
    row = chat("which?", "this", "that")
    whole = {side: row["prompt"] + row[side] for side in ("chosen", "rejected")}
    assert str(encode(tmp_path, [whole], objective="dpo")) == str(encode(tmp_path, [row], objective="dpo"))


def test_rows_that_cannot_be_used_are_listed_with_their_reason(tmp_path):
    rows = [
        {"id": "good"} | chat("which?", "this", "that"),
        {"id": "long"} | chat("which? " * 40, "this", "that"),
        {"id": "empty"} | chat("which?", " ", "that"),
        {"id": "same"} | chat("which?", "this", "this"),
        {"id": "cut"} | chat("which?", "this " * 40, "this " * 41),
        {"id": "odd", "prompt": "text", "chosen": [{"role": "assistant"}], "rejected": "x"},
    ]
    found = encode(tmp_path, rows, objective="dpo", max_length=40)
    assert [(row.row, str(row.reason)) for row in found if isinstance(row, Rejected)] == [
        ("long", "prompt_too_long"),
        ("empty", "empty"),
        ("same", "identical_pair"),
        ("cut", "identical_pair"),
        ("odd", "invalid_row"),
    ]
    assert "after truncation" in found[4].detail


def test_truncation_keeps_the_end_token_and_is_counted(tmp_path):
    (pair,) = encode(tmp_path, [chat("which?", "this " * 40, "that")], objective="dpo", max_length=40)
    assert pair.is_cut
    assert len(pair.prompt) + len(pair.branches[0]) == 40
    assert pair.branches[0][-1] == END
    assert pair.trained[0].all()
    (row,) = encode(tmp_path, [chat("which?", "this " * 40)], max_length=40)
    assert row.is_cut
    assert len(row.branches[0]) == 40
    assert trained(row).endswith("<|end|>")
    (dropped,) = encode(tmp_path, [chat("which?", "this " * 40)], max_length=40, overlong="drop")
    assert dropped.reason == "too_long"


def test_a_cut_inside_a_later_question_ends_with_the_answer_before_it(tmp_path):
    messages = [*chat("one", "first")["messages"], *chat("two " * 40, "second")["messages"]]
    (row,) = encode(tmp_path, [{"messages": messages}], max_length=40)
    assert decode(row.branches[0]).endswith("first<|end|>")
    assert trained(row) == "first<|end|>"


def test_a_cut_never_leaves_an_answer_that_is_its_end_token_alone(tmp_path):
    messages = [*chat("one", "first")["messages"], *chat("two", "second answer here")["messages"]]
    (whole,) = encode(tmp_path, [{"messages": messages}])
    endings = set()
    for limit in range(len(whole.branches[0]) - 24, len(whole.branches[0])):
        (row,) = encode(tmp_path, [{"messages": messages}], max_length=limit)
        assert len(row.branches[0]) <= limit
        assert trained(row).startswith("first<|end|>")
        endings.add(trained(row).removeprefix("first<|end|>"))
    assert "" in endings
    assert "<|end|>" not in endings
    assert len(endings) > 3


def test_a_text_without_a_prompt_or_begin_token_is_trained_from_its_second_token(tmp_path):
    """Nothing predicts the first one: of a packed batch it would be the row before."""
    (pair,) = encode(tmp_path, [{"prompt": "", "chosen": "the cat", "rejected": "a dog"}], objective="dpo")
    assert len(pair.prompt) == 0
    assert [mask.tolist() for mask in pair.trained] == [[False] + [True] * (len(ids) - 1) for ids in pair.branches]


def test_an_answer_that_spells_an_end_token_has_it_as_text(tmp_path):
    (example,) = encode(tmp_path, [chat("one<|user|>", "first<|end|>more")])
    assert trained(example) == "first<|end|>more<|end|>"
    assert example.branches[0].tolist().count(END) == 2
    assert example.branches[0].tolist().count(3) == 1
    (pair,) = encode(tmp_path, [chat("one", "first<|end|>more", "that")], objective="dpo")
    assert [branch.tolist().count(END) for branch in pair.branches] == [1, 1]


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_a_text_that_spells_control_tokens_is_listed(tmp_path, objective):
    rows = {
        "sft": [{"prompt": "one", "completion": "first<eos>more"}, {"prompt": "<|user|>one", "completion": "b"}],
        "dpo": [{"prompt": "one", "chosen": "a", "rejected": "b<eos>c"}],
    }
    for row in rows[objective]:
        (rejected,) = encode(tmp_path, [row], objective=objective)
        assert rejected.reason == "invalid_row"
        assert "the text contains the control token <" in rejected.detail
    (example,) = encode(tmp_path, [{"prompt": "<bos>one", "completion": "b"}])
    assert example.branches[0].tolist().count(BOS) == 1


MARKED = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% if m['role'] == 'assistant' %}<pad>{{ m['content'] }}<|system|>"
    "{% else %}{{ m['content'] }}{% endif %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Puts special tokens around an answer, as Cohere's and gpt-oss's do: the model writes them before the end of its turn."""


def test_special_tokens_around_an_answer_are_trained_and_not_taken_for_its_end(tmp_path):
    (example,) = encode(tmp_path, [chat("one", "first")], template=MARKED)
    assert trained(example) == "<pad>first<|system|><|end|>"


def test_an_answer_is_one_message_of_the_assistant(tmp_path):
    row = chat("which?", "this", "that")
    asks = {"role": "user", "content": "why?"}
    for chosen in ([asks], [*row["chosen"], asks, *row["chosen"]]):
        (rejected,) = encode(tmp_path, [row | {"chosen": chosen}], objective="dpo")
        assert rejected.reason == "invalid_row"
        assert "an answer must be one message of the assistant" in rejected.detail


def test_data_without_the_columns_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"has the columns 'text'; preference training needs prompt \+ chosen"):
        encode(tmp_path, [{"text": "x"}], objective="dpo")


def test_a_first_line_that_is_not_a_row_and_a_row_without_what_it_is_chosen_by_are_rejected(tmp_path):
    lines = ["\ufeff{broken", *(json.dumps(row) for row in ({"language": "fr"} | chat("a", "b"), chat("c", "d")))]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    settings = TrainSettings(model="m", data=str(tmp_path / "rows.jsonl"), objective="sft", languages=("fr",))
    broken, row, other = read_rows(settings, settings.data, "train")
    assert isinstance(broken, Rejected)
    assert isinstance(other, Rejected)
    assert other.reason is Reason.UNKNOWN_LANGUAGE
    assert row.language == "fr"


def test_columns_of_a_table_may_be_quoted_or_parted_by_tabs(tmp_path):
    for name, lines in (
        ("rows.csv", '"prompt","completion"\na,"b, c"\n'),
        ("rows.tsv", "prompt\tcompletion\na\tb, c\n"),
    ):
        (tmp_path / name).write_text(lines)
        settings = TrainSettings(model="m", data=str(tmp_path / name), objective="sft")
        (row,) = read_rows(settings, settings.data, "train")
        assert (row.prompt, row.answers) == ("a", ("b, c",))


def test_conversations_need_a_chat_template(tmp_path):
    with pytest.raises(TrainingError, match="has no chat template"):
        encode(tmp_path, [chat("one", "first")], template="")
