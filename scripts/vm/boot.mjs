// Boots a test guest, runs a script in it and brings back what it left in /out:
//
//     node scripts/vm/boot.mjs [options] SCRIPT [-- QEMU ARGUMENTS …]
//
// SCRIPT is a shell script for busybox's sh, run as root after the modules are loaded. Its output goes
// to the console, which is printed; everything it leaves in /out is unpacked into --out. The exit
// status is the script's own, 124 after the time limit, 125 when the guest never got that far.
//
//     --module NAME[:PARAMETERS]  load a module and what it depends on (repeat)
//     --file GUEST=HOST           put a file into the guest (repeat)
//     --append TEXT               kernel arguments behind `console=… panic=-1`
//     --out DIR                   where to unpack what the guest left in /out
//     --memory MIB, --cpus N      1024 and 1
//     --accel NAME, --cpu NAME    QEMU's accelerator and processor: tcg (the same anywhere) and max
//     --machine TEXT              behind `q35,` (or `virt,`): machine properties, e.g. kernel-irqchip=split
//     --arch NAME                 amd64 (a q35) or arm64 (a virt, which describes itself by devicetree)
//     --timeout SECONDS           180
//     --kernel SERIES             7.2
//     --console FILE              where to put the console's text instead of standard output
import { spawn, spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { fetchParts } from "./fetch.mjs";
import { buildInitrd } from "./initrd.mjs";
import { isArm, kernelSeries, qemuCommand, vmlinuz } from "./parts.mjs";

const timedOut = 124;
const neverRan = 125;

/** Runs QEMU until it ends or the time is up; resolves to whether it ended by itself. */
function runQemu(command, timeoutSeconds, log) {
  return new Promise((resolve, reject) => {
    const [program, ...args] = command;
    const child = spawn(program, args, { stdio: ["ignore", log, log] });
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      child.kill("SIGKILL");
    }, timeoutSeconds * 1000);
    child.on("error", reject);
    child.on("exit", () => {
      clearTimeout(timer);
      resolve(!isLate);
    });
  });
}

/** The arguments of QEMU for a guest whose files lie in `folder`. */
function guestCommand(parts, options, folder) {
  const serial = isArm(parts) ? "ttyAMA0" : "ttyS0";
  const append = [`console=${serial} panic=-1 quiet`, options.append].filter(Boolean).join(" ");
  const board = isArm(parts) ? "virt,gic-version=3" : "q35";
  const machine = [board, options.machine].filter(Boolean).join(",");
  return [
    ...qemuCommand(parts),
    ...["-accel", options.accel ?? "tcg", "-cpu", options.cpu ?? "max"],
    ...["-smp", String(options.cpus ?? 1), "-m", `${options.memory ?? 1024}M`],
    ...["-machine", machine, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...[
      "-chardev",
      `file,id=console,path=${join(folder, "console")}`,
      "-serial",
      "chardev:console",
    ],
    ...["-chardev", `file,id=out,path=${join(folder, "out.tgz")}`, "-serial", "chardev:out"],
    ...["-kernel", vmlinuz(parts), "-initrd", join(folder, "initrd"), "-append", append],
    ...(options.qemu ?? []),
  ];
}

function unpackOut(archive, out) {
  if (!existsSync(archive) || statSync(archive).size === 0) return false;
  mkdirSync(out, { recursive: true });
  return spawnSync("tar", ["-xzf", archive, "-C", out]).status === 0;
}

/**
 * Boots a guest. See the top of this file for the options; `files` maps a path in the guest to its
 * content, `qemu` is a list of further arguments.
 *
 * @returns `{ status, console, qemuLog }`; what the guest left in /out lies in `options.out`
 */
export async function boot(options) {
  const parts = fetchParts(options.kernel ?? kernelSeries, false, options.arch);
  const folder = mkdtempSync(join(tmpdir(), "iommukit-vm-"));
  try {
    writeFileSync(join(folder, "initrd"), buildInitrd(parts, options));
    const log = openSync(join(folder, "qemu.log"), "w");
    const ended = await runQemu(guestCommand(parts, options, folder), options.timeout ?? 180, log);
    closeSync(log);
    const read = (name) =>
      existsSync(join(folder, name)) ? readFileSync(join(folder, name), "utf8") : "";
    const out = options.out ?? join(folder, "out");
    const unpacked = unpackOut(join(folder, "out.tgz"), out);
    const statusFile = join(out, "status");
    const status = !ended
      ? timedOut
      : unpacked && existsSync(statusFile)
        ? Number(readFileSync(statusFile, "utf8"))
        : neverRan;
    return { status, console: read("console"), qemuLog: read("qemu.log") };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function optionsOf(argv) {
  const text = { type: "string" };
  const list = { type: "string", multiple: true, default: [] };
  const split = argv.indexOf("--");
  const own = split < 0 ? argv : argv.slice(0, split);
  const { values, positionals } = parseArgs({
    args: own,
    allowPositionals: true,
    options: {
      module: list,
      file: list,
      ...Object.fromEntries(
        ["append", "out", "memory", "cpus", "cpu", "accel", "machine", "arch", "timeout"].map(
          (name) => [name, text],
        ),
      ),
      kernel: text,
      console: text,
    },
  });
  if (positionals.length !== 1)
    throw new Error("usage: boot.mjs [options] SCRIPT [-- QEMU ARGUMENTS]");
  const modules = values.module.map((name) => name.split(":"));
  const parameters = modules.map(([name, ...rest]) => [name.replaceAll("-", "_"), rest.join(":")]);
  const files = values.file.map((pair) => pair.split("="));
  return {
    ...values,
    timeout: values.timeout === undefined ? undefined : Number(values.timeout),
    script: readFileSync(positionals[0], "utf8"),
    modules: modules.map(([name]) => name),
    parameters: Object.fromEntries(parameters),
    files: Object.fromEntries(files.map(([path, host]) => [path, readFileSync(host)])),
    qemu: split < 0 ? [] : argv.slice(split + 1),
  };
}

if (import.meta.url === `file://${process.argv[1]}`) {
  const options = optionsOf(process.argv.slice(2));
  const done = await boot(options);
  if (options.console === undefined) process.stdout.write(done.console);
  else writeFileSync(options.console, done.console);
  process.stderr.write(done.qemuLog);
  process.exitCode = done.status;
}
