import contextlib
import json
import os
import struct
import tracemalloc
from unittest.mock import ANY

import numpy
import pytest
import safetensors.numpy

import minidl as dl
from minidl import weights
from minidl.errors import RecordingError


class Stateful(dl.Layer):
    """A Layer with a shared sub-layer, state of several dtypes, and a scalar."""

    def __init__(self, seed=0):
        self.dense = dl.Dense(3, 2, seed=seed)
        self.parts = {"again": self.dense, "list": [dl.Parameter([[1.0, 2.0]])]}
        self.scale = dl.Parameter(0.5)
        self.count = dl.tensor([7])
        self.mask = dl.tensor([True, False])


NAMES = ["dense.weight", "dense.bias", "parts.list.0", "scale", "count", "mask"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


def changed(layer):
    """Return the layer with every value different from what it was."""
    for _, x in layer.named_tensors():
        x.assign(x == 0 if x.dtype == bool else x + 1)
    return layer


def assert_same_state(layer, state):
    now = layer.state_dict()
    assert list(now) == list(state)
    for name, value in state.items():
        numpy.testing.assert_array_equal(now[name], value, err_msg=name, strict=True)


# --- metadata -------------------------------------------------------------------------------------


def read_metadata(path):
    with safetensors.safe_open(path, "numpy") as file:
        return file.metadata()


def test_texts_stand_beside_the_arrays(path):
    weights.save({"x": numpy.arange(3.0)}, path, {"epoch": "7", "note": "größer als 1"})
    texts = {"format": "minidl", "epoch": "7", "note": "größer als 1"}
    assert {**texts, "checksum": ANY} == read_metadata(path)
    numpy.testing.assert_array_equal(weights.read(path)["x"], numpy.arange(3.0))


def test_without_texts_the_file_says_what_wrote_it(path):
    dl.Dense(3, 2).save(path)
    assert read_metadata(path) == {"format": "minidl", "checksum": ANY}


def test_other_names_of_what_is_shared_stand_in_the_metadata(path):
    Stateful().save(path)
    assert read_metadata(path) == {
        "format": "minidl",
        "parts.again.weight": "dense.weight",
        "parts.again.bias": "dense.bias",
        "checksum": ANY,
    }
    refused, instead = "minidl", "use another function"
    with pytest.raises(ValueError, match=instead):
        weights.read_shared_names(path, refused, instead)


def test_texts_that_are_no_texts_are_refused_and_leave_the_old_file(path):
    weights.save({"x": numpy.zeros(1)}, path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        weights.save({"x": numpy.ones(1)}, path, {"epoch": 7})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


# --- state_dict -----------------------------------------------------------------------------------


def test_state_dict_holds_everything_once_under_its_first_name():
    state = Stateful().state_dict()
    assert list(state) == NAMES
    assert state["scale"].shape == ()
    assert state["count"].dtype == numpy.int64
    assert state["mask"].dtype == bool


def test_state_dict_is_a_copy():
    layer = Stateful()
    before = layer.state_dict()
    layer.state_dict()["dense.weight"][...] = 9
    assert_same_state(layer, before)
    changed(layer)
    assert before["scale"] == 0.5


def test_load_state_dict_sets_everything_in_place():
    layer, state = changed(Stateful()), Stateful().state_dict()
    weight, array = layer.dense.weight, layer.dense.weight.data
    layer.load_state_dict(state)
    assert_same_state(layer, state)
    assert layer.dense.weight is weight
    assert weight.data is array
    state["dense.weight"][...] = 9
    assert (layer.dense.weight.numpy() != 9).all()


def test_load_state_dict_converts_to_the_layers_dtype():
    layer = Stateful().astype("float64")
    layer.load_state_dict(changed(Stateful()).state_dict())
    assert layer.scale.dtype == numpy.float64
    assert layer.scale.item() == 1.5


def test_tensors_of_the_network_itself_may_be_exchanged():
    layer = dl.Network([dl.Dense(3, 3), dl.Dense(3, 3)])
    names, values = zip(*layer.state_dict().items(), strict=True)
    swapped = [*names[2:], *names[:2]]
    tensors = dict(layer.named_tensors())
    layer.load_state_dict({name: tensors[other] for name, other in zip(names, swapped, strict=True)})
    for name, expected in zip(swapped, values, strict=True):
        numpy.testing.assert_array_equal(tensors[name].numpy(), expected)


def test_a_compiled_function_does_not_take_the_values_of_tensors_for_a_state():
    layer = dl.Dense(3, 3)

    @dl.compile
    def load(weight, bias):
        layer.load_state_dict({"weight": weight, "bias": bias})
        return layer.weight.sum()

    with pytest.raises(RecordingError, match="reads the value of a Tensor"):
        load(dl.ones((3, 3)), dl.ones(3))


def test_a_state_that_does_not_fit_is_refused_with_all_that_is_wrong():
    layer = Stateful()
    before, state = layer.state_dict(), changed(Stateful()).state_dict()
    del state["dense.bias"], state["count"]
    state["extra"] = numpy.zeros((2, 3))
    state["dense.weight"] = numpy.zeros((2, 3))
    state["scale"] = numpy.zeros(1)
    with pytest.raises(ValueError, match="does not fit") as refusal:
        layer.load_state_dict(state)
    message = str(refusal.value)
    for problem in (
        "missing: dense.bias (2,)",
        "missing: count (1,)",
        "unexpected: extra (2, 3)",
        "wrong shape: dense.weight is (2, 3), the network takes (3, 2)",
        "wrong shape: scale is (1,), the network takes ()",
    ):
        assert problem in message
    assert_same_state(layer, before)


@pytest.mark.parametrize("value", [dl.ones(1), [1.0], "text", None, numpy.array(["text"])], ids=repr)
def test_anything_else_than_arrays_of_numbers_is_taken_or_refused_as_a_whole(value):
    layer = dl.Layer()
    layer.first, layer.second = dl.Parameter([0.0]), dl.Parameter([0.0])
    with contextlib.suppress(TypeError, ValueError):
        layer.load_state_dict({"first": numpy.ones(1), "second": value})
    assert layer.first.tolist() == layer.second.tolist()


# --- files ----------------------------------------------------------------------------------------


def test_save_and_load(path):
    layer = changed(Stateful())
    layer.save(path)
    fresh = Stateful(seed=1)
    assert fresh.load(path) is fresh
    assert_same_state(fresh, layer.state_dict())
    assert fresh.parts["again"] is fresh.dense


def test_paths_may_be_strings(path):
    Stateful().save(str(path))
    Stateful().load(str(path))


def test_other_programs_can_read_the_file(path):
    layer = Stateful()
    layer.save(path)
    arrays = safetensors.numpy.load_file(path)
    assert sorted(arrays) == sorted(NAMES)
    numpy.testing.assert_array_equal(arrays["dense.weight"], layer.dense.weight.numpy(), strict=True)
    numpy.testing.assert_array_equal(arrays["scale"], numpy.float32(0.5), strict=True)


def test_arrays_in_another_memory_order_are_saved_right(path):
    layer = dl.Layer()
    layer.weight = dl.Parameter([[1.0, 2.0], [3.0, 4.0]])
    layer.weight.data = numpy.asfortranarray(layer.weight.data)
    layer.save(path)
    numpy.testing.assert_array_equal(safetensors.numpy.load_file(path)["weight"], [[1, 2], [3, 4]])


def test_saving_and_loading_change_nothing_else(path):
    layer = Stateful().eval().astype("float64")
    layer.dense(numpy.ones((1, 3))).sum().backward()
    layer.save(path)
    layer.load(path)
    assert not layer.training
    assert layer.dense.weight.dtype == numpy.float64
    assert layer.dense.weight.requires_grad
    numpy.testing.assert_array_equal(layer.dense.weight.grad.numpy(), numpy.ones((3, 2)))


def test_weights_go_from_device_to_device(path, strict_gpu):
    layer = changed(Stateful()).to("gpu")
    layer.save(path)
    assert layer.scale.device == "gpu:0"
    here = Stateful().load(path)
    there = Stateful().to("gpu").load(path)
    assert here.scale.device == "cpu"
    assert {x.device for _, x in there.named_tensors()} == {"gpu:0"}
    assert_same_state(here, layer.state_dict())
    assert_same_state(there, layer.state_dict())
    on_gpu = {name: strict_gpu.asarray(array) for name, array in layer.state_dict().items()}
    here = Stateful()
    here.load_state_dict(on_gpu)
    assert_same_state(here, layer.state_dict())


def test_a_file_of_another_network_is_refused_by_name(path):
    dl.Dense(3, 2).save(path)
    layer = Stateful()
    before = layer.state_dict()
    with pytest.raises(ValueError, match=r"missing: dense\.weight") as refusal:
        layer.load(path)
    assert str(path) in str(refusal.value)
    assert "unexpected: weight (3, 2)" in str(refusal.value)
    assert_same_state(layer, before)


def test_a_failure_while_writing_leaves_the_old_file(path):
    resource = pytest.importorskip("resource")
    layer = Stateful()
    layer.save(path)
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) // 2, limits[1]))  # as a full disk: half of it fits
    try:
        with pytest.raises(OSError, match="File too large"):
            changed(layer).save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == old
    assert os.listdir(path.parent) == [path.name]


def test_saving_replaces_the_old_file_and_leaves_nothing_beside_it(path):
    Stateful().save(path)
    changed(Stateful()).save(path)
    assert Stateful().load(path).scale.item() == 1.5
    assert os.listdir(path.parent) == [path.name]


def safetensors_bytes(**tensors):
    """Return a hand-made file of zeros: from names to (dtype, shape, number of bytes)."""
    header, end = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


WHOLE = safetensors_bytes(weight=("F32", [3, 2], 24), bias=("F32", [2], 8))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(WHOLE[:5], id="cut in its first bytes"),
        pytest.param(WHOLE[:40], id="cut in its header"),
        pytest.param(WHOLE[:-1], id="cut by one byte"),
        pytest.param(WHOLE + b"\0", id="too long"),
        pytest.param(b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}" * 9, id="a NumPy file"),
        pytest.param(b"just some text, longer than the header's length\n" * 9, id="text"),
        pytest.param(safetensors_bytes(weight=("BF16", [3, 2], 12)), id="a dtype NumPy lacks"),
        pytest.param(safetensors_bytes(weight=("F8_E4M3", [3, 2], 6)), id="another dtype NumPy lacks"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_by_name(path, content):
    path.write_bytes(content)
    layer = dl.Dense(3, 2, seed=0)
    before = layer.state_dict()
    with pytest.raises(ValueError, match=path.name):
        layer.load(path)
    assert_same_state(layer, before)


def test_bfloat16_is_refused_where_numpy_has_learnt_it(path):
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed (the extra `interop`)")
    path.write_bytes(safetensors_bytes(weight=("BF16", [3, 2], 12)))
    with pytest.raises(ValueError, match="unknown to NumPy"):
        dl.Dense(3, 2, bias=False).load(path)


def test_the_hand_made_file_is_whole(path):
    path.write_bytes(WHOLE)
    assert not dl.Dense(3, 2).load(path).weight.numpy().any()


def test_a_missing_file_or_folder_is_named(path):
    with pytest.raises(FileNotFoundError, match=path.name):
        Stateful().load(path)
    with pytest.raises(FileNotFoundError, match=path.parent.name):
        Stateful().load(path.parent)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Stateful().save(path.parent / "nowhere" / "weights.safetensors")
    assert os.listdir(path.parent) == []


# --- numbers that would lose their meaning --------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scale", numpy.float32("nan"), r"not a number: scale has elements that are NaN"),
        ("scale", numpy.int32(3), r"wrong type: scale is int32, the network takes float32"),
        ("scale", numpy.bool_(True), r"wrong type: scale is bool, the network takes float32"),
        ("scale", numpy.float64(1e300), r"out of range: scale has elements that float32 cannot hold"),
        ("count", numpy.array([7.0]), r"wrong type: count is float64, the network takes int64"),
        ("count", numpy.array([2**63], "uint64"), r"out of range: count has elements that int64 cannot hold"),
        ("mask", numpy.array([1, 0], "uint8"), r"wrong type: mask is uint8, the network takes bool"),
    ],
)
def test_numbers_that_would_change_are_refused(path, name, value, message):
    layer = Stateful()
    before = layer.state_dict()
    weights.save({**before, name: value}, path)
    with pytest.raises(ValueError, match=message) as refusal:
        layer.load(path)
    assert str(path) in str(refusal.value)
    assert_same_state(layer, before)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale", numpy.float64(0.1)),
        ("scale", numpy.float16(0.5)),
        ("scale", numpy.float64("-inf")),
        ("count", numpy.array([9], "uint8")),
    ],
)
def test_numbers_that_keep_their_meaning_are_taken(path, name, value):
    layer = Stateful()
    weights.save({**layer.state_dict(), name: value}, path)
    layer.load(path)
    assert dict(layer.named_tensors())[name].numpy() == numpy.asarray(
        value, dict(layer.named_tensors())[name].dtype
    )


