#!/usr/bin/env node
// Starts the command line that the build has put into dist.
import { existsSync } from "node:fs";

const main = new URL("../dist/cli/main.js", import.meta.url);
if (existsSync(main)) {
  await (await import(main.href)).main(process.argv.slice(2));
} else {
  process.stderr.write("iommukit: not built yet\n  hint: run `npm run setup` first\n");
  process.exitCode = 2;
}
