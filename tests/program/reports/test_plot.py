"""The plot of a program."""

from tests.program.networks import trained_step


def test_a_program_can_be_drawn(tmp_path):
    trained_step().programs[0].plot(tmp_path / "program.png", repeats=2)
    assert (tmp_path / "program.png").read_bytes().startswith(b"\x89PNG")
