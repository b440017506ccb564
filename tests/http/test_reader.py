"""The exact reader's verdicts: texts, lines and columns of serde_json."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmmd import config as c
from vmmd.http import bodies as b
from vmmd.http import objects
from vmmd.http.reader import one_of, read
from vmmd.http.scanner import SerdeFault
from vmmd.http.shapes import (
    Any,
    Enum,
    Field,
    Int,
    Option,
    Seq,
    Shape,
    Struct,
    Text,
    Untagged,
)

PLAIN = Struct("Plain", tuple, (Field("n", objects.U8),))
MACHINE = objects.MACHINE_CONFIG
MACHINE_FIELDS = (
    "`vcpu_count`, `mem_size_mib`, `smt`, `cpu_template`, `track_dirty_pages`,"
    " `huge_pages`"
)


def verdict(shape: Shape, body: str | bytes) -> str:
    """The text of the fault, or the value's repr."""
    data = body if isinstance(body, bytes) else body.encode()
    try:
        return repr(read(shape, data))
    except SerdeFault as fault:
        return str(fault)


DOCUMENTS = [
    ("", "EOF while parsing a value at line 1 column 0"),
    ("   ", "EOF while parsing a value at line 1 column 3"),
    ("\n\n ", "EOF while parsing a value at line 3 column 1"),
    ("{", "EOF while parsing an object at line 1 column 1"),
    ("[", "EOF while parsing a list at line 1 column 1"),
    ('{"vcpu_count"', "EOF while parsing an object at line 1 column 13"),
    ('{"vcpu_count":', "EOF while parsing a value at line 1 column 14"),
    ('{"vcpu_count":1', "EOF while parsing an object at line 1 column 15"),
    ('{"vcpu_count":1,', "EOF while parsing a value at line 1 column 16"),
    ('{"vcpu', "EOF while parsing a string at line 1 column 6"),
    ("nope", "expected ident at line 1 column 2"),
    ("tru", "EOF while parsing a value at line 1 column 3"),
    ("NaN", "expected value at line 1 column 1"),
    ("null", "invalid type: null, expected struct MachineConfig at line 1 column 4"),
    (
        "true",
        "invalid type: boolean `true`, expected struct MachineConfig at line 1"
        " column 4",
    ),
    (
        "7",
        "invalid type: integer `7`, expected struct MachineConfig at line 1 column 1",
    ),
    (
        '"a\\"b"',
        'invalid type: string "a\\"b", expected struct MachineConfig at line 1 column 6',
    ),
    ("/* */ {}", "expected value at line 1 column 1"),
    ('{"vcpu_count":1,}', "trailing comma at line 1 column 17"),
    ("{'vcpu_count':1}", "key must be a string at line 1 column 2"),
    ('{"vcpu_count":1,2}', "key must be a string at line 1 column 17"),
    ('{"vcpu_count" 1}', "expected `:` at line 1 column 15"),
    ('{"vcpu_count":1 "smt":true}', "expected `,` or `}` at line 1 column 17"),
    ('{"vcpu_count":01}', "invalid number at line 1 column 16"),
    ('{"vcpu_count":-}', "invalid number at line 1 column 16"),
    ('{"vcpu_count":1.}', "invalid number at line 1 column 17"),
    ('{"vcpu_count":1.', "EOF while parsing a value at line 1 column 16"),
    ('{"vcpu_count":1e}', "invalid number at line 1 column 17"),
    ('{"vcpu_count":+1}', "expected value at line 1 column 15"),
    ('{"vcpu_count":.5}', "expected value at line 1 column 15"),
    (
        '{"vcpu_count":1,"mem_size_mib":1}}',
        "trailing characters at line 1 column 34",
    ),
    (
        '{"vcpu_count":1,"mem_size_mib":1} x',
        "trailing characters at line 1 column 35",
    ),
]


@pytest.mark.parametrize(("body", "text"), DOCUMENTS, ids=lambda x: repr(x)[:30])
def test_documents(body: str, text: str) -> None:
    assert verdict(MACHINE, body) == text


