// @solana/web3.js and @solana/spl-token against the embedded chain: node web3.mjs RPC_URL WS_URL
import assert from 'node:assert/strict';
import {
  AddressLookupTableProgram, ComputeBudgetProgram, Connection, Keypair, LAMPORTS_PER_SOL, PublicKey,
  SendTransactionError, SystemProgram, Transaction, TransactionMessage, VersionedTransaction,
  sendAndConfirmTransaction,
} from '@solana/web3.js';
import {
  TOKEN_2022_PROGRAM_ID, TOKEN_PROGRAM_ID, createMint, getAccount, getMint, getOrCreateAssociatedTokenAccount,
  mintTo, transfer,
} from '@solana/spl-token';

const [url, wsEndpoint] = process.argv.slice(2);
const connection = new Connection(url, { commitment: 'confirmed', wsEndpoint });
const payer = Keypair.generate();
const other = Keypair.generate();

const next = (subscribe) => new Promise((resolve, reject) => {
  const timer = setTimeout(() => reject(new Error('no notification came')), 20000);
  subscribe((...values) => { clearTimeout(timer); resolve(values); });
});

// Airdrop, confirmed over the websocket.
const airdrop = await connection.requestAirdrop(payer.publicKey, 10 * LAMPORTS_PER_SOL);
const latest = await connection.getLatestBlockhash();
await connection.confirmTransaction({ signature: airdrop, ...latest }, 'confirmed');
assert.equal(await connection.getBalance(payer.publicKey), 10 * LAMPORTS_PER_SOL);

// Subscriptions, before the transfer that they are told of. Their ids come asynchronously.
const account = next((done) => connection.onAccountChange(other.publicKey, done, { commitment: 'confirmed' }));
const logs = next((done) => connection.onLogs(other.publicKey, done, 'confirmed'));
const program = next((done) => connection.onProgramAccountChange(
  SystemProgram.programId, done, { commitment: 'confirmed', filters: [{ dataSize: 0 }] }));
const slot = next((done) => connection.onSlotChange(done));
const [slotInfo] = await slot;
assert.equal(slotInfo.parent, slotInfo.slot - 1);
await new Promise((resolve) => setTimeout(resolve, 300));

// Transfer with sendAndConfirmTransaction.
const sent = await sendAndConfirmTransaction(connection, new Transaction().add(
  ComputeBudgetProgram.setComputeUnitLimit({ units: 1000 }),
  SystemProgram.transfer({ fromPubkey: payer.publicKey, toPubkey: other.publicKey, lamports: LAMPORTS_PER_SOL }),
), [payer]);
assert.equal((await account)[0].lamports, LAMPORTS_PER_SOL);
assert.equal((await logs)[0].signature, sent);
assert.ok((await program)[0].accountInfo.lamports > 0);
const parsed = await connection.getParsedTransaction(sent, { maxSupportedTransactionVersion: 0 });
assert.equal(parsed.transaction.message.instructions[1].parsed.type, 'transfer');
assert.equal(parsed.meta.fee, 5000);
const history = await connection.getSignaturesForAddress(other.publicKey);
assert.deepEqual(history.map((entry) => entry.signature), [sent]);

