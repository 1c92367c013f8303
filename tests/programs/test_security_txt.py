"""Every committed program says who it is, as explorers look for it."""

import pytest

from tests.programs.chain_harness import PROGRAMS

BEGIN, END = b"=======BEGIN SECURITY.TXT V1=======\0", b"=======END SECURITY.TXT V1=======\0"


@pytest.mark.parametrize("name", ["authorizer", "coordinator", "treasurer"])
def test_program_carries_security_txt(name):
    data = (PROGRAMS / f"{name}.so").read_bytes()
    text = data[data.index(BEGIN) + len(BEGIN) : data.index(END)].decode().split("\0")
    fields = dict(zip(text[::2], text[1::2], strict=False))
    assert fields["name"] == name
    assert {"project_url", "contacts", "policy"} <= fields.keys()  # the standard's required fields
    assert (PROGRAMS.parents[1] / fields["policy"].split()[0]).is_file()
