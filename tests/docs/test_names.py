"""The page of names: ours exist, and dl answers the names of others as the page does."""

import re
from functools import reduce
from pathlib import Path

import minidl as dl
from minidl.foreign_names import NAMES

PAGE = Path(__file__).parents[2] / "docs" / "names.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text().splitlines()
    if line.startswith("| `")
]


def test_ours_exist():
    assert len(ROWS) > 50
    for ours, *_ in ROWS:
        reduce(getattr, ours.strip("`").split("."), dl)


def test_every_layer_is_there():
    layers = [value for name in dir(dl) if isinstance(value := getattr(dl, name), type)]
    layers = {layer.__name__ for layer in layers if issubclass(layer, dl.Layer)}
    assert len(layers) > 30
    assert layers <= {ours.strip("`") for ours, *_ in ROWS}


def test_names_of_others_are_answered_in_the_same_way():
    answers = {}
    for ours, *others in ROWS:
        for cell in others:
            if " with " not in cell:  # a name and an option together
                answers |= dict.fromkeys(re.findall(r"`(\w+)`", cell), ours.strip("`"))
    foreign = {name: ours for name, ours in answers.items() if name not in dir(dl)}
    assert len(foreign) > 50
    assert foreign == {name: NAMES.get(name) for name in foreign}
