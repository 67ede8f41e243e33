/**
 * A guest with expanders, switches, conventional bridges and functions in one slot: what its kernel
 * shows in sysfs is what its command line was read to give, by buses, ids, nodes and groups. And a
 * running QEMU, read by its process id.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readVm } from "../../src/cli/vm-input.ts";
import { vmFindings } from "../../src/host/check-vm.ts";
import { DiskTree } from "../../src/host/disk-tree.ts";
import { emitVm } from "../../src/host/emit.ts";
import { readCommand } from "../../src/host/qemu-command.ts";
import { buildVm } from "../../src/host/qemu-vm.ts";
import { splitWords } from "../../src/host/qemu-words.ts";
import { realHost } from "../../src/host/real-hosts.suite.ts";
import { readHost } from "../../src/host/sysfs.ts";
import { pciName } from "../../src/iommu/pci-function.ts";
import { deriveGroups } from "../../src/topology/groups.ts";
import type { Machine } from "../../src/topology/machine.ts";

interface Outcome {
  readonly status: number;
  readonly console: string;
  readonly qemuLog: string;
}
type Boot = (options: Record<string, unknown>) => Promise<Outcome>;

const { qemuCommand, readParts } = (await import("../../scripts/vm/parts.mjs" as string)) as {
  qemuCommand(parts: object | null): [string, ...string[]];
  readParts(): object | null;
};
const parts = readParts();
const isThere = parts !== null;
const missing = isThere ? "" : " [skipped: needs a guest, node scripts/vm/fetch.mjs]";

const script = `mkdir -p /out/sys/bus/pci /out/sys/kernel /out/sys/devices/system
for d in bus/pci/devices kernel/iommu_groups devices/system/node; do
  cp -a /sys/$d /out/sys/\${d%/*}/ 2>/dev/null
done
for d in /sys/devices/pci*; do cp -a $d /out/sys/devices/ 2>/dev/null; done
true
`;
const base = [
  "-object memory-backend-ram,id=m0,size=512M -object memory-backend-ram,id=m1,size=512M",
  "-numa node,nodeid=0,cpus=0,memdev=m0 -numa node,nodeid=1,cpus=1,memdev=m1",
  "-numa dist,src=0,dst=1,val=21",
].join(" ");
const disk = (id: string, where: string) =>
  `-drive if=none,id=${id},driver=null-co,size=1M -device nvme,drive=${id},serial=${id},${where}`;
const nested = [
  "-device pxb-pcie,id=p1,bus=pcie.0,bus_nr=0x20,numa_node=1,addr=9",
  "-device pxb-pcie,id=p0,bus=pcie.0,bus_nr=0x80,numa_node=0,addr=8",
  // Ports of one slot, and their order against that of their names.
  "-device pcie-root-port,id=ra,bus=pcie.0,chassis=1,addr=3.1",
  "-device pcie-root-port,id=rb,bus=pcie.0,chassis=2,addr=3.0,multifunction=on",
  "-device pcie-root-port,id=rc,bus=p1,chassis=3",
  "-device pcie-root-port,id=rd,bus=p1,chassis=4",
  "-device x3130-upstream,id=up,bus=rc",
  "-device xio3130-downstream,id=d0,bus=up,chassis=5,slot=5",
  "-device xio3130-downstream,id=d1,bus=up,chassis=6,slot=6",
  "-device x3130-upstream,id=up2,bus=d1",
  "-device xio3130-downstream,id=d2,bus=up2,chassis=7,slot=7",
  disk("a", "bus=ra"),
  disk("b", "bus=rb"),
  disk("c", "bus=d0"),
  disk("d", "bus=d2"),
  "-device edu,bus=pcie.0,addr=5.0,multifunction=on -device edu,bus=pcie.0,addr=5.3",
  "-device pcie-root-port,id=re,bus=p0,chassis=9",
  disk("e", "bus=re"),
].join(" ");
const conventional = [
  "-device pcie-pci-bridge,id=cb,bus=rd",
  "-device pci-bridge,id=cc,bus=cb,addr=2,chassis_nr=8",
  "-device edu,bus=cb,addr=3",
  "-device edu,bus=cc,addr=1",
].join(" ");
const kinds = {
  virtio: { iommu: "-device virtio-iommu-pci,bus=pcie.0,addr=4", modules: ["virtio_iommu"] },
  // A conventional bridge takes a virtio-iommu down; see below.
  intel: {
    iommu: `-device intel-iommu,intremap=on ${conventional}`,
    modules: [],
    append: "intel_iommu=on",
    machine: "kernel-irqchip=split",
  },
};

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "iommukit-bus-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** What of a machine can be compared: the guest's kernel counts groups in its own order. */
function seenIn({ functions }: Machine): string[] {
  const hex = (value: number) => value.toString(16).padStart(4, "0");
  return functions.map((one) => {
    const bridge = functions[one.bridge];
    const above = bridge === undefined ? "root" : pciName(bridge);
    return `${pciName(one)} ${hex(one.vendor)}:${hex(one.device)} node ${one.node} below ${above}`;
  });
}

const groupsIn = (groups: readonly { readonly devices: readonly string[] }[]) =>
  groups.map(({ devices }) => [...devices].sort().join(" ")).sort();