FIELDS = [
    ("{}", "missing field `vcpu_count` at line 1 column 2"),
    ('{"mem_size_mib":256}', "missing field `vcpu_count` at line 1 column 20"),
    ('{"vcpu_count":2 }', "missing field `mem_size_mib` at line 1 column 17"),
    ('{"vcpu_count":2\n}', "missing field `mem_size_mib` at line 2 column 1"),
    (
        '{"vcpu_count":2,"vcpu_count":2}',
        "duplicate field `vcpu_count` at line 1 column 28",
    ),
    (
        '{"vcpu_count":2,"vcpu_count" }',
        "duplicate field `vcpu_count` at line 1 column 30",
    ),
    (
        '{"x":null,"vcpu_count":"y"}',
        f"unknown field `x`, expected one of {MACHINE_FIELDS} at line 1 column 4",
    ),
    (
        '{\n"vcpu_count": 1, "é":1}',
        f"unknown field `é`, expected one of {MACHINE_FIELDS} at line 2 column 21",
    ),
    (
        '{"vcpu_count":-1}',
        "invalid value: integer `-1`, expected u8 at line 1 column 16",
    ),
    (
        '{"vcpu_count":256}',
        "invalid value: integer `256`, expected u8 at line 1 column 17",
    ),
    (
        '{"vcpu_count":-0}',
        "invalid type: floating point `-0.0`, expected u8 at line 1 column 16",
    ),
    (
        '{"vcpu_count":1.50}',
        "invalid type: floating point `1.5`, expected u8 at line 1 column 18",
    ),
    (
        '{"vcpu_count":1e2}',
        "invalid type: floating point `100.0`, expected u8 at line 1 column 17",
    ),
    ('{"vcpu_count":null}', "invalid type: null, expected u8 at line 1 column 18"),
    ('{"vcpu_count":[1]}', "invalid type: sequence, expected u8 at line 1 column 14"),
    ('{"vcpu_count":{}}', "invalid type: map, expected u8 at line 1 column 14"),
    (
        '{"vcpu_count":  true }',
        "invalid type: boolean `true`, expected u8 at line 1 column 20",
    ),
    (
        '{"vcpu_count":2,"mem_size_mib":18446744073709551616}',
        "invalid type: floating point `1.8446744073709552e+19`, expected usize at line"
        " 1 column 51",
    ),
    (
        '{"vcpu_count":2,"mem_size_mib":-9223372036854775808}',
        "invalid value: integer `-9223372036854775808`, expected usize at line 1"
        " column 51",
    ),
    (
        '{"vcpu_count":2,"mem_size_mib":-9223372036854775809}',
        "invalid type: floating point `-9.223372036854776e+18`, expected usize at line"
        " 1 column 51",
    ),
    ('{"smt":1}', "invalid type: integer `1`, expected a boolean at line 1 column 8"),
    ('{"smt":null}', "invalid type: null, expected a boolean at line 1 column 11"),
    ('{"smt":nul}', "expected ident at line 1 column 11"),
    ('{"smt":falsy}', "expected ident at line 1 column 12"),
    ('{"huge_pages":3}', "expected value at line 1 column 15"),
    ('{"huge_pages":null}', "expected value at line 1 column 15"),
    (
        '{"huge_pages":"1G"}',
        "unknown variant `1G`, expected `None` or `2M` at line 1 column 18",
    ),
    (
        '{"cpu_template":"T9"}',
        "unknown variant `T9`, expected one of `C3`, `T2`, `T2S`, `None`, `T2CL`,"
        " `T2A` at line 1 column 20",
    ),
]


@pytest.mark.parametrize(("body", "text"), FIELDS, ids=lambda x: repr(x)[:40])
def test_fields(body: str, text: str) -> None:
    assert verdict(MACHINE, body) == text


ARRAYS = [
    (MACHINE, "[]", "invalid length 0, expected struct MachineConfig with 6 elements"),
    (MACHINE, "[1]", "invalid length 1, expected struct MachineConfig with 6 elements"),
    (objects.VM_UPDATE, "[]", "invalid length 0, expected struct Vm with 1 element"),
    (objects.VSOCK, "[]", "invalid length 1, expected struct VsockDeviceConfig with 3"
     " elements"),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "body", "text"), ARRAYS)
