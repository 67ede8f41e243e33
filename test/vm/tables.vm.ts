/**
 * A real Linux under a real QEMU reads tables that we wrote: the devices that it puts into groups,
 * and the nodes that it finds, must be those of the machine that the tables were written from.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildTable } from "../../src/firmware/acpi/build.ts";
import { decodeTable } from "../../src/firmware/acpi/decode.ts";
import { readTables } from "../../src/firmware/acpi/machine-parts.ts";
import { idsOf } from "../../src/firmware/acpi/table-writer.ts";
import { le, tableOf } from "../../src/firmware/acpi/tables.suite.ts";
import { EMPTY_MACHINE, type Machine, type NumaNode } from "../../src/topology/machine.ts";
import { parseBdf } from "../../src/topology/pci-address.ts";
import { privateTables, tableAddresses } from "./private-acpi.ts";

interface Outcome {
  readonly status: number;
  readonly console: string;
}
type Boot = (options: Record<string, unknown>) => Promise<Outcome>;

const { readParts } = (await import("../../scripts/vm/parts.mjs" as string)) as {
  readParts: () => unknown;
};
const isThere = readParts() !== null;
const missing = isThere ? "" : " [skipped: needs a guest, node scripts/vm/fetch.mjs]";

/** Where our tables lie in guest memory: ordinary RAM that the kernel is told to leave alone. */
const BASE = 0x1e00_0000n;
const append = `acpi_rsdp=0x${BASE.toString(16)} memmap=1M$0x${BASE.toString(16)}`;
const script = `mkdir -p /out; dmesg > /out/dmesg.txt
cat /proc/iomem > /out/iomem.txt
for t in VIOT DMAR; do [ -f /sys/firmware/acpi/tables/$t ] && cat /sys/firmware/acpi/tables/$t > /out/$t; done
for d in /sys/kernel/iommu_groups/*/devices/*; do echo \${d##*/}; done | sort > /out/devices.txt
for n in /sys/devices/system/node/node[0-9]*; do echo "\${n##*node} $(cat $n/cpulist) $(cat $n/distance)"; done > /out/nodes.txt
`;
const devices = [
  ...["-device", "pxb-pcie,id=p1,bus=pcie.0,bus_nr=0x20"],
  ...["-device", "pcie-root-port,id=rp1,bus=p1,chassis=1,slot=1"],
  ...["-drive", "if=none,id=d,driver=null-co,size=1G"],
  ...["-device", "nvme,drive=d,serial=1,bus=rp1"],
];

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "iommukit-vm-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

let runs = 0;
/** Boots, and returns a reader of what the guest left behind. */
async function booted(options: Record<string, unknown>, qemu: string[]) {
  const { boot } = (await import("../../scripts/vm/boot.mjs" as string)) as { boot: Boot };
  runs += 1;
  const out = join(folder, `out${runs}`);
  const outcome = await boot({
    script,
    out,
    timeout: 240,
    ...options,
    qemu: [...qemu, ...devices],
  });
  expect(outcome.status, outcome.console.slice(-2000)).toBe(0);
  return (name: string) => readFileSync(join(out, name));
}

/** Boots with our tables in place of the platform's. */
async function bootedWith(
  tables: readonly Uint8Array[],
  dmesg: string,
  options: Record<string, unknown>,
  qemu: string[],
) {
  const file = join(folder, `tables${runs}.bin`);
  writeFileSync(file, privateTables(BASE, tableAddresses(dmesg), tables));
  const loader = ["-device", `loader,file=${file},addr=0x${BASE.toString(16)},force-raw=on`];
  return booted({ ...options, append: `${append} ${options.append ?? ""}` }, [...qemu, ...loader]);
}

const lines = (bytes: Uint8Array) =>
  bytes
    .toString()
    .trim()
    .split("\n")
    .filter((line) => line !== "");

describe("Linux and a VIOT that we wrote", () => {
  const options = { modules: ["virtio_iommu", "nvme"] };
  const iommu = ["-device", "virtio-iommu-pci,bus=pcie.0,addr=4"];

  it.skipIf(!isThere)(
    `puts exactly the functions of its ranges behind the IOMMU${missing}`,
    async () => {
      const first = await booted(options, iommu);
      const dmesg = first("dmesg.txt").toString();
      const original = new Uint8Array(first("VIOT"));
      const { machine } = readTables([decodeTable(original)]);
      expect(buildTable("viot", machine, idsOf(original))).toEqual(original);

      // Ours leaves the root bus out, and everything on the expander but its root port in.
      const range = { segment: 0, includesBelow: false };
      const translates = [{ ...range, firstRid: 0x2100, lastRid: 0x21ff, firstId: 0x2100 }];
      const ours: Machine = {
        ...machine,
        iommus: machine.iommus.map((one) => ({ ...one, translates })),
      };
      const table = buildTable("viot", ours);
      const second = await bootedWith([table], dmesg, options, iommu);
      expect(new Uint8Array(second("VIOT"))).toEqual(table);
      const all = lines(first("devices.txt"));
      const predicted = all.filter((name) => {
        const pci = parseBdf(name)!;
        const rid = pci.bus * 256 + pci.devfn;
        return translates.some((one) => one.firstRid <= rid && rid <= one.lastRid);
      });
      expect(predicted).toEqual(["0000:21:00.0"]);
      expect(lines(second("devices.txt"))).toEqual(predicted);
      expect(all.length).toBeGreaterThan(predicted.length);
    },
  );
});

