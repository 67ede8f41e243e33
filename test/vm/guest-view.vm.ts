/**
 * A real Linux under a real QEMU with a virtio-iommu, a disk that it covers, one behind a root port,
 * and one on an expander that bypasses it: the guest's groups must be those of the guest view.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { decodeTable } from "../../src/firmware/acpi/decode.ts";
import { readTables } from "../../src/firmware/acpi/machine-parts.ts";
import { guestView } from "../../src/firmware/guest-view/guest-view.ts";
import { platforms } from "../../src/firmware/guest-view/platform.ts";
import { DiskTree } from "../../src/host/disk-tree.ts";
import { readHost } from "../../src/host/sysfs.ts";

type Boot = (options: Record<string, unknown>) => Promise<{ status: number; console: string }>;
const { readParts } = (await import("../../scripts/vm/parts.mjs" as string)) as {
  readParts: () => unknown;
};
const isThere = readParts() !== null;
const missing = isThere ? "" : " [skipped: needs a guest, node scripts/vm/fetch.mjs]";

/** Leaves behind what a reader of hosts needs: configuration space, groups, the table. */
const script = `pci=/out/sys/bus/pci/devices; mkdir -p $pci /out/sys/firmware/acpi/tables
for d in /sys/bus/pci/devices/*; do
  p=$(readlink -f $d); mkdir -p /out$p
  for f in config class vendor device numa_node resource; do cat $p/$f > /out$p/$f; done
  ln -s ../../..\${p#/sys} $pci/\${d##*/}
done
for g in /sys/kernel/iommu_groups/*; do
  mkdir -p /out$g/devices
  for d in $g/devices/*; do ln -s $(readlink $d) /out$g/devices/\${d##*/}; done
done
cat /sys/firmware/acpi/tables/VIOT > /out/sys/firmware/acpi/tables/VIOT
`;
const disk = (id: string, where: string) => [
  ...["-drive", `if=none,id=${id},driver=null-co,size=1G`],
  ...["-device", `nvme,drive=${id},serial=${id},${where}`],
];
const qemu = [
  ...["-device", "virtio-iommu-pci,addr=04.0"],
  ...disk("near", "addr=05.0"),
  ...["-device", "pxb-pcie,id=p1,bus=pcie.0,bus_nr=0x20,bypass_iommu=true,addr=06.0"],
  ...["-device", "pcie-root-port,id=rp1,bus=p1,chassis=1,slot=1"],
  ...disk("bypassed", "bus=rp1"),
  ...["-device", "pcie-root-port,id=rp2,bus=pcie.0,chassis=2,slot=2,addr=07.0"],
  ...disk("below", "bus=rp2"),
];

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "iommukit-view-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

it.skipIf(!isThere)(
  `a guest has the groups of its view, bypassed devices in none${missing}`,
  async () => {
    const { boot } = (await import("../../scripts/vm/boot.mjs" as string)) as { boot: Boot };
    const out = join(folder, "out");
    const done = await boot({ script, out, modules: ["virtio_iommu", "nvme"], qemu });
    expect(done.status, done.console).toBe(0);
    const tree = new DiskTree(out);
    const { machine } = readHost(tree);
    const table = decodeTable(tree.bytes("/sys/firmware/acpi/tables/VIOT", 65_536)!);
    const { machine: said } = readTables([table], machine.functions);
    // The table names the IOMMU that QEMU was given; nothing else told the reader of it.
    const actual = { ...machine, iommus: said.iommus };
    const view = guestView(actual, [{ kind: "viot", machine: said }], platforms["x86-acpi"]);
    const seen = new Map<number, string[]>();
    for (const { device, group } of view.endpoints) {
      if (group !== null) seen.set(group, [...(seen.get(group) ?? []), device]);
    }
    const formed = machine.groups.map(({ devices }) => [...devices].sort().join(" "));
    expect([...seen.values()].map((one) => one.sort().join(" ")).sort()).toEqual(formed.sort());
    const outcome = (name: string) => view.endpoints.find((one) => one.device === name)?.outcome;
    expect(outcome("0000:00:04.0")).toBe("iommu");
    expect(outcome("0000:01:00.0")).toBe("translated");
    expect(outcome("0000:21:00.0")).toBe("untranslated");
  },
  120_000,
);