describe.each(["virtio", "intel"] as const)("a guest with nested buses and a %s IOMMU", (kind) => {
  it.skipIf(!isThere)(
    `shows the buses, ids, nodes and groups of its command line${missing}`,
    async () => {
      const { iommu, modules, ...options } = { append: "", ...kinds[kind] };
      const text = `${base} ${nested} ${iommu}`;
      const vm = buildVm(
        readCommand(splitWords(`qemu-system-x86_64 -M q35 -m 1G -nodefaults ${text}`, "x"), "x"),
      );
      expect(vm.ignored).toEqual([]);
      const { boot } = (await import("../../scripts/vm/boot.mjs" as string)) as { boot: Boot };
      const out = join(folder, kind);
      const qemu = splitWords(text, "x");
      const done = await boot({ script, out, modules, cpus: 2, ...options, qemu });
      expect(done.status, `${done.console.slice(-2000)}`).toBe(0);
      const { machine } = readHost(new DiskTree(out));
      expect(seenIn(vm.machine)).toEqual(seenIn(machine));
      expect(groupsIn(deriveGroups(vm.machine))).toEqual(groupsIn(machine.groups));
    },
  );
});

describe("a guest with a virtio-iommu and a device behind a conventional bridge", () => {
  it.skipIf(!isThere)(`forms no group at all, as check says${missing}`, async () => {
    const text = `${kinds.virtio.iommu} -device pcie-pci-bridge,id=cb -device edu,bus=cb,addr=3`;
    const line = `qemu-system-x86_64 -M q35 -m 1G -nodefaults ${text}`;
    const vm = buildVm(readCommand(splitWords(line, "x"), "x"));
    const limits = { host: null, memlockBytes: null, entryLimit: null };
    expect(vmFindings(vm, limits).map(({ code }) => code)).toContain("viommu-behind-bridge");
    const { boot } = (await import("../../scripts/vm/boot.mjs" as string)) as { boot: Boot };
    const out = join(folder, "conventional");
    const qemu = splitWords(text, "x");
    const done = await boot({ script, out, modules: ["virtio_iommu"], qemu });
    expect(done.status, done.console.slice(-2000)).toBe(0);
    const { machine } = readHost(new DiskTree(out));
    expect(seenIn(machine)).toEqual(seenIn(vm.machine));
    expect(machine.groups).toEqual([]);
  });
});

describe("a running QEMU", () => {
  it.skipIf(!isThere)(`is read by its process id, with its limit${missing}`, async () => {
    const [program, ...first] = qemuCommand(parts);
    const more = splitWords(
      `-M q35 -nodefaults -m 1G -smp 2 ${base} ${nested} ${conventional}`,
      "x",
    );
    const words = [...first, ...more, "-S", "-display", "none", "-accel", "tcg"];
    const child = spawn(program, words, { stdio: ["ignore", "ignore", "pipe"] });
    try {
      await new Promise((resolve) => setTimeout(resolve, 500));
      expect(child.exitCode).toBe(null);
      const vm = await readVm({ pid: `${child.pid}` }, null);
      const told = buildVm(readCommand(["qemu-system-x86_64", ...more], "x"));
      expect(vm.ignored).toEqual([]);
      expect(seenIn(vm.machine)).toEqual(seenIn(told.machine));
      expect(vm.memlockBytes === null || vm.memlockBytes > 0n).toBe(true);
    } finally {
      child.kill();
    }
  });
});

describe("a guest of emitted arguments", () => {
  const host = readHost(realHost("q35-2node-intel-iommu")).machine;
  const chosen = ["0000:81:00.0", "0000:21:00.0", "0000:82:00.0"];

  it.skipIf(!isThere).each([
    ["none", {}, "none"],
    ["virtio", { modules: ["virtio_iommu"] }, "0000:00:01.0"],
    ["intel", { append: "intel_iommu=on", machine: "kernel-irqchip=split" }, "dmar0"],
    ["amd", { machine: "kernel-irqchip=split" }, "ivhd0"],
  ] as const)(
    `has its devices on the host's nodes, behind IOMMU %s${missing}`,
    async (iommu, options, unit) => {
      const emitted = emitVm(host, chosen, "qemu", { iommu, memoryBytes: 1n << 30n, cpus: 2 });
      let at = 0;
      // Disks stand for the host's devices, and any memory for that of its nodes.
      const text = emitted
        .replace(/-(machine|m|smp) \S+ \\\n/g, "")
        .replace(/,host-nodes=\d,policy=bind/g, "")
        .replace(/vfio-pci,host=[^,]*/g, () => `nvme,serial=s${at},drive=d${at++}`);
      const drives = chosen.map((_, index) => `-drive if=none,id=d${index},driver=null-co,size=1M`);
      const qemu = splitWords(`${drives.join(" ")} ${text}`, "x");
      const { boot } = (await import("../../scripts/vm/boot.mjs" as string)) as { boot: Boot };
      const out = join(folder, `emitted-${iommu}`);
      const done = await boot({ script, out, cpus: 2, ...options, qemu });
      expect(done.status, `${done.qemuLog} ${done.console.slice(-2000)}`).toBe(0);
      const { machine } = readHost(new DiskTree(out));
      expect(machine.nodes.map(({ distances }) => distances)).toEqual(
        host.nodes.map(({ distances }) => distances),
      );
      const disks = machine.functions.filter(({ classCode }) => classCode === 0x010802);
      expect(disks.map(({ node }) => node)).toEqual([0, 1, 1]);
      const isGrouped = disks.map(({ group }) => group !== null);
      expect(isGrouped).toEqual(chosen.map(() => unit !== "none"));
    },
  );
});
