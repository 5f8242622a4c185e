"""Many random functions: python -m tests.program.many_random_programs 2000 numpy."""

import collections
import sys

from hypothesis import HealthCheck, Phase, given, settings

from tests.program.random_programs import changing_functions
from tests.program.test_law import check_changing


def main(count, kernels):
    """Print how many were compiled, were refused, and differed from plain execution."""
    results = collections.Counter()

    @given(changing_functions(assigned_views=True))
    @settings(
        max_examples=count, phases=[Phase.generate], suppress_health_check=list(HealthCheck), deadline=None
    )
    def run(drawn):
        try:
            _, refusal = check_changing(drawn, kernels)
            results["the same" if refusal is None else "refused"] += 1
        except AssertionError as error:
            results["different: " + " ".join(str(error).split())[:100]] += 1

    run()
    for result, number in results.most_common():
        print(number, result)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