// A mint, token accounts, a mint-to and a transfer, in both token programs.
for (const programId of [TOKEN_PROGRAM_ID, TOKEN_2022_PROGRAM_ID]) {
  const options = { commitment: 'confirmed' };
  const mint = await createMint(connection, payer, payer.publicKey, null, 6, undefined, options, programId);
  const from = await getOrCreateAssociatedTokenAccount(
    connection, payer, mint, payer.publicKey, false, 'confirmed', options, programId);
  const to = await getOrCreateAssociatedTokenAccount(
    connection, payer, mint, other.publicKey, false, 'confirmed', options, programId);
  await mintTo(connection, payer, mint, from.address, payer, 1_500_000n, [], options, programId);
  const moved = await transfer(
    connection, payer, from.address, to.address, payer, 250_000n, [], options, programId);
  assert.equal((await getMint(connection, mint, 'confirmed', programId)).supply, 1_500_000n);
  assert.equal((await getAccount(connection, to.address, 'confirmed', programId)).amount, 250_000n);
  const balance = await connection.getTokenAccountBalance(from.address);
  assert.equal(balance.value.uiAmountString, '1.25');
  assert.equal((await connection.getTokenSupply(mint)).value.amount, '1500000');
  const largest = await connection.getTokenLargestAccounts(mint);
  assert.deepEqual(largest.value.map((entry) => entry.amount), ['1250000', '250000']);
  const owned = await connection.getParsedTokenAccountsByOwner(other.publicKey, { mint });
  assert.equal(owned.value[0].account.data.parsed.info.tokenAmount.uiAmount, 0.25);
  const meta = (await connection.getTransaction(moved, { maxSupportedTransactionVersion: 0 })).meta;
  assert.deepEqual(meta.postTokenBalances.map((entry) => entry.uiTokenAmount.amount).sort(), ['1250000', '250000']);
  const held = await connection.getParsedProgramAccounts(programId, {
    filters: [{ memcmp: { offset: 0, bytes: mint.toBase58() } }],
  });
  assert.equal(held.length, 2);
}

// A versioned transaction that names an account by a lookup table.
const recent = await connection.getSlot('confirmed') - 1;
const [create, table] = AddressLookupTableProgram.createLookupTable({
  authority: payer.publicKey, payer: payer.publicKey, recentSlot: recent,
});
const third = Keypair.generate().publicKey;
await sendAndConfirmTransaction(connection, new Transaction().add(create, AddressLookupTableProgram.extendLookupTable({
  payer: payer.publicKey, authority: payer.publicKey, lookupTable: table, addresses: [third],
})), [payer]);
const before = await connection.getSlot('confirmed');
while (await connection.getSlot('confirmed') <= before) await new Promise((resolve) => setTimeout(resolve, 50));
const lookup = (await connection.getAddressLookupTable(table)).value;
assert.equal(lookup.state.addresses[0].toBase58(), third.toBase58());
const { blockhash, lastValidBlockHeight } = await connection.getLatestBlockhash();
const v0 = new VersionedTransaction(new TransactionMessage({
  payerKey: payer.publicKey, recentBlockhash: blockhash,
  instructions: [SystemProgram.transfer({ fromPubkey: payer.publicKey, toPubkey: third, lamports: LAMPORTS_PER_SOL })],
}).compileToV0Message([lookup]));
v0.sign([payer]);
const simulated = await connection.simulateTransaction(v0, { sigVerify: true });
assert.equal(simulated.value.err, null);
const versioned = await connection.sendTransaction(v0);
await connection.confirmTransaction({ signature: versioned, blockhash, lastValidBlockHeight }, 'confirmed');
const found = await connection.getTransaction(versioned, { maxSupportedTransactionVersion: 0 });
assert.deepEqual(found.meta.loadedAddresses.writable.map(String), [third.toBase58()]);
assert.equal(found.version, 0);

// Errors as the client knows them.
await assert.rejects(sendAndConfirmTransaction(connection, new Transaction().add(
  SystemProgram.transfer({ fromPubkey: other.publicKey, toPubkey: payer.publicKey, lamports: 100 * LAMPORTS_PER_SOL }),
), [other]), (error) => error instanceof SendTransactionError && error.logs.some((line) => line.includes('insufficient lamports')));

// A finalized confirmation comes 32 slots later.
await connection.confirmTransaction({ signature: versioned, blockhash, lastValidBlockHeight }, 'finalized');
assert.equal((await connection.getSignatureStatus(versioned)).value.confirmationStatus, 'finalized');

assert.equal((await connection.getParsedAccountInfo(new PublicKey('SysvarC1ock11111111111111111111111111111111'))).value.lamports > 0, true);
assert.ok((await connection.getVersion())['solana-core']);
assert.ok((await connection.getEpochInfo()).absoluteSlot > 0);
assert.ok((await connection.getBlock(found.slot, { maxSupportedTransactionVersion: 0 })).transactions.length >= 1);
assert.equal((await connection.getClusterNodes()).length, 1);
assert.ok((await connection.getSupply()).value.total > 0);
console.log('ok');
process.exit(0);
