/**
 * Virtual machines as we read them, held against QEMU itself: its monitor lists the functions.
 * Skipped where `node scripts/vm/fetch.mjs` has not been run.
 */
import { spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { emitVm } from "../../src/host/emit.ts";
import { readCommand } from "../../src/host/qemu-command.ts";
import { buildVm } from "../../src/host/qemu-vm.ts";
import { splitWords } from "../../src/host/qemu-words.ts";
import { realHost } from "../../src/host/real-hosts.suite.ts";
import { readHost } from "../../src/host/sysfs.ts";

const { qemuCommand, readParts } = (await import("../../scripts/vm/parts.mjs" as string)) as {
  qemuCommand(parts: object | null): [string, ...string[]];
  readParts(): object | null;
};
const host = readHost(realHost("q35-2node-intel-iommu")).machine;
const chosen = ["0000:81:00.0", "0000:21:00.0", "0000:82:00.0"];
const words = (text: string) => splitWords(text, "emitted");

const parts = readParts();

/** Slots as the monitor of QEMU lists them: bus 0 and root buses, before firmware numbers others. */
function infoPci(text: string): string[] {
  const [program, ...first] = qemuCommand(parts);
  const { stdout, stderr } = spawnSync(
    program,
    [...first, ...words(text), "-S", "-display", "none", "-serial", "none", "-monitor", "stdio"],
    { input: "info pci\nquit\n", encoding: "utf8", timeout: 60_000 },
  );
  expect(stderr.split("\n").filter((line) => !/warning: nic|^$/.test(line))).toEqual([]);
  const found = [
    ...stdout.matchAll(/Bus\s+(\d+), device\s+(\d+), function (\d):\s+.*PCI device (\S+)/g),
  ];
  return found.map(([, bus, slot, part, id]) => `${bus}:${slot}.${part} ${id}`);
}

describe.skipIf(parts === null)("held against QEMU itself", () => {
  it("accepts what is emitted, with a disk in place of a device of a host", () => {
    const drives = chosen.map((_, at) => `-drive if=none,id=d${at},driver=null-co,size=1M`);
    let at = 0;
    const text = emitVm(host, chosen, "qemu")
      .replace(/,host-nodes=\d,policy=bind/g, "")
      .replace(/size=2G/g, "size=64M")
      .replace("-m 4G", "-m 128M")
      .replace(/vfio-pci,host=[^,]*/g, () => `nvme,serial=s${at},drive=d${at++}`);
    const slots = infoPci(`-nodefaults ${drives.join(" ")} ${text}`);
    expect(slots).toContain("32:0.0 1b36:000c");
    expect(slots).toContain("64:1.0 1b36:000c");
  });

  it.each([
    "-machine q35",
    "-machine pc",
    "-machine q35 -nodefaults -device edu -device pcie-root-port,id=a,chassis=1 -device e1000e,bus=pcie.0 -device edu,addr=7.0,multifunction=on,bus=pcie.0 -device nvme,serial=1",
    `-machine q35 -vga none -nic none -device '{"driver":"edu"}' -device amd-iommu -device virtio-rng-pci`,
    "-machine q35 -netdev user,id=n -device VGA -device virtio-net-pci,netdev=n,disable-legacy=on",
    "-machine q35 -nodefaults -device edu,addr=5 -device edu,addr=1 -device edu -device virtio-keyboard-pci",
  ])("gives %s the functions that QEMU gives it", (text) => {
    const vm = buildVm(readCommand(words(`qemu-system-x86_64 ${text}`), "--qemu"));
    const hex = (value: number) => value.toString(16).padStart(4, "0");
    const ours = vm.machine.functions
      .filter(({ bus }) => bus === 0)
      .map((f) => `0:${f.devfn >> 3}.${f.devfn & 7} ${hex(f.vendor)}:${hex(f.device)}`);
    expect(infoPci(text).filter((one) => one.startsWith("0:"))).toEqual(ours);
  });
});