def test_arrays_that_are_too_short(shape: Struct, body: str, text: str) -> None:
    assert verdict(shape, body) == f"{text} at line 1 column {len(body)}"


def test_arrays_stand_for_objects() -> None:
    assert read(MACHINE, b"[2, 64]") == c.MachineConfig(2, 64)
    assert read(MACHINE, b'[2,64,true,"T2",true,"2M"]') == c.MachineConfig(
        2, 64, True, c.CpuTemplateName.T2, True, c.HugePages.HUGETLBFS_2M
    )
    assert verdict(MACHINE, '[2,64,true,null,true,"2M",1]') == (
        "trailing characters at line 1 column 27"
    )
    assert verdict(MACHINE, "[2,64,]") == "trailing comma at line 1 column 7"
    assert verdict(MACHINE, "[2 64]") == "expected `,` or `]` at line 1 column 4"


STRINGS = [
    ('{"kernel_image_path":"\\x"}', "invalid escape at line 1 column 24"),
    ('{"kernel_image_path":"\\u12g4"}', "invalid escape at line 1 column 28"),
    ('{"kernel_image_path":"\\u12', "EOF while parsing a string at line 1 column 26"),
    ('{"kernel_image_path":"\\', "EOF while parsing a string at line 1 column 23"),
    (
        '{"kernel_image_path":"\\udc00"}',
        "lone leading surrogate in hex escape at line 1 column 28",
    ),
    (
        '{"kernel_image_path":"\\ud83d"}',
        "unexpected end of hex escape at line 1 column 29",
    ),
    (
        '{"kernel_image_path":"\\ud83d\\n"}',
        "unexpected end of hex escape at line 1 column 30",
    ),
    (
        '{"kernel_image_path":"\\ud83d\\u0041"}',
        "lone leading surrogate in hex escape at line 1 column 34",
    ),
    (
        '{"kernel_image_path":"a\tb"}',
        "control character (\\u0000-\\u001F) found while parsing a string at line 1"
        " column 24",
    ),
]


@pytest.mark.parametrize(("body", "text"), STRINGS)
def test_strings(body: str, text: str) -> None:
    assert verdict(objects.BOOT_SOURCE, body) == text


def test_bytes_that_are_not_utf8() -> None:
    text = "invalid unicode code point at line 1 column 4"
    assert verdict(MACHINE, b'{"\xff"}') == text
    # Nobody looks at a skipped value.
    body = b'{"metrics_path":"m","x":["\xff"]}'
    assert read(objects.METRICS, body) == c.MetricsConfig("m")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('{"action_type":{"InstanceStart":null}}', None),
        ('{"action_type": { "InstanceStart" : null } }', None),
        (
            '{"action_type":{"Nope":null}}',
            "unknown variant `Nope`, expected one of `FlushMetrics`, `InstanceStart`,"
            " `SendCtrlAltDel` at line 1 column 22",
        ),
        (
            '{"action_type":{"InstanceStart":1}}',
            "invalid type: integer `1`, expected unit at line 1 column 33",
        ),
        ('{"action_type":{}}', "expected value at line 1 column 17"),
        (
            '{"action_type":{1:2}}',
            "invalid type: integer `1`, expected variant identifier at line 1"
            " column 17",
        ),
        ('{"action_type":{"InstanceStart"}}', "expected `:` at line 1 column 32"),
        (
            '{"action_type":{"InstanceStart":null,"a":1}}',
            "expected value at line 1 column 36",
        ),
        (
            '{"action_type":{"InstanceStart":null',
            "EOF while parsing an object at line 1 column 36",
        ),
        ('{"action_type":{', "EOF while parsing a value at line 1 column 16"),
    ],
)
def test_variants_as_objects(body: str, text: str | None) -> None:
    started = b.ActionBody(c.ActionType.INSTANCE_START)
    assert verdict(objects.ACTION_BODY, body) == (text or repr(started))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('{"level":"fatal"}', "Invalid LevelFilter at line 1 column 17"),
        # The place is where the object stops being read.
        ('{"level":"fatal" }', "Invalid LevelFilter at line 1 column 18"),
        ('{"level":"fatal","module":1}', "Invalid LevelFilter at line 1 column 16"),
        ('{"level":"fatal"', "Invalid LevelFilter at line 1 column 16"),
        ('["l","fatal"]', "Invalid LevelFilter at line 1 column 13"),
        ('["l","fatal", 1]', "Invalid LevelFilter at line 1 column 14"),
        ('{"log_path":5}', "invalid type: integer `5`, expected path string at line 1"
         " column 13"),
    ],
)  # fmt: skip
def test_syntaxes_behind_a_string(body: str, text: str) -> None:
    assert verdict(objects.LOGGER, body) == text


