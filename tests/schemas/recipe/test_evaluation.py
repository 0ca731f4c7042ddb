import pytest
from pydantic import ValidationError

from schemas.recipe.evaluation import JudgeModel


def test_a_judge_has_no_system_prompt_beside_its_criteria() -> None:
    with pytest.raises(ValidationError, match="a judge's 'system_prompt' holds its criteria"):
        JudgeModel(name="judge", model="org/judge", system_prompt="Be kind.")
