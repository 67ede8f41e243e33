/**
 * Finds a QEMU that can be the client: 10.1 or newer, with `vfio-user-pci`.
 *
 * Looked for in this order: the program that is named, PATH, the one that the project's script has
 * unpacked into the cache folder (scripts/vm/fetch.mjs), which starts by its own loader.
 */
import { spawnSync } from "node:child_process";
import { StackError } from "../../errors.ts";
import { cachedQemu } from "./parts.ts";

const PROGRAM = "qemu-system-x86_64";
/** Major and minor of the first version with the device. */
const VERSION_MIN = [10, 1] as const;
const TIMEOUT_MS = 60_000;

/** A QEMU that was found. */
export interface FoundQemu {
  /** Words that start it. */
  readonly command: readonly [string, ...string[]];
  readonly version: string;
}

/** Asks a program what it is. Replaced in tests. */
export type Probe = (command: readonly string[]) => string | null;

/** Standard output of a command, null when it does not run. */
export const runProbe: Probe = ([program, ...words]) => {
  if (program === undefined) return null;
  const done = spawnSync(program, words, { encoding: "utf8", timeout: TIMEOUT_MS });
  return done.error === undefined && done.status === 0 ? done.stdout : null;
};

/**
 * Finds one.
 *
 * @param named - the program that the user names, or null
 * @throws StackError `live/no-qemu` when none fits, with all that was tried
 */
export async function findQemu(named: string | null, probe: Probe = runProbe): Promise<FoundQemu> {
  const cached = named === null ? await cachedQemu() : null;
  const candidates: (readonly [string, ...string[]])[] =
    named === null ? [[PROGRAM], ...(cached === null ? [] : [cached])] : [[named]];
  const refused: string[] = [];
  for (const command of candidates) {
    const found = judge(command, probe);
    if (typeof found !== "string") return found;
    refused.push(found);
  }
  throw new StackError({
    code: "live/no-qemu",
    kind: "input",
    message: `There is no QEMU that can be used: ${refused.join("; ")}`,
    hint: "`iommukit measure --fetch` puts one into the cache folder, or name one by --qemu",
  });
}

function judge(command: readonly [string, ...string[]], probe: Probe): FoundQemu | string {
  const name = command.length > 1 ? "the one in the cache folder" : command[0];
  const text = probe([...command, "--version"]);
  if (text === null) return `${name} does not run`;
  const match = /version (\d+)\.(\d+)(?:\.\d+)*/.exec(text);
  if (match === null) return `${name} is no QEMU`;
  const [major, minor] = [Number(match[1]), Number(match[2])];
  const version = match[0].slice("version ".length);
  const isOld = major < VERSION_MIN[0] || (major === VERSION_MIN[0] && minor < VERSION_MIN[1]);
  if (isOld) return `${name} is ${version}, older than ${VERSION_MIN.join(".")}`;
  // The list of all devices leaves this one out, so it is asked for by name.
  const properties = probe([...command, "-device", "vfio-user-pci,help"]);
  if (!properties?.includes("socket=")) return `${name} has no vfio-user-pci`;
  return { command, version };
}