def test_syntaxes_inside_a_string() -> None:
    body = '{"network_interfaces":[],"ipv4_address":"1.2.3","x":1}'
    text = "invalid IPv4 address syntax at line 1 column 47"
    assert verdict(objects.MMDS_CONFIG, body) == text


def test_nested_places() -> None:
    body = '{"rate_limiter":{"ops":{"size":1},"bandwidth":null}}'
    assert verdict(objects.ENTROPY, body) == (
        "missing field `refill_time` at line 1 column 33"
    )
    body = '{"rate_limiter":{"ops":{"size":1,"refill_time":1,"size":2}}}'
    assert (
        verdict(objects.ENTROPY, body) == "duplicate field `size` at line 1 column 55"
    )
    body = '{"rate_limiter":{"unknown":1}}'
    assert verdict(objects.ENTROPY, body) == (
        "unknown field `unknown`, expected `bandwidth` or `ops` at line 1 column 26"
    )


def test_untagged() -> None:
    either = Option(Untagged("Either", (Text(), PLAIN)))
    assert read(either, b"null") is None
    assert read(either, b'"a"') == "a"
    assert verdict(Seq(either), "[ 5 ]") == (
        "data did not match any variant of untagged enum Either at line 1 column 5"
    )


def test_depth() -> None:
    assert read(Any(), b"[" * 127 + b"]" * 127)
    assert verdict(Any(), "[" * 128) == "recursion limit exceeded at line 1 column 128"
    body = '{"a":' * 128
    assert (
        verdict(Any(), body)
        == f"recursion limit exceeded at line 1 column {127 * 5 + 1}"
    )


def test_lists_of_names() -> None:
    assert one_of(()) == "there are no fields"
    assert one_of(("a",)) == "expected `a`"
    assert one_of(("a", "b")) == "expected `a` or `b`"
    assert one_of(("a", "b", "c")) == "expected one of `a`, `b`, `c`"


def test_values() -> None:
    assert read(Int("u64", 64), b" 18446744073709551615 ") == (1 << 64) - 1
    assert read(Enum(c.CacheType), b'"Unsafe"') is c.CacheType.UNSAFE
    assert read(Text(), '"\\u00e9\\ud83d\\ude00é\\/"'.encode()) == "é😀é/"
    assert read(Any(), b'{"a":1,"a":[null,true,-2,1.5]}') == {
        "a": [None, True, -2, 1.5]
    }


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON_VALUES, st.booleans())
def test_any_json_is_read(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert read(Any(), text.encode()) == value


@given(st.binary(max_size=40))
def test_no_bytes_break_it(body: bytes) -> None:
    for shape in (Any(), MACHINE, objects.METRICS, objects.VMM_CONFIG):
        verdict(shape, body)


@given(st.text('{}[]:,"\\u01e.-tfnullrs \n', max_size=14))
def test_it_accepts_what_json_is(body: str) -> None:
    try:
        json.loads(body)
    except ValueError:
        with pytest.raises(SerdeFault):
            read(Any(), body.encode())
    else:
        text = verdict(Any(), body)
        refused = ("surrogate", "hex escape", "out of range", "unicode")
        assert " at line " not in text or any(word in text for word in refused)
