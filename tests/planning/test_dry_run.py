import json

import jax
import pytest

from lumiere_jax.cascade.stage import Stage
from lumiere_jax.models.parameters import count
from lumiere_jax.planning.dry_run import print_job
from lumiere_jax.runtime.errors import UserError
from tests.tiny_runs import tiny_config


def test_job_is_described_and_not_started(capsys):
    config = tiny_config("ssr", train__batch_size=2 * jax.device_count())
    print_job(config)  # the temporal stage has no `init_from` here, and needs none
    out = capsys.readouterr().out
    begin, end = out.index("{"), out.index("\n}\n") + 2
    assert json.loads(out[begin:end]) == json.loads(json.dumps(config.to_dict(), default=list))
    params = jax.eval_shape(Stage.from_config(config).init_params, jax.random.key(0))
    table = {line.split()[0]: line.split()[1:] for line in out[end:].splitlines() if line.strip()}
    trained, frozen, held = (int(number.replace(",", "")) for number in table["all"])
    assert trained + frozen == held == count(params) and 0 < trained < held
    assert table["conv_in"][0] == "0" and table["temporal_down_0"][1] == "0"
    assert "one training step on" in out and "TFLOP needed" in out


def test_job_that_could_not_start():
    with pytest.raises(UserError, match="mesh.data="):
        print_job(tiny_config("t2i", mesh__data=3 * jax.device_count()))
