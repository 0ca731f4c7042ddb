"""The rows of a build's sources, and what recorded answers are joined by; each function returns a SELECT."""

from warehouse.statements import TableName, read_sql


def all_rows(config_id: str, current: str) -> str:
    """Return what ``source_rows`` shall hold of a build of which the rows of the SELECT ``current`` were read."""
    return read_sql("recorded/source_rows", config_id=config_id, current=TableName(f"({current})"))


def named_rows(config_id: str) -> str:
    """Return the rows that recorded answers may name: source, row, key, language, prompt_id, text_id, why."""
    return read_sql("recorded/named", config_id=config_id)


def prompts_in_scope() -> str:
    """Return the prompts of the build in use: prompt_id, language, source, parent_id, messages, is_kept."""
    return read_sql("recorded/prompts")


def rejoined(settings_id: str, current: str) -> str:
    """Return the answers of a lane, completion_id and prompt_id, in whose place its file gives another text now.

    ``current`` is a SELECT of the completions that it gives.
    """
    return read_sql("recorded/rejoined", settings_id=settings_id, current=TableName(f"({current})"))


def unjoined(config_id: str, settings_id: str, current: str, explanations: str) -> str:
    """Return the rejections, of stage "join", of a lane's answers that its file does not give any more.

    ``current`` is a SELECT of the completions that it gives, ``explanations`` one of rejections by the id of a text.
    """
    return read_sql(
        "recorded/unjoined",
        config_id=config_id,
        settings_id=settings_id,
        current=TableName(f"({current})"),
        explanations=TableName(f"({explanations})"),
    )
