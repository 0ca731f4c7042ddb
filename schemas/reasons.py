"""Why a row was dropped: the vocabulary of ``rejections.reason``."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a row was dropped; the warehouse stores the members' values."""

    # reading prompts
    EMPTY_PROMPT = "empty_prompt"
    INVALID_TEXT = "invalid_text"
    INVALID_ROW = "invalid_row"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    UNKNOWN_LANGUAGE = "unknown_language"
    # gates
    EMPTY = "empty"
    TRUNCATED = "truncated"
    OTHER_LANGUAGE = "other_language"
    WRONG_LANGUAGE = "wrong_language"
    WRONG_SCRIPT = "wrong_script"
    REPETITION = "repetition"
    REFUSAL = "refusal"
    STRAY_REASONING = "stray_reasoning"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    # translation
    LOST_CONTENT = "lost_content"
    UNTRANSLATED = "untranslated"
    # engines: permanent
    PROMPT_TOO_LONG = "prompt_too_long"
    REFUSED_BY_ENGINE = "refused_by_engine"
    POISON = "poison"
    INVALID_REPLY = "invalid_reply"
    # engines: retried by the next run
    TIMEOUT = "timeout"
    SERVER_ERROR = "server_error"
    # recorded pools
    NO_SUCH_PROMPT = "no_such_prompt"
    AMBIGUOUS_KEY = "ambiguous_key"
    OTHER_QUESTION = "other_question"
    # pairing
    TIE = "tie"
    MARGIN_TOO_SMALL = "margin_too_small"
    LENGTH_RATIO = "length_ratio"
    TOO_MANY_PAIRS = "too_many_pairs"
    # training
    IDENTICAL_PAIR = "identical_pair"
    TEMPLATE_PREFIX = "template_prefix"
    NOT_RENDERED = "not_rendered"


TRANSIENT_REASONS = frozenset({Reason.TIMEOUT, Reason.SERVER_ERROR})
"""Failures of the machine rather than of the request; the next run retries the request."""
