"""Put the three programs on a fresh chain through the upgradeable loader, many writes at a time."""

import json
import struct
from pathlib import Path

import trio
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.system_program import CreateAccountParams, create_account
from solders.transaction import Transaction

from psyche_chain.chain import ids, queries
from psyche_chain.chain.programs import NAMES, elf_path, program
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.chain.sender import Sender

LOADER = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")
RENT = Pubkey.from_string("SysvarRent111111111111111111111111111111111")
CLOCK = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")
KEYS = Path(__file__).resolve().parents[2] / "programs/keys"
PIECE = 1000


def _meta(key: Pubkey, *, signer: bool = False, writable: bool = False) -> AccountMeta:
    return AccountMeta(key, is_signer=signer, is_writable=writable)


async def deploy_programs(rpc: RpcPool, payer: Keypair) -> None:
    for name in NAMES:
        secret = json.loads((KEYS / f"{name}-dev-keypair.json").read_text())
        await _deploy(rpc, payer, Keypair.from_bytes(bytes(secret)), elf_path(name).read_bytes())


async def _deploy(rpc: RpcPool, payer: Keypair, key: Keypair, elf: bytes) -> None:
    sender = Sender(rpc, payer)
    wallet, buffer = payer.pubkey(), Keypair()
    size = 37 + len(elf)
    steps = [
        create_account(
            CreateAccountParams(
                from_pubkey=wallet,
                to_pubkey=buffer.pubkey(),
                lamports=await queries.rent_exempt(rpc, size),
                space=size,
                owner=LOADER,
            )
        ),
        Instruction(LOADER, struct.pack("<I", 0), [_meta(buffer.pubkey(), writable=True), _meta(wallet)]),
    ]
    await sender.send(steps, [buffer], label="buffer")
    await _write(rpc, payer, buffer.pubkey(), elf)
    code = Pubkey.find_program_address([bytes(key.pubkey())], LOADER)[0]
    steps = [
        create_account(
            CreateAccountParams(
                from_pubkey=wallet,
                to_pubkey=key.pubkey(),
                lamports=await queries.rent_exempt(rpc, 36),
                space=36,
                owner=LOADER,
            )
        ),
        Instruction(
            LOADER,
            struct.pack("<IQ", 2, len(elf)),
            [
                _meta(wallet, signer=True, writable=True),
                _meta(code, writable=True),
                _meta(key.pubkey(), writable=True),
                _meta(buffer.pubkey(), writable=True),
                _meta(RENT),
                _meta(CLOCK),
                _meta(ids.SYSTEM_ID),
                _meta(wallet, signer=True),
            ],
        ),
    ]
    await sender.send(steps, [key], label="deploy")


async def _write(rpc: RpcPool, payer: Keypair, buffer: Pubkey, elf: bytes) -> None:
    blockhash, _ = await queries.latest_blockhash(rpc)
    offsets = list(range(0, len(elf), PIECE))
    limit = trio.CapacityLimiter(16)

    async def write(at: int) -> None:
        piece = elf[at : at + PIECE]
        data = struct.pack("<IIQ", 1, at, len(piece)) + piece
        ix = Instruction(LOADER, data, [_meta(buffer, writable=True), _meta(payer.pubkey(), signer=True)])
        message = Message.new_with_blockhash([ix], payer.pubkey(), blockhash)
        async with limit:
            await queries.send_raw(rpc, bytes(Transaction([payer], message, blockhash)))

    async with trio.open_nursery() as nursery:
        for at in offsets:
            nursery.start_soon(write, at)
    with trio.fail_after(60):
        while True:
            account = await queries.get_account(rpc, buffer)
            if account is not None and account.data[37:] == elf:
                return
            await trio.sleep(0.2)


def program_ids() -> list[Pubkey]:
    return [program(name).id for name in NAMES]
