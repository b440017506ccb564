"""Cheap dataclasses do what the standard ones do."""

from __future__ import annotations

import dataclasses
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd import frozen


@frozen.dataclass(frozen=True, slots=True)
class Cheap:
    """One of ours."""

    a: int
    b: str | None = None
    c: tuple[int, ...] = ()

    def twice(self) -> int:
        """A method."""
        return 2 * self.a


@dataclasses.dataclass(frozen=True, slots=True)
class Plain:
    """The same of the standard library."""

    a: int
    b: str | None = None
    c: tuple[int, ...] = ()


@frozen.dataclass(frozen=True, slots=True)
class Empty:
    """No fields at all."""


VALUES = st.tuples(
    st.integers(0, 2), st.sampled_from((None, "x")), st.tuples(st.integers(0, 1))
)


@given(VALUES, VALUES)
def test_they_compare_as_the_standard_ones(
    one: tuple[int, str | None, tuple[int]], two: tuple[int, str | None, tuple[int]]
) -> None:
    assert (Cheap(*one) == Cheap(*two)) is (Plain(*one) == Plain(*two))
    assert hash(Cheap(*one)) == hash(Cheap(*one))
    assert len({Cheap(*one), Cheap(*two)}) == len({Plain(*one), Plain(*two)})
    assert repr(Cheap(*one)) == repr(Plain(*one)).replace("Plain", "Cheap")


def test_fields_may_be_named_or_left_to_their_defaults() -> None:
    assert Cheap(1) == Cheap(a=1) == Cheap(1, None, c=())
    assert Cheap(c=(1,), a=2) == Cheap(2, None, (1,))
    assert Cheap(3).twice() == 6
    assert Empty() == Empty()
    assert repr(Empty()) == "Empty()"


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((), {}),
        ((1, None, (), 4), {}),
        ((1,), {"d": 1}),
        ((1,), {"a": 1}),
        ((), {"b": "x"}),
    ],
)
def test_calls_that_do_not_fit(
    values: tuple[object, ...], named: dict[str, object]
) -> None:
    make: type = Cheap
    with pytest.raises(TypeError):
        make(*values, **named)


def test_nothing_can_be_changed() -> None:
    one = Cheap(1)
    for name in ("a", "d"):
        with pytest.raises(FrozenInstanceError):
            setattr(one, name, 2)
    with pytest.raises(FrozenInstanceError):
        delattr(one, "a")
    assert not hasattr(one, "__dict__")


def test_other_classes_are_never_equal() -> None:
    others: list[object] = [Plain(1), 1, (1, None, ())]
    assert Cheap(1) not in others


def test_the_tools_of_dataclasses_work() -> None:
    assert is_dataclass(Cheap)
    assert [field.name for field in fields(Cheap)] == ["a", "b", "c"]
    assert replace(Cheap(1), b="x") == Cheap(1, "x")
    match Cheap(1, "x"):
        case Cheap(a, b, ()):
            assert (a, b) == (1, "x")
        case _:
            pytest.fail("no match")


@frozen.dataclass(frozen=True, slots=True)
class Checked:
    """One that looks at what it is given."""

    a: int = 0

    def __post_init__(self) -> None:
        if self.a < 0:
            raise ValueError(self.a)


def test_what_a_class_checks_is_checked_in_every_way_to_make_one() -> None:
    assert Checked(1) == replace(Checked(), a=1)
    with pytest.raises(ValueError, match="-1"):
        Checked(-1)
    with pytest.raises(ValueError, match="-1"):
        replace(Checked(), a=-1)


def test_only_one_kind_is_made() -> None:
    decorator = frozen._dataclass  # noqa: SLF001 - what the name is at run time
    with pytest.raises(TypeError):
        decorator(frozen=False, slots=True)


@frozen.dataclass(frozen=True, slots=True)
class Base:
    """To inherit from."""

    KIND: ClassVar[str] = "kind"
    a: int
    b: int = 1


@frozen.dataclass(frozen=True, slots=True)
class Derived(Base):
    """One field more, and another default."""

    c: int = 3
    b: int = 2


def test_fields_are_inherited_in_order_and_class_variables_are_none() -> None:
    assert [field.name for field in fields(Derived)] == ["a", "b", "c"]
    assert Derived(1) == Derived(a=1, b=2, c=3)
    assert Base(1).b == 1
    assert replace(Derived(1), b=5) == Derived(1, 5, 3)
    assert Derived.KIND == "kind"
    assert vars(Derived)["__slots__"] == ("c",)
    match Derived(7):
        case Derived(a, b, c):
            assert (a, b, c) == (7, 2, 3)
