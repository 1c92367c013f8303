"""Runs: creation, specification, rules, authority, closing."""

import hashlib

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from tests.programs.chain_harness import COORDINATOR, SPEC, Run, config, seed
from tests.programs.run_state_view import account_size


def test_create_run_stores_what_was_given(chain):
    run = Run(chain, capacity=3)
    created = run.create().event("RunCreated")
    assert (created["run"], created["run_state"], created["run_id"]) == (
        run.key,
        run.log.pubkey(),
        run.run_id,
    )
    stored = run.account("Run", run.key)
    assert stored["creator"] == stored["authority"] == run.creator.pubkey()
    assert stored["run_state"] == run.log.pubkey()
    assert (stored["name"], stored["run_id"], stored["spec_len"]) == ("A run", "llama-20m", len(SPEC))
    state = run.state
    assert (state.version, state.capacity, state.phase, state.next_round) == (1, 3, "Uninitialized", 1)
    assert state.run == bytes(run.key)
    assert run.account("Spec", run.spec_key) | {"bump": 0} == {
        "run": run.key,
        "sealed": False,
        "bump": 0,
        "len": 0,
    }


@pytest.mark.parametrize("run_id", ["", "Llama", "a b", "a_b", "ü", "x" * 33])
def test_create_run_with_a_bad_id_is_refused(chain, refused, run_id):
    run = Run(chain)
    with refused("RunIdInvalid"):
        # the address is that of the bad id, cut to what a seed holds
        run.run_id = run_id.encode()[:32].decode()
        run.create(run_id=run_id)
    run.run_id = "x" * 32
    run.create()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "x" * 65}, "NameTooLong"),
        ({"description": "x" * 281}, "DescriptionTooLong"),
        ({"min_client_version": "x" * 33}, "ClientVersionTooLong"),
        ({"spec_len": 0}, "SpecLength"),
        ({"spec_len": 10_001}, "SpecLength"),
        ({"authority": Pubkey.default()}, "AuthorityMissing"),
    ],
)
def test_create_run_with_a_bad_field_is_refused(chain, refused, changes, error):
    run = Run(chain)
    with refused(error):
        run.create(**changes)
    run.create()


@pytest.mark.parametrize("size", [0, 7, 8, account_size(1) - 1, account_size(1) + 1, account_size(257)])
def test_create_run_with_a_log_of_wrong_size_is_refused(chain, refused, size):
    run = Run(chain)
    with refused("WrongRunState" if size < 8 else "WrongSize"):
        run.create(size=size)
    run.create(size=account_size(1))


def test_log_fits_its_limits():
    assert account_size(16) <= 8 * 1024
    assert account_size(256) <= 72 * 1024


def test_create_run_with_256_slots(chain):
    run = Run(chain, capacity=256)
    run.create()
    assert run.state.capacity == 256


def test_log_belongs_to_one_run(chain, refused):
    first = Run(chain)
    first.create()
    second = Run(chain, run_id="another", creator=first.creator, log=first.log)
    ix = COORDINATOR.instruction(
        "create_run",
        second.accounts,
        args={
            "run_id": "another",
            "name": "",
            "description": "",
            "authority": second.creator.pubkey(),
            "join_authority": Pubkey.default(),
            "min_client_version": "",
            "spec_len": 1,
            "spec_sha256": bytes(32),
        },
    )
    with refused("RunStateNotEmpty"):
        chain.send(ix, second.creator, second.log)


def test_run_ids_of_two_creators_do_not_collide(chain):
    Run(chain).create()
    Run(chain).create()


def test_spec_is_written_in_pieces_and_sealed(chain, run):
    run.write_spec(300)
    data = chain.data(run.spec_key)
    assert data is not None
    assert data[8 + 38 :] == SPEC
    run.act("write_spec", offset=5, bytes=SPEC[5:9])  # the same again changes nothing
    run.act("seal_spec")
    assert run.account("Spec", run.spec_key)["sealed"]
    assert run.state.spec_hash == hashlib.sha256(SPEC).digest()
    assert run.state.phase == "Uninitialized"
    run.act("configure", config=config())
    assert run.state.phase == "Paused"


