/**
 * A QEMU command line as a list of options; what is not known is kept and said, never fatal.
 *
 * Source: QEMU qemu-options.hx (which options take a value), system/vl.c.
 */
import { StackError } from "../errors.ts";
import { OptionProblem, parseOption, type QemuOption } from "./qemu-options.ts";

/** An argument that has no part in the topology as far as this reader knows. */
export interface IgnoredArgument {
  readonly argument: string;
  readonly why: string;
  /** Whether QEMU would not start with it. */
  readonly isRefused?: true;
}

/** A command line. */
export interface QemuCommand {
  /** The program, which names the architecture; empty when only options were given. */
  readonly program: string;
  readonly options: readonly QemuOption[];
  readonly ignored: readonly IgnoredArgument[];
}

/** Options that take no value. */
const flags = new Set(
  (
    "S alt-grab async-teardown ctrl-grab curses daemonize enable-kvm enable-sync-profile full-screen h help " +
    "localtime mem-prealloc no-acpi no-fd-bootchk no-frame no-hpet no-kvm no-quit no-reboot " +
    "no-shutdown no-user-config nodefaults nographic old-param one-insn-per-tb only-migratable " +
    "portrait preconfig s semihosting show-cursor singlestep snapshot tdf usb version win2k-hack " +
    "xen-attach xen-domid-restrict"
  ).split(" "),
);

/** Options that say something about the topology, with the key of a value that has none. */
const topological = new Map<string, string | null>([
  ["machine", "type"],
  ["M", "type"],
  ["m", "size"],
  ["smp", "cpus"],
  ["numa", "type"],
  ["object", "qom-type"],
  ["device", "driver"],
  ["drive", "file"],
  ["net", "type"],
  ["nic", "type"],
  ["netdev", "type"],
  ["vga", "type"],
  ["name", "guest"],
  ["accel", "accel"],
  ["mem-path", "path"],
  ["set", "what"],
  ["global", "what"],
]);

/** Options that are well known and say nothing about the topology. */
const beside = new Set(
  (
    "acpitable action add-fd append audio audiodev bios blockdev boot cdrom chardev chroot compat cpu " +
    "d D debugcon device-help display dtb dump-vmstate echr fda fdb fsdev fw_cfg gdb hda hdb hdc hdd " +
    "icount incoming initrd iscsi jitdump k kernel L loadvm mon monitor msg mtdblock option-rom " +
    "overcommit parallel perfmap pidfile plugin qmp qmp-pretty rtc run-with runas sandbox sd secret " +
    "seed serial shim smbios spice tb-size tpmdev trace uuid virtfs vnc watchdog-action writeconfig"
  ).split(" "),
);

/**
 * Reads words.
 *
 * @param file - how messages name the source
 * @throws StackError `host/qemu-argument` when an argument that matters cannot be read
 */
export function readCommand(words: readonly string[], file: string): QemuCommand {
  const options: QemuOption[] = [];
  const ignored: IgnoredArgument[] = [];
  const start = startOf(words);
  let program = "";
  for (let at = start; at < words.length; at += 1) {
    const word = words[at]!;
    if (!/^--?\w/.test(word)) {
      if (at === start || programName.test(word)) program = word;
      else ignored.push({ argument: word, why: "it belongs to no option" });
      continue;
    }
    const name = word.replace(/^--?/, "");
    if (flags.has(name)) {
      options.push({ name, values: new Map(), text: word, isJson: false });
      continue;
    }
    const value = words[at + 1];
    const implied = topological.get(name);
    if (implied === undefined && !beside.has(name)) {
      // Whether an unknown option takes a value is seen by what follows.
      const takes = value !== undefined && !/^--?\w/.test(value);
      const argument = takes ? `${word} ${value}` : word;
      ignored.push({ argument, why: "this option is not known" });
      if (takes) at += 1;
      continue;
    }
    if (value === undefined) throw badArgument(file, word, "its value is missing");
    at += 1;
    if (implied !== undefined) options.push(read(file, name, value, implied));
  }
  return { program, options, ignored };
}

const programName = /(^|\/)qemu(-system-[\w-]+|-kvm)?$|\/kvm$/;

/** Whether QEMU is among the words of a process. */
export function namesQemu(words: readonly string[]): boolean {
  return words[0] === "kvm" || words.some((word) => programName.test(word));
}

/** Where the program stands, behind `sudo`, `taskset`, `numactl`, a loader and their arguments. */
function startOf(words: readonly string[]): number {
  if (words[0]?.startsWith("-")) return 0;
  return Math.max(
    0,
    words.findIndex((word) => programName.test(word)),
  );
}

function read(file: string, name: string, value: string, implied: string | null): QemuOption {
  try {
    return parseOption(name === "M" ? "machine" : name, value, implied);
  } catch (cause) {
    if (!(cause instanceof OptionProblem)) throw cause;
    throw badArgument(file, `-${name} ${value}`, cause.message);
  }
}

/** The error of an argument that cannot be understood. */
export function badArgument(file: string, argument: string, what: string): StackError {
  const short = argument.length > 120 ? `${argument.slice(0, 119)}…` : argument;
  return new StackError({
    code: "host/qemu-argument",
    kind: "input",
    message: `\`${short}\`: ${what}`,
    at: { file },
    hint: "the argument is read as QEMU 11 reads it",
  });
}
