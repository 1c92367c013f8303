"""Everything that knows Solana: accounts, transactions, run administration, the client loop."""
