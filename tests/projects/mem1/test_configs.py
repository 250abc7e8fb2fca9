"""What the configs and claims say together: tunings that the models can take, claims that collapse does not meet."""

import pytest

from common.experiments.compose import compose_table
from common.experiments.settings import to_settings

TABLES = ("headline", "rl_vs_sft", "layouts")


@pytest.mark.parametrize("table", TABLES)
def test_models_other_than_microlm_replay_none_of_its_skills(table):
    composed = compose_table(f"mem1/{table}", "paper")
    for cell in composed.cells(seeds=[0]):
        settings = to_settings("mem1", cell.settings)
        assert settings.lm.name.startswith("Qwen/")
        tuned = [settings.sft.tuning, *([settings.tuning] if settings.taught.count else [])]
        assert all(tuning.replay == 0 for tuning in tuned), cell.row