def test_state_may_be_nan_as_that_of_a_normalize_layer_that_was_not_fitted(path):
    dl.Normalize((3,)).save(path)
    assert not dl.Normalize((3,)).load(path).fitted


DTYPES = [
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    "float16",
    "float64",
]


@pytest.mark.parametrize("order", ["<", ">"])
def test_every_dtype_comes_back_from_the_library_too(path, order, rng):
    arrays = {
        name: rng.integers(0, 2, (3, 2)).astype(numpy.dtype(name).newbyteorder(order)) for name in DTYPES
    }
    arrays |= {"empty": numpy.zeros((0, 4), "f4"), "scalar": numpy.array(2.5)}
    weights.save(arrays, path, {"note": "größer"})
    for read in (weights.read(path), safetensors.numpy.load_file(path)):
        assert sorted(read) == sorted(arrays)
        for name, array in arrays.items():
            numpy.testing.assert_array_equal(
                read[name], array.astype(array.dtype.newbyteorder("=")), strict=True
            )


@pytest.mark.parametrize(
    "array", [numpy.array(["a"]), numpy.zeros(2, "complex128"), numpy.array([None])], ids=str
)
def test_what_the_format_cannot_hold_is_named(path, array):
    with pytest.raises(TypeError, match=r"'x' holds .* values, which safetensors files cannot hold"):
        weights.save({"x": array}, path)
    assert os.listdir(path.parent) == []


def test_saving_takes_no_second_copy_of_everything(path):
    arrays = {str(i): numpy.zeros(250_000, "f4") for i in range(20)}
    tracemalloc.start()
    weights.save(arrays, path)
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()


def test_any_changed_byte_is_noticed(path):
    changed(Stateful()).save(path)
    content = path.read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            read = weights.read(path)
        except ValueError as error:
            if path.name not in str(error):
                raise
        else:  # white space, or the name of the checksum
            for name, array in changed(Stateful()).state_dict().items():
                numpy.testing.assert_array_equal(read[name], array, strict=True)


def test_a_file_without_a_checksum_is_read(path):
    safetensors.numpy.save_file({"x": numpy.ones(2)}, path)
    assert weights.read(path)["x"].tolist() == [1.0, 1.0]
