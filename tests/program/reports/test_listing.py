"""The listing of a program."""

from tests.program.networks import trained_step


def test_the_listing_shows_forward_backward_and_update():
    text = str(trained_step().programs[0])
    assert text.index("FORWARD") < text.index("BACKWARD") < text.index("UPDATE")
    assert "256x128" in text
    # two weights, used twice each: 4 products forward, 4 + 3 backward, of which pairs add up
    flops = 2 * 256 * (96 * 128 + 128 * 64) * 2 * 3 - 2 * 256 * 96 * 128
    assert f"of them {flops / 1e6:.1f} in 9 matrix products" in text
    assert "planned" in text
