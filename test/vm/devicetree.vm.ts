/**
 * A real Linux on Arm that a devicetree describes: read through its own files, its groups and ids
 * are those of its tree; and with a tree that we wrote, devices go where ours says.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { decodeBlob } from "../../src/firmware/devicetree/blob.ts";
import { flatten } from "../../src/firmware/devicetree/blob-write.ts";
import { changed, withProperties } from "../../src/firmware/devicetree/devicetree.suite.ts";
import { readDevicetree } from "../../src/firmware/devicetree/reader.ts";
import { bytesOf, cells, cellsOf } from "../../src/firmware/devicetree/tree.ts";
import { DiskTree } from "../../src/host/disk-tree.ts";
import { readHost } from "../../src/host/sysfs.ts";
import { pciName } from "../../src/iommu/pci-function.ts";
import { compareGroups, deriveGroups } from "../../src/topology/groups.ts";
import { TranslationMap } from "../../src/topology/translation.ts";

interface Outcome {
  readonly status: number;
  readonly console: string;
}
type Boot = (options: Record<string, unknown>) => Promise<Outcome>;

const { readParts } = (await import("../../scripts/vm/parts.mjs" as string)) as {
  readParts: (series: string, arch: string) => unknown;
};
const isThere = readParts("7.2", "arm64") !== null;
const missing = isThere ? "" : " [skipped: needs a guest, node scripts/vm/fetch.mjs --arch arm64]";

const script = `for d in firmware/devicetree bus/pci/devices bus/platform/devices class/iommu kernel/iommu_groups devices/platform devices/system/node; do
  mkdir -p /out/sys/\${d%/*}; cp -a /sys/$d /out/sys/\${d%/*}/ 2>/dev/null
done
cat /sys/firmware/fdt > /out/fdt; dmesg > /out/dmesg.txt
`;
const qemu = [
  ...["-object", "memory-backend-ram,id=m0,size=512M"],
  ...["-object", "memory-backend-ram,id=m1,size=512M"],
  ...["-numa", "node,nodeid=0,memdev=m0", "-numa", "node,nodeid=1,memdev=m1"],
  ...["-numa", "dist,src=0,dst=1,val=30"],
  ...["-drive", "if=none,id=d,driver=null-co,size=1G"],
  ...["-device", "pcie-root-port,id=rp,bus=pcie.0,chassis=1"],
  ...["-device", "nvme,drive=d,serial=1,bus=rp"],
];
const kinds = {
  virtio: { modules: ["virtio_iommu", "nvme"], more: ["-device", "virtio-iommu-pci,addr=4"] },
  smmuv3: { modules: ["nvme"], machine: "iommu=smmuv3", more: [] },
};

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "iommukit-arm-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Boots a guest and gives the folder with what it left behind. */
async function booted(kind: keyof typeof kinds, more: readonly string[] = []): Promise<string> {
  const { boot } = (await import("../../scripts/vm/boot.mjs" as string)) as { boot: Boot };
  const out = mkdtempSync(join(folder, "out-"));
  const { more: own, ...options } = kinds[kind];
  const done = await boot({
    ...{ script, out, arch: "arm64", cpus: 2, ...options },
    qemu: [...qemu, ...own, ...more],
  });
  expect(done.status, done.console.slice(-2000)).toBe(0);
  return out;
}

describe.each(["virtio", "smmuv3"] as const)("an Arm guest with a %s", (kind) => {
  it.skipIf(!isThere)(
    `has the groups and ids of its devicetree, from directories and from the blob${missing}`,
    async () => {
      const out = await booted(kind);
      const { machine, findings } = readHost(new DiskTree(out));
      expect(findings).toEqual([]);
      const compared = compareGroups(machine, deriveGroups(machine));
      expect(compared.map(({ agrees }) => agrees)).toEqual([true, true, true]);
      const map = new TranslationMap(machine);
      const byTree = machine.functions.filter((_, index) => map.of(index) !== null);
      const byKernel = machine.functions.filter(({ iommu }) => iommu !== null);
      expect(byTree.map(pciName)).toEqual(byKernel.map(pciName));
      const blob = readDevicetree(decodeBlob(readFileSync(join(out, "fdt"))).root).machine;
      const unit = machine.iommus[0]!;
      expect(blob.iommus[0]).toMatchObject({ kind: unit.kind, translates: unit.translates });
      expect(blob.nodes.map(({ memory }) => memory)).toEqual(
        machine.nodes.map(({ memory }) => memory),
      );
    },
  );
});

describe("Linux and a devicetree that we wrote", () => {
  it.skipIf(!isThere)(
    `leaves out the functions that our iommu-map leaves out, and takes our nodes${missing}`,
    async () => {
      const first = await booted("smmuv3");
      const { root, reservations, header } = decodeBlob(readFileSync(join(first, "fdt")));
      // The map sends bus 1 alone to the SMMU, and the host bridge is on node 1.
      const ours = changed(root, (node) => {
        const map = bytesOf(node, "iommu-map");
        if (map === null) return node;
        const phandle = cellsOf(map)[1]!;
        return withProperties(node, {
          "iommu-map": cells(0x100, phandle, 0x100, 0x100),
          "numa-node-id": cells(1),
        });
      });
      const file = join(folder, "ours.dtb");
      writeFileSync(file, flatten({ root: ours, reservations, bootCpu: header.bootCpu }));
      const { machine } = readHost(new DiskTree(await booted("smmuv3", ["-dtb", file])));
      const behind = machine.functions.filter(({ iommu }) => iommu !== null).map(pciName);
      expect(behind).toEqual(["0000:01:00.0"]);
      const map = new TranslationMap(machine);
      const predicted = machine.functions.filter((_, index) => map.of(index) !== null);
      expect(predicted.map(pciName)).toEqual(behind);
      expect(machine.functions.map(({ node }) => node)).toEqual([1, 1, 1]);
    },
  );
});
