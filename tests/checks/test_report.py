import json

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


def test_json_and_html():
    report = check_layer(Broken(lambda self, x: x * self.gain.detach(), gain=parameter(4)), (4,))
    values = json.loads(report.to_json())
    assert (values["check"], values["passed"]) == ("check_layer", False)
    assert [row["test"] for row in values["rows"]] == [row.test for row in report.rows]
    assert values["compared"] == sum(row["compared"] for row in values["rows"]) > 0
    html = report._repr_html_()
    assert html.count("<tr>") == len(report.rows) + 1
    assert "<b>failed</b>" in html
    assert "&#x27;detach&#x27;" in html


def test_what_failed_comes_first():
    report = check_layer(Broken(lambda self, x: x * self.gain.detach(), gain=parameter(4)), (4,))
    lines = report.failed_first().splitlines()
    assert lines[0] == report.title()
    assert lines[1] == "- gradients exist"
