// Fetches ACPICA's iasl into the cache folder: `node scripts/tools/fetch-iasl.mjs`.
//
// The one of Debian 12 is of 2020 and does not know VIOT; Debian 13's does. It comes with its own C
// library and is run through that one's loader, so it works on older systems, too. Prints the path
// of a program `iasl` that does so. What is there already is not fetched again.
import { chmodSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { candidate, fetchInto, privateApt, run, say } from "./debian.mjs";

const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "iommukit", "tools");
const program = join(cache, "iasl");

function fetch() {
  mkdirSync(cache, { recursive: true });
  const apt = privateApt(join(cache, "apt"));
  say("reading the package lists …");
  run("apt-get", ["-q", "update"], { env: apt.env });
  const version = candidate(apt, "acpica-tools");
  const folder = join(cache, `acpica-tools-${version}`);
  fetchInto(apt, folder, [`acpica-tools=${version}`], true);
  const loader = join(folder, "usr/lib64/ld-linux-x86-64.so.2");
  const libraries = join(folder, "usr/lib/x86_64-linux-gnu");
  const command = `exec "${loader}" --library-path "${libraries}" "${join(folder, "usr/bin/iasl")}" "$@"`;
  writeFileSync(program, `#!/bin/sh\n${command}\n`);
  chmodSync(program, 0o755);
}

if (!existsSync(program)) fetch();
process.stdout.write(`${program}\n`);
