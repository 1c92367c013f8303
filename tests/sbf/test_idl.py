"""anchor-idl: putting together what Anchor's tests print."""

import json

import pytest
from sbf_toolchain import idl
from sbf_toolchain.errors import ToolchainError


def part(kind: str, value: object) -> str:
    """One part as the tests print it."""
    return f"noise\n--- IDL begin {kind} ---\n{json.dumps(value, indent=2)}\n--- IDL end {kind} ---\n"


PROGRAM = {
    "metadata": {"name": "p", "version": "0.1.0"},
    "instructions": [
        {"name": "go", "args": [{"name": "x", "type": {"defined": {"name": "p::state::Config"}}}]}
    ],
    "accounts": [],
    "types": [{"name": "p::state::Config", "type": {"kind": "struct"}}],
}
OUTPUT = (
    "running 5 tests\n"
    + part("address", "").replace('""', '"Coor1111"').replace("--- IDL end address ---\n", "")
    + part("const", {"name": "SEED", "type": "bytes", "value": "[1]"})
    + part("event", {"event": {"name": "p::Went"}, "types": [{"name": "p::Went"}, {"name": "p::a::Pair"}]})
    + part("event", {"event": {"name": "q::Pair"}, "types": [{"name": "p::b::Pair"}]})
    + part("errors", [{"code": 6000, "name": "No"}])
    + part("program", PROGRAM)
)


def test_idl_has_the_parts_in_anchor_order() -> None:
    made = json.loads(idl.render(idl.parse(OUTPUT)))
    assert list(made) == ["address", "metadata", "instructions", "events", "errors", "types", "constants"]
    assert made["address"] == "Coor1111"
    assert made["errors"] == [{"code": 6000, "name": "No"}]
    assert made["constants"] == [{"name": "SEED", "type": "bytes", "value": "[1]"}]


def test_idl_shortens_type_paths_where_the_last_part_is_unique() -> None:
    made = json.loads(idl.render(idl.parse(OUTPUT)))
    assert [t["name"] for t in made["types"]] == ["Config", "Went", "p::a::Pair", "p::b::Pair"]
    assert made["instructions"][0]["args"][0]["type"] == {"defined": {"name": "Config"}}


def test_idl_keys_and_names_are_in_the_order_of_anchor_build() -> None:
    field = {"type": "u8", "name": "x"}
    struct = {"type": {"fields": [field], "kind": "struct"}, "docs": ["A type."], "name": "B"}
    made = idl.in_order({"types": [struct, {"name": "A"}], "constants": [{"name": "Z"}, {"name": "Y"}]})
    assert json.dumps(made["types"]) == json.dumps(
        [
            {"name": "A"},
            {
                "name": "B",
                "docs": ["A type."],
                "type": {"kind": "struct", "fields": [{"name": "x", "type": "u8"}]},
            },
        ]
    )
    assert [c["name"] for c in made["constants"]] == ["Y", "Z"]


def test_idl_without_program_says_what_the_program_needs() -> None:
    with pytest.raises(ToolchainError, match="feature idl-build"):
        idl.render(idl.parse("running 0 tests\n"))
