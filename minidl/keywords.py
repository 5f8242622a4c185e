"""Arguments that a function does not take are answered with what it takes: wrong keywords, and wrong kinds.

``dl.Adam(network.parameters(), lr=0.1)`` is answered with "learning_rate", ``dl.sum(x, dim=0)`` with "axis",
``dl.Dense("a", 3)`` with "in_features is an integer".
The face of the package puts `answering` around its functions, constructors and methods.
Inside the package the functions call each other without it.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

from minidl.tracking import NotHere

#: Methods of these modules are called by the Trainer's loops at each mini-batch: looking first would be felt.
_EACH_MINI_BATCH = ("minidl.training.steps",)


@functools.cache
def answering(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that does the same, and says more about arguments that it does not take.

    Constructors, and methods that train, look at the kinds of their arguments first. Operations look only
    when they have failed: that costs nothing where nothing is wrong.
    """
    looks_first = function.__name__ == "__init__" or (
        function.__module__.startswith("minidl.training.") and function.__module__ not in _EACH_MINI_BATCH
    )

    def call(*args: Any, **options: Any) -> Any:
        problem = wrong_kind(function, args, options) if looks_first else None
        if problem is None:
            try:
                return function(*args, **options)
            except (TypeError, AttributeError):
                problem = wrong_call(function, args, options) or wrong_kind(function, args, options)
                if problem is None:
                    raise
        raise TypeError(problem)

    call.__name__, call.__qualname__ = function.__name__, function.__qualname__
    call.__module__, call.__doc__ = function.__module__, function.__doc__
    vars(call).update(
        vars(function), __wrapped__=function, answers_keywords=True
    )  # functools.wraps takes longer
    return call


