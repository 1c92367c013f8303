// What a deployed program says about itself (https://github.com/neodyme-labs/solana-security-txt): explorers show it.
// Included by each program. Whoever deploys for others puts its own contacts here and builds again.
#[cfg(not(feature = "no-entrypoint"))]
solana_security_txt::security_txt! {
    name: env!("CARGO_PKG_NAME"),
    project_url: "none (a development build: whoever deploys it names its own)",
    contacts: "other:the holder of this program's upgrade authority",
    policy: "docs/security.md in the source: what counts as a defect, and how to report it",
    preferred_languages: "en"
}