def test_largest_spec_fits(chain):
    spec = bytes(range(250)) * 40
    run = Run(chain, spec=spec)
    run.create()
    run.write_spec(900)
    units = run.act("seal_spec").units
    assert units < 60_000
    data = chain.data(run.spec_key)
    assert data is not None
    assert data[46:] == spec


def test_spec_piece_errors(run, refused):
    with refused("SpecGap"):
        run.act("write_spec", offset=1, bytes=b"x")
    run.act("write_spec", offset=0, bytes=SPEC[:100])
    for offset, piece in ((100, SPEC[100:500] + bytes(len(SPEC))), (2**32 - 1, b"xx"), (len(SPEC), b"x")):
        with refused("SpecTooLong"):
            run.act("write_spec", offset=offset, bytes=piece[: 10 if offset > len(SPEC) else 1000])
    with refused("SpecIncomplete"):
        run.act("seal_spec")
    run.act("write_spec", offset=100, bytes=bytes(len(SPEC) - 100)[:900])
    run.act("write_spec", offset=1000, bytes=bytes(len(SPEC) - 1000))
    with refused("SpecHashDiffers"):
        run.act("seal_spec")
    run.write_spec()
    run.act("seal_spec")
    with refused("SpecSealed"):
        run.act("seal_spec")
    with refused("SpecSealed"):
        run.act("write_spec", offset=0, bytes=b"x")


def test_reset_spec_announces_another(chain, run):
    run.write_spec()
    run.act("seal_spec")
    run.act("configure", config=config())
    run.spec = b"short"
    run.act("reset_spec", spec_len=5, spec_sha256=hashlib.sha256(b"short").digest())
    assert run.state.phase == "Uninitialized"
    assert run.account("Spec", run.spec_key)["len"] == 0
    run.write_spec()
    run.act("seal_spec")
    data = chain.data(run.spec_key)
    assert data is not None
    assert data[46:] == b"short"
    assert run.state.phase == "Paused"


def test_reset_spec_of_a_live_run_is_refused(live, refused):
    run, _ = live
    with refused("NotHalted"):
        run.act("reset_spec", spec_len=5, spec_sha256=bytes(32))
    run.act("set_paused", paused=True)
    run.act("reset_spec", spec_len=5, spec_sha256=bytes(32))


AUTHORITY_INSTRUCTIONS = [
    ("reset_spec", {"spec_len": 5, "spec_sha256": bytes(32)}),
    ("write_spec", {"offset": 0, "bytes": SPEC[:5]}),
    ("seal_spec", {}),
    ("configure", {"config": config()}),
    ("set_round_rate", {"rate": 5}),
    ("set_paused", {"paused": True}),
    ("set_authority", {"authority": Keypair().pubkey()}),
    (
        "set_metadata",
        {"name": "n", "description": "d", "min_client_version": "1", "join_authority": Pubkey.default()},
    ),
    ("close_run", {}),
]


@pytest.mark.parametrize(("name", "args"), AUTHORITY_INSTRUCTIONS)
def test_authority_instructions_by_another_are_refused(chain, run, refused, name, args):
    with refused("WrongAuthority"):
        run.act(name, chain.keypair(), **args)


@pytest.mark.parametrize("name", ["reset_spec", "seal_spec", "configure", "set_round_rate", "close_run"])
def test_authority_of_one_run_cannot_reach_into_another(chain, run, refused, name):
    other = Run(chain)
    other.create()
    args = dict(AUTHORITY_INSTRUCTIONS)[name]
    wrong = run.accounts | {"run_state": other.log.pubkey()}
    with refused("WrongRunState"):
        chain.send(COORDINATOR.instruction(name, wrong, **args), run.creator)
    if "spec" in name:
        wrong = run.accounts | {"spec": other.spec_key}
        with refused("WrongSpec"):
            chain.send(COORDINATOR.instruction(name, wrong, **args), run.creator)


