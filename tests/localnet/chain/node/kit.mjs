// @solana/kit against the embedded chain: node kit.mjs RPC_URL WS_URL
import assert from 'node:assert/strict';
import {
  address, airdropFactory, appendTransactionMessageInstruction, createSolanaRpc, createSolanaRpcSubscriptions,
  createTransactionMessage, generateKeyPairSigner, getSignatureFromTransaction, lamports, pipe,
  sendAndConfirmTransactionFactory, setTransactionMessageFeePayerSigner, setTransactionMessageLifetimeUsingBlockhash,
  signTransactionMessageWithSigners, AccountRole,
} from '@solana/kit';

const [url, wsUrl] = process.argv.slice(2);
const rpc = createSolanaRpc(url);
const rpcSubscriptions = createSolanaRpcSubscriptions(wsUrl);
const payer = await generateKeyPairSigner();
const target = await generateKeyPairSigner();

await airdropFactory({ rpc, rpcSubscriptions })({
  commitment: 'confirmed', lamports: lamports(5_000_000_000n), recipientAddress: payer.address,
});
assert.equal((await rpc.getBalance(payer.address, { commitment: 'confirmed' }).send()).value, 5_000_000_000n);

const { value: blockhash } = await rpc.getLatestBlockhash({ commitment: 'confirmed' }).send();
const data = new Uint8Array(12);
const view = new DataView(data.buffer);
view.setUint32(0, 2, true);
view.setBigUint64(4, 1_000_000_000n, true);
const message = pipe(
  createTransactionMessage({ version: 0 }),
  (m) => setTransactionMessageFeePayerSigner(payer, m),
  (m) => setTransactionMessageLifetimeUsingBlockhash(blockhash, m),
  (m) => appendTransactionMessageInstruction({
    programAddress: address('11111111111111111111111111111111'),
    accounts: [
      { address: payer.address, role: AccountRole.WRITABLE_SIGNER, signer: payer },
      { address: target.address, role: AccountRole.WRITABLE },
    ],
    data,
  }, m),
);
const transaction = await signTransactionMessageWithSigners(message);
await sendAndConfirmTransactionFactory({ rpc, rpcSubscriptions })(transaction, { commitment: 'confirmed' });
const signature = getSignatureFromTransaction(transaction);
const found = await rpc.getTransaction(signature, {
  commitment: 'confirmed', encoding: 'json', maxSupportedTransactionVersion: 0,
}).send();
assert.equal(found.meta.fee, 5000n);
assert.equal((await rpc.getAccountInfo(target.address, { encoding: 'base64' }).send()).value.lamports, 1_000_000_000n);
console.log('ok');
process.exit(0);
