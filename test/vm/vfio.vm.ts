/**
 * Fresh recordings of a real Linux under a real QEMU, of calls that no bundled recording holds:
 * `verify` must agree with every answer, behind each kind of IOMMU that QEMU emulates.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { verifyFiles } from "../../src/recording/node/verify-files.ts";
import { toolPath } from "../support/tools.ts";

interface Outcome {
  readonly status: number;
  readonly console: string;
}
type Boot = (options: Record<string, unknown>) => Promise<Outcome>;

const { readParts } = (await import("../../scripts/vm/parts.mjs" as string)) as {
  readParts: () => unknown;
};
const isThere = readParts() !== null && toolPath("gcc") !== null;
const missing = isThere
  ? ""
  : " [skipped: needs gcc and a guest, apt-get install gcc; node scripts/vm/fetch.mjs]";

const nvme = ["-drive", "if=none,id=d,driver=null-co,size=1G", "-device", "nvme,drive=d,serial=1"];
const bar = [
  ...["-object", "memory-backend-ram,id=b,size=2G,share=on,reserve=off"],
  ...["-device", "ivshmem-plain,memdev=b"],
];

/** Binds a device to vfio-pci; its group's number is then $G. */
const bind = `bind() {
  for d in /sys/bus/pci/devices/*; do [ "$(cat $d/$1)" = $2 ] && BDF=$(basename $d); done
  echo vfio-pci > /sys/bus/pci/devices/$BDF/driver_override
  echo $BDF > /sys/bus/pci/drivers_probe
  G=$(basename $(readlink /sys/bus/pci/devices/$BDF/iommu_group))
  chmod 666 /dev/vfio/*
}
`;
const script = `${bind}bind class 0x010802 || exit 1
for seed in 9001 9002; do vfio-record type1 $G --seed $seed --ops 3000 > /out/v2-$seed.jsonl || exit 2; done
vfio-record type1 $G --seed 9003 --type 1 --ops 3000 > /out/v1-9003.jsonl || exit 3
vfio-record type1 $G --seed 9004 --memlock 23 --ops 3000 > /out/memlock-9004.jsonl || exit 4
bind device 0x1110 || exit 5
cd /sys/kernel/tracing; echo 16384 > buffer_size_kb
echo 1 > events/iommu/map/enable; echo 1 > events/iommu/unmap/enable
vfio-record map-time $G $BDF 2 --largest 32 > /out/map-time.jsonl || exit 6
cat trace > /out/map-time-events.txt
`;

const hosts: readonly (readonly [string, Record<string, unknown>, readonly string[]])[] = [
  [
    "VT-d",
    { append: "intel_iommu=on", machine: "kernel-irqchip=split" },
    ["-device", "intel-iommu,intremap=on,aw-bits=48"],
  ],
  [
    "VT-d in scalable mode, first stage",
    { append: "intel_iommu=on,sm_on", machine: "kernel-irqchip=split" },
    ["-device", "intel-iommu,intremap=on,scalable-mode=on,fsts=on"],
  ],
  [
    "AMD",
    { machine: "kernel-irqchip=split" },
    ["-device", "amd-iommu,intremap=on,xtsup=on,dma-remap=on"],
  ],
  [
    "virtio-iommu with room for six mappings",
    {
      modules: ["virtio_iommu"],
      // Nothing there keeps devices from forging interrupts.
      parameters: { vfio_iommu_type1: "allow_unsafe_interrupts=1 dma_entry_limit=6" },
    },
    ["-device", "virtio-iommu-pci"],
  ],
];

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "iommukit-vfio-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe("calls that a real Linux answers now", () => {
  const run = isThere ? it : it.skip;
  run.each(hosts)(
    `behind %s are answered the same${missing}`,
    async (name, options, qemu) => {
      const { boot } = (await import("../../scripts/vm/boot.mjs" as string)) as { boot: Boot };
      const recorder = join(folder, "vfio-record");
      const source = "scripts/vm/guest/vfio-record.c";
      execFileSync("gcc", ["-static", "-O2", "-o", recorder, source]);
      const out = join(folder, name.replaceAll(" ", "-"));
      const outcome = await boot({
        script,
        out,
        timeout: 240,
        ...options,
        modules: ["vfio-pci", "vfio_iommu_type1", ...((options.modules as string[]) ?? [])],
        files: { "/bin/vfio-record": readFileSync(recorder) },
        qemu: [...qemu, ...nvme, ...bar],
      });
      expect(outcome.status, outcome.console.slice(-2000)).toBe(0);
      const files = readdirSync(out).filter((file) => file !== "status");
      const paths = files.map((file) => join(out, file));
      const { document } = await verifyFiles(paths, { schedule: null });
      const { recordings } = document.result;
      for (const { file, compared, matched, divergences } of recordings) {
        expect([file, divergences.slice(0, 3)]).toEqual([file, []]);
        expect([file, matched]).toEqual([file, compared]);
      }
      expect(recordings.reduce((sum, { compared }) => sum + compared, 0)).toBeGreaterThan(12_000);
    },
    300_000,
  );
});
