import json
import math

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from lumiere_jax.runtime import metric_writer
from lumiere_jax.runtime.metric_writer import MetricsFile, create_writer


def steps(folder):
    return [line["step"] for line in metric_writer.read(folder)]


def write(folder, resumed_step, last_step):
    metrics = MetricsFile(folder, resumed_step)
    for step in range(resumed_step + 1, last_step + 1):
        metrics.write_scalars(step, {"loss": step / 7})
    metrics.close()


def test_round_trip_is_exact(tmp_path):
    write(tmp_path, 0, 3)
    assert [line["loss"] for line in metric_writer.read(tmp_path)] == [1 / 7, 2 / 7, 3 / 7]
    assert not list(tmp_path.glob("*.tmp"))


def test_resumed_run_drops_what_came_later(tmp_path):
    write(tmp_path, 0, 9)
    write(tmp_path, 4, 6)
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]
    write(tmp_path, 0, 2)  # started afresh
    assert steps(tmp_path) == [1, 2]


def test_half_written_last_line_is_left_out(tmp_path):
    write(tmp_path, 0, 4)
    text = (tmp_path / metric_writer.FILE).read_text()
    last = text.splitlines()[-1]
    for length in range(1, len(last)):
        (tmp_path / metric_writer.FILE).write_text(text[: -len(last) - 1] + last[:length])
        assert steps(tmp_path) == [1, 2, 3]
    write(tmp_path, 4, 5)
    assert steps(tmp_path) == [1, 2, 3, 5]


def test_lines_are_seen_at_once(tmp_path):
    metrics = MetricsFile(tmp_path, 0)
    metrics.write_scalars(1, {"loss": 0.5})
    assert steps(tmp_path) == [1]  # though it is not closed: what a killed run leaves
    metrics.close()


def test_what_is_not_finite_is_still_json(tmp_path):
    metrics = MetricsFile(tmp_path, 0)
    metrics.write_scalars(1, {"loss": math.nan, "gradient_norm": math.inf, "rate": 2})
    metrics.close()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    line = json.loads((tmp_path / metric_writer.FILE).read_text(), parse_constant=refuse)
    assert line == {"step": 1, "loss": None, "gradient_norm": None, "rate": 2.0}


def test_no_file_has_no_lines(tmp_path):
    assert steps(tmp_path) == []


def test_tensorboard_has_the_same_values(tmp_path):
    metrics = create_writer(tmp_path, 0)
    for step in (1, 2):
        metrics.write_scalars(step, {"loss": step / 4})
    metrics.close()
    events = EventAccumulator(str(tmp_path)).Reload().Tensors("loss")
    found = [(event.step, float(make_ndarray(event.tensor_proto))) for event in events]
    assert found == [(1, 0.25), (2, 0.5)]
    assert steps(tmp_path) == [1, 2]
