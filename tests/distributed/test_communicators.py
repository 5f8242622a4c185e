"""Communicators: shares, states, hashes; a process alone, stand-ins, and real processes."""

import subprocess
import sys

import numpy
import pytest

import minidl as dl
from minidl.distributed import Communicator, Share, communicator, sharing
from tests.distributed.mirror import Mirror
from tests.distributed.mpi import needs_mpi, run


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("observations", [7, 8, 100, 1024])
def test_shares_are_disjoint_complete_and_nearly_equal(size, observations):
    shares = [Mirror(size, rank).share(observations) for rank in range(size)]
    assert [row for share in shares for row in range(observations)[share.rows]] == [*range(observations)]
    assert max(share.size for share in shares) - min(share.size for share in shares) <= 1
    assert sum(share.weight for share in shares) == pytest.approx(1)


def test_a_small_mini_batch_is_computed_whole_by_all():
    shares = [Mirror(4, rank).share(3) for rank in range(4)]
    assert all((share.rows, share.is_whole, share.weight) == (slice(0, 3), True, 0.25) for share in shares)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_of_pieces_end_where_pieces_do(size):
    bounds = [30 * i // 4 for i in range(5)]
    shares = [Mirror(size, rank).share(30, pieces=4) for rank in range(size)]
    assert [row for share in shares for row in range(30)[share.rows]] == [*range(30)]
    assert {share.start for share in shares} | {share.stop for share in shares} <= set(bounds)


def test_a_process_alone_has_everything_and_changes_nothing():
    alone, x = Communicator(), numpy.arange(3.0)
    alone.sum(x)
    assert x.tolist() == [0, 1, 2]
    assert (alone.rank, alone.size, alone.is_first) == (0, 1, True)
    assert (alone.gather("a"), alone.broadcast("b"), alone.any(False), alone.any(True)) == (
        ["a"],
        "b",
        False,
        True,
    )
    network = dl.Dense(2, 3)
    alone.synchronize(network)
    alone.require_equal(network)
    with pytest.raises(ZeroDivisionError):
        alone.from_first(lambda: 1 / 0)


def test_without_mpiexec_this_process_is_alone():
    assert communicator().size == 1
    assert communicator() is communicator()


def test_names_of_other_frameworks_are_answered_with_ours():
    with pytest.raises(AttributeError, match="'init_process_group': it is called 'communicator' here"):
        dl.distributed.init_process_group  # noqa: B018
    with pytest.raises(AttributeError, match="did you mean 'allreduce'"):
        dl.distributed.alreduce  # noqa: B018


def test_import_minidl_does_not_import_mpi4py():
    code = "import sys, minidl, minidl.training; print('mpi4py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize("name", ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_one_of_several_processes_without_mpi4py_is_an_error(name, monkeypatch):
    communicator.cache_clear()
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setenv(name, "4")
    with pytest.raises(ImportError, match=rf"one of 4 \({name}\).*pip install 'minidl\[mpi\]'"):
        communicator()
    monkeypatch.delenv(name)
    assert communicator().size == 1
    communicator.cache_clear()


class OneDiffers(Mirror):
    """What the last process gathers is something else."""

    def __init__(self, size, change):
        super().__init__(size)
        self.change = change

    def gather(self, value):
        return [value] * (self.size - 1) + [self.change(value)]


def test_other_networks_are_refused():
    ranks = OneDiffers(3, lambda kinds: [("Dense 0: weight", (3, 2), "float32"), *kinds[1:]])
    with pytest.raises(ValueError, match=r"rank 0 has \('Dense 0: weight', \(2, 3\).*rank 2 has .*\(3, 2\)"):
        ranks.synchronize(dl.Dense(2, 3))
    with pytest.raises(TypeError, match="processes share the state of Layers"):
        ranks.synchronize("network")


def test_drift_is_an_error_that_names_what_differs():
    def change(value):
        return "other" if isinstance(value, str) else value | {"Network 0: 1.generator": "other"}

    network = dl.Network([dl.Dense(2, 3), dl.Dropout(0.5)])
    Mirror(3).require_equal(network, dl.Adam(network.parameters()))
    with pytest.raises(dl.DriftError, match=r"drifted apart: Network 0: 1\.generator differ"):
        OneDiffers(3, change).require_equal(network)


@pytest.mark.parametrize("compiled", [False, True])
def test_draws_in_a_share_are_those_of_its_rows(compiled):
    generator = dl.Generator(0)

    def draw(share):
        with sharing(share):
            return [
                dl.random.normal((share.size, 3), generator=generator),
                dl.random.uniform((2 * share.size,), generator=generator),
                dl.random.bernoulli(0.5, (1,), generator=generator),
            ]

    draw = dl.compile(draw) if compiled else draw
    whole = [x.numpy() for x in draw(Share(Communicator(), 0, 10, 10))]
    for rank in range(3):
        generator.load_state_dict(dl.Generator(0).state_dict())
        share = Mirror(3, rank).share(10)
        normal, uniform, other = (x.numpy() for x in draw(share))
        numpy.testing.assert_array_equal(normal, whole[0][share.rows])
        numpy.testing.assert_array_equal(uniform, whole[1][2 * share.start : 2 * share.stop])
        numpy.testing.assert_array_equal(other, whole[2])


def test_a_function_is_compiled_anew_for_another_share():
    step = dl.compile(lambda x: dl.random.normal((len(x), 2), generator=generator))
    generator = dl.Generator(0)
    x = numpy.zeros((4, 1), "float32")
    found = []
    for share in (None, Mirror(2, 0).share(8), Mirror(2, 1).share(8), None):
        generator.load_state_dict(dl.Generator(0).state_dict())
        with sharing(share):
            found.append(step(x).numpy())
    assert (found[0] == found[3]).all()
    assert (found[0] == found[1]).all()  # the first rows
    assert not (found[1] == found[2]).any()


PROGRAM = """
import numpy
import minidl as dl
from minidl.distributed import allreduce, sharing, sum_gradients
from minidl.distributed.ordered import ordered_sum

ranks = dl.distributed.communicator()
rank, size = ranks.rank, ranks.size
assert size == 3 and ranks.local_size == 3 and ranks.local_rank == rank

for dtype in ("float32", "float64", "int32", "int64"):
    for shape in ((), (5,), (70_000,)):
        x = numpy.full(shape, rank + 1, dtype)
        ranks.sum(x.reshape(-1))
        assert (x == 6).all() and x.dtype == dtype
half = allreduce(dl.tensor([1.0, 2.0], dtype="float16"), ranks)
assert half.dtype == "float16" and half.tolist() == [3, 6]

assert ranks.gather(("a", rank)) == [("a", 0), ("a", 1), ("a", 2)]
assert ranks.broadcast(["b", rank]) == ["b", 0]
assert ranks.any(rank == 2) and not ranks.any(False)
try:
    ranks.from_first(lambda: 1 / 0)
except ZeroDivisionError:
    pass
else:
    raise AssertionError

# The gradient of a sum over processes: each has d(sum of all losses) / dx.
x = dl.tensor(numpy.full(2, rank + 1.0), requires_grad=True)
loss = (allreduce(x, ranks) ** 2).sum() * (rank + 1)
loss.backward()
assert x.grad.tolist() == [2 * 6 * 6] * 2, x.grad

# Ordered sums: whoever has the parts, the bits are those of one process.
rng = numpy.random.default_rng(0)
parts = [rng.normal(size=300_000).astype("float32") for _ in range(7)]
expected = numpy.zeros_like(parts[0])
for part in parts:
    expected += part
for cuts in ((0, 3, 5, 7), (0, 0, 7, 7), (0, 7, 7, 7), (0, 1, 1, 7)):
    total = ordered_sum(ranks, parts[cuts[rank] : cuts[rank + 1]], 300_000, expected.dtype)
    assert total.tobytes() == expected.tobytes(), cuts

# States: those of rank 0, to the last bit; then one of them drifts.
network = dl.Network([dl.Dense(3, 2, seed=rank), dl.BatchNorm(2), dl.Dropout(0.5, seed=rank)])
optimizer = dl.Adam(network.parameters(), 0.1 * (rank + 1))
ranks.synchronize(network, optimizer)
assert network[0].weight.tolist() == dl.Dense(3, 2, seed=0).weight.tolist()
assert abs(optimizer.learning_rate.item() - 0.1) < 1e-9
ranks.require_equal(network, optimizer)
if rank == 1:
    network[1].running_mean.assign([0.0, 1e-7])
try:
    ranks.require_equal(network, optimizer)
except dl.DriftError as error:
    assert "1.running_mean differ" in str(error)
else:
    raise AssertionError
ranks.synchronize(network)

# A loop of one's own, in the words of docs/distributed.md.
data = rng.normal(size=(32, 3)).astype("float32")

@dl.compile
def step(x, share):
    with sharing(share):
        loss = dl.mean_squared_error(network(x), x[:, :2]) * share.weight
    loss.backward()
    sum_gradients(network.parameters(), ranks)
    optimizer.step()
    return allreduce(loss, ranks)

for size in (32, 31, 10, 2):
    share = ranks.share(size)
    step(data[:size][share.rows], share)
    ranks.require_equal(network, optimizer)
if rank == 0:
    print("all is well")
"""


@needs_mpi
def test_real_processes(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    assert run(3, program) == "all is well\n"