def wrong_call(function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> str | None:
    """Return what is wrong with the arguments of a call that failed, but for missing ones, or None."""
    parameters = [*inspect.signature(function).parameters.values()]
    places = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(args) > len(places) and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        owner = places[:1] == ["self"]
        names = ", ".join(places[owner:]) or "none"
        given = len(args) - owner
        return f"{_title(function, args)}() takes no more than {names} by position; got {given} arguments"
    return wrong_keyword(function, args, options)


def wrong_keyword(function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> str | None:
    """Return what is wrong with a keyword in a call that failed, or None if that was not the reason."""
    name, known, takes_any = function.__name__, _keywords(function), _takes_any(function)
    if name == "__init__":  # of a base class, which gets the options of the class that was called
        known = {**known, **_keywords(type(args[0]).__init__)}
    wrong = [] if takes_any else [option for option in options if option not in known]
    if not wrong:
        return None
    from minidl.foreign_names import option_hint  # not needed where no mistake is made

    answer = option_hint(wrong[0], known) or f": it takes {', '.join(known) or 'none'}"
    return f"{_title(function, args)}() has no argument {wrong[0]!r}{answer}"


#: What an argument may be that is annotated with a type: how it is called, and what tells it.
KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("an integer", lambda value: hasattr(type(value), "__index__")),
    "float": ("a number", lambda value: hasattr(type(value), "__float__")),
    "bool": ("True or False", lambda value: type(value).__name__ in ("bool", "bool_")),
    "str": ("a string", lambda value: isinstance(value, str)),
    "None": ("None", lambda value: value is None),
}


def wrong_kind(function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> str | None:
    """Return which argument is of another kind than its annotation says, or None.

    Annotations of numbers, bools, strings and None are looked at, and of several of them.
    """
    try:
        given = inspect.signature(function).bind(*args, **options).arguments
    except TypeError:
        return None  # Python says it well
    for name, kinds in _simple_kinds(function).items():
        for value in _each(function, name, given):
            if not any(KINDS[kind][1](value) for kind in kinds):
                wanted = " or ".join(KINDS[kind][0] for kind in kinds)
                return f"{_title(function, args)}: {name} is {wanted}, got {_shortened(value)}"
    return None


def _each(function: Callable[..., Any], name: str, given: dict[str, Any]) -> Iterable[Any]:
    """Return the values that were given for an argument: none, one, or several for ``*name``."""
    if name not in given:
        return ()
    several = inspect.signature(function).parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
    return given[name] if several else (given[name],)


@functools.cache
def _simple_kinds(function: Callable[..., Any]) -> dict[str, list[str]]:
    """Return the kinds that each argument may have, by name, where the annotation is a simple one."""
    kinds = {}
    for parameter in inspect.signature(function).parameters.values():
        parts = [part.strip() for part in str(parameter.annotation).split("|")]
        if all(part in KINDS for part in parts):
            kinds[parameter.name] = parts
    return kinds


def _title(function: Callable[..., Any], args: tuple[Any, ...]) -> str:
    return type(args[0]).__name__ if function.__name__ == "__init__" else function.__qualname__


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{type(value).__name__} {text[:50]}..."


def _keywords(function: Callable[..., Any]) -> dict[str, None]:
    """Return the names of the arguments that can be given by name, in their order, without ``self``."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(function).parameters.values()
    return {p.name: None for p in parameters if p.kind in by_name and p.name != "self"}


def _takes_any(function: Callable[..., Any]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def answer_in(namespace: dict[str, Any], names: Iterable[str]) -> None:
    """Put answering() around functions of a module, and around what classes in it do when they are called.

    A function is replaced in the module that it comes from, too.
    """
    for name in names:
        value: Any = namespace[name]
        if not getattr(value, "__module__", "").startswith("minidl."):
            continue  # what a module has imported from elsewhere
        if type(value) is FunctionType and _has_arguments(value):
            namespace[name] = call = answering(value)
            home, own_name = vars(sys.modules[value.__module__]), value.__name__
            if home.get(own_name) is value:
                home[own_name] = call
        elif isinstance(value, type):
            for part in value.__mro__[:-1]:
                if part.__module__.startswith("minidl."):
                    _answer_in_class(part)


@functools.cache  # several classes have the same bases
def _answer_in_class(part: type) -> None:
    for name, method in list(vars(part).items()):
        is_called_by_users = name == "__init__" or not name.startswith("_")
        if getattr(method, "__qualname__", "") == "Tensor.__init__":  # every operation calls it
            continue
        if is_called_by_users and isinstance(method, FunctionType) and _has_arguments(method, besides=1):
            setattr(part, name, answering(method))


#: What other libraries' arrays have, and Tensors have not; foreign_names says what to write.
NOT_OF_TENSORS = [
    "cuda",
    "cpu",
    "get",
    "view",
    "permute",
    "unsqueeze",
    "dim",
    "numel",
    "t",
    "mT",
    "clamp",
    "clone",
    "contiguous",
    "expand",
    "gather",
    "masked_fill",
    "mm",
    "bmm",
    "matmul",
    "pow",
    "abs",
    "amax",
    "amin",
    "type",
    "float",
    "double",
    "half",
    "long",
    "int",
    "bool",
    "requires_grad_",
    "retain_grad",
    "register_hook",
    "is_leaf",
    "grad_fn",
    "stop_gradient",
    "copy_",
    "fill_",
    "zero_",
    "add_",
    "sub_",
    "mul_",
    "div_",
    "set",
]


def answer_attributes(tensor: type, functions: Iterable[str]) -> None:
    """Have Tensors answer names that are functions here, and names of other libraries."""
    for name in {*NOT_OF_TENSORS, *functions} - set(dir(tensor)):
        setattr(tensor, name, NotHere(name))


def _has_arguments(function: Any, besides: int = 0) -> bool:
    """Return whether a function has arguments besides ``self``, and is not answering already."""
    if hasattr(function, "answers_keywords"):
        return False
    code = (inspect.unwrap(function) if hasattr(function, "__wrapped__") else function).__code__
    count: int = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & inspect.CO_VARARGS)
    return count > besides
