import pytest

import minidl as dl
from minidl.checks import LayerError, check_layer
from tests.checks.mistakes import Broken, parameter


def test_the_report_is_a_table():
    report = check_layer(dl.Dense(4, 3, seed=0), (4,))
    titles = [row.test for row in report.rows]
    lines = str(report).splitlines()
    assert lines[0].startswith("check_layer Dense(4, 3): ")
    assert " passed, 0 failed, " in lines[0]
    assert lines[1].split() == ["test", "outcome", "why"]
    assert [line[: max(map(len, titles))].strip() for line in lines[2:]] == titles


def test_a_failure_raises_on_demand_with_the_whole_report():
    wrong = Broken(lambda self, x: (x - x.mean(axis=0)) * self.gain, gain=parameter(4))
    report = check_layer(wrong, (4,))
    assert not report.passed
    assert [row.test for row in report.failures] == ["observations are independent in evaluation"]
    with pytest.raises(LayerError) as caught:
        report.raise_if_failed()
    assert str(caught.value) == str(report)
    assert "something is computed over the batch" in str(report)
