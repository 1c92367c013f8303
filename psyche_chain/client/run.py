"""Put a member's parts together and run it."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio
from rich.console import Console
from solders.keypair import Keypair

from psyche_chain.chain.rpc import RpcPool
from psyche_chain.chain.sender import Sender
from psyche_chain.chain.state import SlotStatus
from psyche_chain.chain.wake import watch_account
from psyche_chain.cli.narrator import Narrator
from psyche_chain.client.chain_port import ChainPort
from psyche_chain.client.events import EventLog, Listener
from psyche_chain.client.options import JoinOptions
from psyche_chain.client.report import JsonLogs
from psyche_chain.client.startup import Admission, admit, peer_key, peer_seed
from psyche_chain.client.statedir import StateDir
from psyche_chain.client.twin import refuse_twin
from psyche_chain.errors import PsycheError
from psyche_chain.wallet import load_wallet

if TYPE_CHECKING:
    from psyche_chain.client.loop import Client

logger = logging.getLogger(__name__)

POLL_LOCAL_S = 0.1
POLL_REMOTE_S = 0.4
UPLOAD_END_S = 3600.0
"""How long a member that is done stays for its upload; a second Ctrl-C ends it at once."""


def run_client(options: JoinOptions) -> int:
    """Join a run and be its member until it is finished or the process is asked to stop.

    Returns:
        Exit status: 0 when the run is finished or was left in good order.

    Raises:
        PsycheError: something that the user can act on, with an exit status of its own.
    """
    return trio.run(_run, options, strict_exception_groups=True)


async def _run(options: JoinOptions) -> int:
    wallet, warning = load_wallet(options.keypair)
    hot_key = wallet
    if options.hot_key is not None:
        hot_key, hot_warning = load_wallet(options.hot_key)
        warning = warning or hot_warning
    if warning:
        logger.warning(warning)
    folder = StateDir(options.state_dir)
    folder.prepare()
    async with RpcPool(options.rpc) as rpc:
        admission = await admit(rpc, options, wallet.pubkey(), hot_key.pubkey())
        run_state = admission.run.run_state
        folder.acquire(bytes(wallet.pubkey()), bytes(run_state))
        try:
            own = admission.state.slot_of(wallet.pubkey())
            if own is not None and own.status is not SlotStatus.DEPARTED:
                await refuse_twin(rpc, admission.run, wallet.pubkey())
            with EventLog(folder.events, _listeners(options, str(admission.run.key))) as events:
                slot = admission.state.slot_of(wallet.pubkey())
                events.emit(
                    "start",
                    wallet=str(wallet.pubkey()),
                    tier=options.tier,
                    slot=slot.index if slot else None,
                    pid=os.getpid(),
                    run=str(admission.run.key),
                )
                sender = Sender(rpc, hot_key)
                return await _be_member(options, admission, wallet, sender, folder, events)
        finally:
            folder.release()


async def _be_member(
    options: JoinOptions,
    admission: Admission,
    wallet: Keypair,
    sender: Sender,
    folder: StateDir,
    events: EventLog,
) -> int:
    # Torch and libp2p take seconds to import: nothing above needs them, so bad input is answered at once.
    from psyche_chain.client.acts import Acts
    from psyche_chain.client.catchup import CatchUp
    from psyche_chain.client.loop import Client
    from psyche_chain.client.model import TrainerAdapter, load_trainer
    from psyche_chain.client.upload import Uploader
    from psyche_chain.client.weights import Weights
    from psyche_train.blobs import BlobStoreError
    from psyche_train.evals.member import MemberEvals
    from psyche_train.learner import LearnerOptions
    from psyche_train.matformer.box import startup_box
    from psyche_train.network import NetworkConfig, NetworkError, open_network

    run = admission.run
    seed = peer_seed(wallet, run.run_state)
    port = ChainPort(sender, run, wallet, p2p_key=peer_key(seed), tier=admission.tier, weight=options.weight)
    config = NetworkConfig(
        seed=seed,
        topic=f"psyche/{run.run_state}",
        listen=folder.listen_address(options.listen),
        announce=options.announce,
        blob_dir=folder.blobs,
        log_path=folder.records,
        socket_path=folder.socket_path(),
    )
    load = partial(
        load_trainer,
        admission.spec,
        tier=admission.tier,
        run=bytes(run.run_state),
        state_dir=folder.path,
        device=options.device,
        threads=options.threads,
        ranks=options.ranks,
        options=LearnerOptions(
            precision=options.precision,
            micro_batch_tokens=options.micro_batch_tokens,
            compile=options.compile,
            checkpoint_activations=options.checkpoint_activations,
        ),
        data=options.data,
        agreed=admission.state.checkpoint.agreed,
    )
    try:
        async with open_network(config) as network:
            trainer = await trio.to_thread.run_sync(load)
            if not options.json_logs:
                Console(stderr=True).print(startup_box(trainer.trainer.source))
            adapter = TrainerAdapter(admission.spec, run=bytes(run.run_state), tier=admission.tier)
            evals = None
            if options.evals is not None:
                evals = await trio.to_thread.run_sync(MemberEvals, trainer.trainer, options.evals)
            weights = Weights(trainer, folder.records, events, evals)
            catch_up = CatchUp(
                weights,
                network,
                adapter,
                folder.path,
                events,
                tier=admission.tier,
                elsewhere=options.checkpoint_from,
                confirm=port.confirm,
            )
            uploader = Uploader(options.upload, events) if options.upload else None
            acts = Acts(
                wallet.pubkey(),
                port,
                network,
                weights,
                adapter,
                catch_up,
                events,
                tier=admission.tier,
                uploader=uploader,
                archive=options.archive,
            )
            client = Client(
                wallet.pubkey(),
                port,
                acts,
                events,
                poll_s=options.poll_s or poll_interval_s(options.rpc[0]),
                linger_s=options.linger_s,
                listen=partial(watch_account, options.rpc, run.run_state),
            )
            status = await _run_until_signalled(client)
            if uploader is not None:
                await uploader.finish(deadline_s=UPLOAD_END_S)
            return status
    except (NetworkError, BlobStoreError) as error:
        raise PsycheError(str(error), f"look into {folder.path / 'network.log'}") from error


async def _run_until_signalled(client: Client) -> int:
    """Run a member; the first Ctrl-C or SIGTERM makes it leave, the second ends the process at once."""

    async def obey(signals: AsyncIterator[int]) -> None:
        is_leaving = False
        async for number in signals:
            if is_leaving:
                os._exit(128 + number)
            is_leaving = True
            client.stop()

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(obey, signals)
            status = await client.run()
            nursery.cancel_scope.cancel()
    return status


def _listeners(options: JoinOptions, run: str) -> list[Listener]:
    """Who hears of events besides the file: the caller, or standard error where the caller does not tell the user."""
    found: list[Listener] = [] if options.on_event is None else [options.on_event]
    if options.json_logs:
        logs = JsonLogs(run)
        logs.install()
        found.append(logs.show)
    return found or [Narrator(linger_s=options.linger_s)]


def poll_interval_s(url: str) -> float:
    """Seconds between two looks at the chain: an endpoint on this machine costs nothing."""
    return POLL_LOCAL_S if urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1") else POLL_REMOTE_S