describe("Linux and a damaged VIOT", () => {
  const options = { modules: ["virtio_iommu", "nvme"] };
  const iommu = ["-device", "virtio-iommu-pci,bus=pcie.0,addr=4"];
  const range = (first: number, last: number, output: number, length = 24) => {
    const words = [...le(0, 4), ...le(first, 2), ...le(last, 2), ...le(output, 2)];
    return [1, 0, ...le(length, 2), ...le(first, 4), ...words, ...new Array(16).fill(0)].slice(
      0,
      length,
    );
  };

  it.skipIf(!isThere)(
    `is read as our reader reads it: the same functions, the same complaints${missing}`,
    async () => {
      const nodes = [
        range(0x2000, 0x2007, 180), // the host bridge's own bus, by an IOMMU node that comes last
        [9, 0, 8, 0, 1, 2, 3, 4], // unknown
        range(0x00f8, 0x00ff, 48), // its output node is a range
        range(0x2100, 0x21ff, 180, 32), // longer than it needs to be
        range(0x0008, 0x000f, 180), // the expander's function on the root bus
        range(0x0000, 0x0007, 180, 20), // too short: nothing behind it is read
        range(0x00f8, 0x00ff, 180).slice(0, 24),
      ];
      const lengths = nodes.map((node) => node.length);
      expect(48 + lengths.slice(0, 6).reduce((sum, one) => sum + one, 0)).toBe(180);
      nodes.splice(6, 0, [3, 0, 16, 0, 0, 0, 0x20, 0, ...new Array(8).fill(0)]);
      const table = tableOf("VIOT", 7, [...le(20, 2), ...le(48, 2), ...le(0, 8)], ...nodes);

      const first = await booted(options, iommu);
      const dmesg = first("dmesg.txt").toString();
      const second = await bootedWith([table], dmesg, options, iommu);
      const { machine, findings } = readTables([decodeTable(table)]);
      const ranges = machine.iommus[0]!.translates;
      const predicted = lines(first("devices.txt")).filter((name) => {
        const pci = parseBdf(name)!;
        const rid = pci.bus * 256 + pci.devfn;
        return ranges.some((one) => one.firstRid <= rid && rid <= one.lastRid);
      });
      expect(predicted).toEqual(["0000:00:01.0", "0000:20:00.0", "0000:21:00.0"]);
      expect(lines(second("devices.txt"))).toEqual(predicted);
      // What our findings say that Linux logs is what it logged.
      const log = second("dmesg.txt").toString();
      for (const message of [
        "Unsupported node 9",
        "No IOMMU node found",
        "Invalid PCI node size",
      ]) {
        expect(
          findings[0]!.some((one) => one.effect?.includes(message)),
          message,
        ).toBe(true);
        expect(log).toContain(message);
      }
    },
  );
});

describe("Linux and SRAT, SLIT and DMAR that we wrote", () => {
  const options = {
    modules: ["nvme"],
    append: "intel_iommu=on",
    machine: "kernel-irqchip=split",
    cpus: 2,
    memory: 1024,
  };
  const iommu = ["-device", "intel-iommu,intremap=on"];
  const node = (id: number, proximityDomain: number, start: bigint, last: bigint): NumaNode => ({
    id,
    proximityDomain,
    memory: [{ start, last, hotPluggable: false, nonVolatile: false }],
    memoryBytes: last - start + 1n,
    cpus: [id],
    firmwareCpuIds: [id],
    distances: id === 0 ? [10, 40] : [50, 10],
  });

  it.skipIf(!isThere)(
    `finds our nodes and distances, and devices behind the unit of our DMAR${missing}`,
    async () => {
      const first = await booted(options, iommu);
      const dmesg = first("dmesg.txt").toString();
      const { machine } = readTables([decodeTable(new Uint8Array(first("DMAR")))]);
      const nodes = [node(0, 5, 0n, 0x1fff_ffffn), node(1, 3, 0x2000_0000n, 0x3fff_ffffn)];
      const unit = machine.iommus[0]!;
      // One unit for everything, on the second node, instead of function by function.
      const ours: Machine = {
        ...EMPTY_MACHINE,
        architecture: "x86_64",
        nodes,
        iommus: [{ ...unit, node: 1, translates: [], includesRest: true }],
      };
      const tables = (["srat", "slit", "dmar"] as const).map((kind) => buildTable(kind, ours));
      const second = await bootedWith(tables, dmesg, options, iommu);
      expect(lines(second("nodes.txt"))).toEqual(["0 0 10 40", "1 1 50 10"]);
      expect(lines(second("devices.txt"))).toEqual(lines(first("devices.txt")));
      expect(lines(second("devices.txt"))).toContain("0000:21:00.0");
      const log = second("dmesg.txt").toString();
      expect(log).toMatch(/DMAR: RHSA base: 0x000000fed90000 proximity domain: 0x3/);
      expect(log).not.toMatch(/Firmware Bug|SRAT not used|looks invalid/);
    },
  );
});
