// Fetches Debian's fio with the libraries it needs, for guests: `node scripts/vm/fio.mjs`.
//
// It goes into the cache folder as the other parts do (fetch.mjs), and into a guest's RAM disk as one
// folder with its own loader: the guest has no libraries besides.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { candidate, fetchInto, privateApt, run, say } from "../tools/debian.mjs";
import { cacheFolder } from "./parts.mjs";

const partsFile = () => join(cacheFolder(), "parts-fio.json");
const program = (parts) => join(parts.fio, "usr/bin/fio");
const libraryFolders = (parts) =>
  ["usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/ceph", "lib/x86_64-linux-gnu"]
    .map((folder) => join(parts.fio, folder))
    .filter(existsSync);

/** What was fetched: `{ fio: folder, version }`, or null. */
export function readFio() {
  try {
    const parts = JSON.parse(readFileSync(partsFile(), "utf8"));
    return existsSync(program(parts)) ? parts : null;
  } catch {
    return null;
  }
}

/** Fetches fio when it is not there. */
export function fetchFio() {
  const there = readFio();
  if (there !== null) return there;
  const apt = privateApt(join(cacheFolder(), "apt-fio"));
  say("reading the package lists …");
  run("apt-get", ["-q", "update"], { env: apt.env });
  const version = candidate(apt, "fio");
  const folder = join(cacheFolder(), `fio-${version.replace(/:/g, "_")}`);
  fetchInto(apt, folder, [`fio=${version}`], true);
  writeFileSync(partsFile(), `${JSON.stringify({ fio: folder, version }, null, 2)}\n`);
  const read = readFio();
  if (read === null) throw new Error("the packages hold no fio where expected");
  return read;
}

/** Where its folder lies in a guest, and the words that start it there. */
export const guestFolder = "/fio";
export const guestCommand = `${guestFolder}/ld.so --library-path ${guestFolder} ${guestFolder}/fio`;

/** Files for a guest's RAM disk: path in the guest → content. */
export function fioFiles(parts) {
  const loader = libraryFolders(parts)
    .map((folder) => join(folder, "ld-linux-x86-64.so.2"))
    .find(existsSync);
  if (loader === undefined) throw new Error(`no dynamic loader below ${parts.fio}`);
  const path = libraryFolders(parts).join(":");
  const listed = spawnSync(realpathSync(loader), [
    "--library-path",
    path,
    "--list",
    program(parts),
  ]);
  if (listed.status !== 0) throw new Error(`fio lacks a library: ${listed.stdout}`);
  const files = {
    [`${guestFolder}/fio`]: readFileSync(program(parts)),
    [`${guestFolder}/ld.so`]: readFileSync(loader),
  };
  for (const [, library] of listed.stdout.toString().matchAll(/=> (\S+) \(0x/g)) {
    if (!library.startsWith(parts.fio)) throw new Error(`${library} is the system's, not fio's`);
    files[`${guestFolder}/${basename(library)}`] = readFileSync(library);
  }
  return files;
}

if (import.meta.url === `file://${process.argv[1]}`) {
  process.stdout.write(`${JSON.stringify(fetchFio(), null, 2)}\n`);
}
