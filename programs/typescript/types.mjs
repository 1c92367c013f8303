// Writes NAME.ts beside each NAME.json: the IDL as a type, with the names that Anchor's client uses.
// node types.mjs coordinator.json authorizer.json treasurer.json   (`anchor build` writes the same to target/types)
import { readFileSync, writeFileSync } from "node:fs";
import { convertIdlToCamelCase } from "@anchor-lang/core";

for (const path of process.argv.slice(2)) {
  const idl = JSON.parse(readFileSync(path, "utf8"));
  const name = idl.metadata.name[0].toUpperCase() + idl.metadata.name.slice(1);
  const type = JSON.stringify(convertIdlToCamelCase(idl), null, 2);
  writeFileSync(path.replace(/\.json$/, ".ts"), `export type ${name} = ${type};\n`);
}
