/** A virtual machine as the command line names it: a command line, a process, a libvirt domain. */
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { StackError } from "../errors.ts";
import { type BarMapping, barMappings } from "../host/bar-mappings.ts";
import { namesQemu, readCommand } from "../host/qemu-command.ts";
import { buildVm } from "../host/qemu-vm.ts";
import { splitWords, wordsOfProcess } from "../host/qemu-words.ts";
import type { VirtualMachine } from "../host/vm.ts";
import type { Machine } from "../topology/machine.ts";

/** Flags that name a virtual machine. */
export interface VmFlags {
  readonly qemu?: string;
  readonly pid?: string;
  readonly libvirt?: string;
}

/** Whether one is named. @throws StackError when several are */
export function namesVm({ qemu, pid, libvirt }: VmFlags): boolean {
  const count = [qemu, pid, libvirt].filter((one) => one !== undefined).length;
  if (count < 2) return count === 1;
  throw new StackError({
    code: "cli/usage",
    kind: "usage",
    message: "--qemu, --pid and --libvirt exclude each other",
    hint: "name one virtual machine",
  });
}

/** Reads the one that is named. @param host - where its devices come from, if that is known */
export async function readVm(flags: VmFlags, host: Machine | null): Promise<VirtualMachine> {
  const { qemu, pid, libvirt } = flags;
  if (libvirt !== undefined) {
    const { vmOfDomain } = await import("../host/libvirt.ts");
    return vmOfDomain(textOf(libvirt), libvirt, host);
  }
  if (pid !== undefined) {
    const path = `/proc/${processId(pid)}`;
    const words = wordsOfProcess(textOf(`${path}/cmdline`));
    if (!namesQemu(words)) throw unreadable(`${path}/cmdline`, "this is no QEMU", undefined);
    const vm = buildVm(readCommand(words, `${path}/cmdline`), host);
    return {
      ...vm,
      memlockBytes: lockedLimit(textOf(`${path}/limits`)),
      barMappings: mapsOf(`${path}/maps`),
    };
  }
  const isFile = qemu!.startsWith("@") || qemu === "-";
  const file = isFile ? qemu!.replace(/^@/, "") : "--qemu";
  const text = isFile ? textOf(file) : qemu!;
  const words = text.includes("\0") ? wordsOfProcess(text) : splitWords(text, file);
  if (words.length === 0) throw unreadable(file, "the command line is empty", undefined);
  if (!words[0]!.startsWith("-") && !namesQemu(words)) {
    throw unreadable(file, "this is no QEMU command line", undefined);
  }
  const command = readCommand(words, file);
  if (command.program === "" && command.options.length === 0) {
    throw unreadable(file, "this is no QEMU command line", undefined);
  }
  return buildVm(command, host);
}

function processId(text: string): number {
  if (/^\d{1,10}$/.test(text)) return Number(text);
  throw new StackError({
    code: "cli/usage",
    kind: "usage",
    message: `"${text}" is no process id`,
    hint: "`pgrep -a qemu` shows them",
  });
}

/** The soft limit of locked memory out of `/proc/PID/limits`; null where there is none. */
export function lockedLimit(text: string): bigint | null {
  const found = /^Max locked memory\s+(\d{1,20})\s/m.exec(text)?.[1];
  return found === undefined ? null : BigInt(found);
}

/** Mappings of BARs; another user's process does not show its own. */
function mapsOf(path: string): readonly BarMapping[] | null {
  try {
    return barMappings(readFileSync(path, "latin1"));
  } catch {
    return null;
  }
}

/** Bytes of a file that describes a virtual machine. */
const FILE_BYTES_MAX = 16 << 20;

/** A file, or standard input for `-`; unpacked where it is a gzip. */
function textOf(path: string): string {
  try {
    const bytes = readFileSync(path === "-" ? 0 : path);
    const isPacked = bytes[0] === 0x1f && bytes[1] === 0x8b;
    const plain = isPacked ? gunzipSync(bytes, { maxOutputLength: FILE_BYTES_MAX }) : bytes;
    if (plain.length <= FILE_BYTES_MAX) return plain.toString("utf8");
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw unreadable(path, code === "ENOENT" ? "there is no such file" : `${code}`, cause);
  }
  throw unreadable(path, "it is larger than 16 MiB", undefined);
}

function unreadable(file: string, what: string, cause: unknown): StackError {
  return new StackError({
    code: "cli/unreadable",
    kind: "input",
    message: `the virtual machine cannot be read: ${what}`,
    at: { file },
    hint: "--qemu takes a quoted command line or @FILE, --pid a running QEMU, --libvirt `virsh dumpxml`",
    cause,
  });
}
