"""A keyword that a function does not have is answered with the one that was meant.

``dl.Adam(network.parameters(), lr=0.1)`` is answered with "learning_rate", ``dl.sum(x, dim=0)`` with "axis".
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


@functools.cache
def answering(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that does the same, and says more about a keyword that it does not have."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if not options:
            return function(*args)
        try:
            return function(*args, **options)
        except TypeError:
            problem = wrong_keyword(function, args, options)
            if problem is None:
                raise
        raise TypeError(problem)

    call.answers_keywords = True  # type: ignore[attr-defined]
    return call


def wrong_keyword(function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> str | None:
    """Return what is wrong with a keyword in a call that failed, or None if that was not the reason."""
    name, known, takes_any = function.__name__, _keywords(function), _takes_any(function)
    if name == "__init__":  # of a base class, which gets the options of the class that was called
        known = {**known, **_keywords(type(args[0]).__init__)}
    wrong = [] if takes_any else [option for option in options if option not in known]
    if not wrong:
        return None
    from minidl.foreign_names import option_hint  # not needed where no mistake is made

    title = type(args[0]).__name__ if name == "__init__" else function.__qualname__
    answer = option_hint(wrong[0], known) or f": it takes {', '.join(known) or 'none'}"
    return f"{title}() has no argument {wrong[0]!r}{answer}"


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
        if is_called_by_users and isinstance(method, FunctionType) and _has_arguments(method, besides=1):
            setattr(part, name, answering(method))


def _has_arguments(function: Any, besides: int = 0) -> bool:
    """Return whether a function has arguments besides ``self``, and is not answering already."""
    if hasattr(function, "answers_keywords"):
        return False
    code = inspect.unwrap(function).__code__
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & inspect.CO_VARARGS)
    return count > besides
