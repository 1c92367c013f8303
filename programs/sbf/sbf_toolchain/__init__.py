"""Build Solana programs to SBPF v0 with Debian's rustc and LLVM; see the README beside this package."""