def test_authority_hands_over(chain, run, refused):
    heir = chain.keypair()
    with refused("AuthorityMissing"):
        run.act("set_authority", authority=Pubkey.default())
    run.act("set_authority", authority=heir.pubkey())
    with refused("WrongAuthority"):
        run.act("set_round_rate", rate=5)
    run.act("set_round_rate", heir, rate=5)
    assert run.state.next_round_rate == 5


def test_metadata_changes_and_is_checked(run, refused):
    values = {
        "name": "n",
        "description": "d",
        "min_client_version": "2",
        "join_authority": Pubkey.new_unique(),
    }
    for field, size, error in (
        ("name", 65, "NameTooLong"),
        ("description", 281, "DescriptionTooLong"),
        ("min_client_version", 33, "ClientVersionTooLong"),
    ):
        with refused(error):
            run.act("set_metadata", **values | {field: "x" * size})
    longest = values | {"name": "x" * 64, "description": "y" * 280, "min_client_version": "z" * 32}
    run.act("set_metadata", **longest)
    stored = run.account("Run", run.key)
    assert {k: stored[k] for k in longest} == longest


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("warmup_time", 0, "BadWarmupTime"),
        ("total_steps", 0, "BadTotalSteps"),
        ("global_batch_size_end", 7, "BadBatchEnd"),
        ("init_min_clients", 17, "BadInitMinClients"),
        ("min_full_members", 0, "BadMinFullMembers"),
        ("max_tier", 3, "BadMaxTier"),
        ("witness_nodes", 33, "BadWitnessNodes"),
    ],
)
def test_configure_names_the_broken_rule(run, refused, field, value, error):
    with refused(error):
        run.act("configure", config=config(**{field: value}))
    run.act("configure", config=config())


def test_configure_of_a_live_run_is_refused(live, refused):
    run, _ = live
    with refused("NotHalted"):
        run.act("configure", config=config())


def test_close_run_returns_every_lamport(chain, run):
    run.write_spec()
    accounts = (run.key, run.log.pubkey(), run.spec_key)
    held = sum(chain.lamports(key) for key in accounts)
    before = chain.lamports(run.creator.pubkey())
    assert run.act("close_run").event("RunClosed")["run_state"] == run.log.pubkey()
    assert chain.lamports(run.creator.pubkey()) == before + held
    assert all(chain.data(key) is None for key in accounts)


def test_close_run_into_an_account_that_closes_is_refused(chain, run, refused):
    for key in (run.key, run.log.pubkey(), run.spec_key):
        with refused("RecipientCloses"):
            chain.send(COORDINATOR.instruction("close_run", run.accounts | {"recipient": key}), run.creator)


def test_close_run_while_live_is_refused(live, refused):
    run, _ = live
    with refused("NotHalted"):
        run.act("close_run")
    run.act("set_paused", paused=True)
    run.act("close_run")


def test_closed_run_id_can_be_created_again(chain, run):
    run.act("close_run")
    again = Run(chain, creator=run.creator)
    again.create()
    assert again.key == run.key
    assert again.log.pubkey() != run.log.pubkey()


def test_log_of_another_program_is_refused(chain, live, refused):
    run, members = live
    account = chain.svm.get_account(run.log.pubkey())
    fake = Keypair().pubkey()
    chain.svm.set_account(fake, type(account)(account.lamports, account.data, Keypair().pubkey(), False, 0))
    with refused("WrongRunState"):
        accounts = run.member_accounts(members[0]) | {"run_state": fake}
        chain.send(COORDINATOR.instruction("ready", accounts, slot=0), members[0].hot_key)
    spec = seed(b"spec", run.key, idl=COORDINATOR)  # this program's, but no log
    with refused("WrongRunState"):
        accounts = run.member_accounts(members[0]) | {"run_state": spec}
        chain.send(COORDINATOR.instruction("ready", accounts, slot=0), members[0].hot_key)
