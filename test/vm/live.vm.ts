/**
 * An unmodified Linux under a stock QEMU behind the stack: what reaches the disks, what each I/O
 * asks of the virtio-iommu, and that the guest outlives the process that serves it.
 *
 * Numbers are those of live-path measurements with the same QEMU and kernel; 64 KiB requests depend
 * on how memory is scattered and are not among them. Skipped where `node scripts/vm/fetch.mjs` has
 * not been run.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { exampleMachine } from "../../src/live/machine/live-machine.suite.ts";
import type { LiveMachine } from "../../src/live/machine/live-machine.ts";
import { Files, runCli } from "../run-cli.ts";
import { bootLive, diskIn, fio, type Live, parts, scripts } from "./live-guest.ts";

const MIB = 2 ** 20;
const common = { isReadOnly: false, queues: 2, isTranslated: true };

/** A virtio-blk disk and an NVMe disk on bus 0, another behind a root port. */
function threeDisks(folder: string): LiveMachine {
  const at = (device: number) => ({ device, port: null });
  return {
    ...exampleMachine(),
    disks: [
      diskIn(folder, { ...common, kind: "virtio-blk", name: "blk0", slot: at(4) }, 64 * MIB),
      diskIn(folder, { ...common, kind: "nvme", name: "nvme0", slot: at(5) }, 64 * MIB),
      diskIn(
        folder,
        { ...common, kind: "nvme", name: "nvme1", slot: { device: 0, port: "port0" } },
        64 * MIB,
      ),
    ],
  };
}

const disks = [
  { name: "blk0", pci: "0000:00:04.0", driver: "virtio-pci" },
  { name: "nvme0", pci: "0000:00:05.0", driver: "nvme" },
  { name: "nvme1", pci: "0000:01:00.0", driver: "nvme" },
] as const;
type Disk = (typeof disks)[number];

/** Binds a disk anew with its group of a type; its name in the guest. */
async function rebind(live: Live, { pci, driver }: Disk, type = '""'): Promise<string> {
  const output = await live.run(`. /measure.sh; rebind ${pci} ${driver} ${type}`);
  return output.trim().split("\n").at(-1)!;
}

/** The MD5 of a disk as the guest reads it, past its cache. */
async function guestSum(live: Live, name: string): Promise<string> {
  const command = `sync; echo 3 > /proc/sys/vm/drop_caches; md5sum /dev/${name}`;
  return (await live.run(command)).split(" ")[0]!;
}

/** Starts a fio that checks what it writes, in the background, and waits for it. */
function load(live: Live, name: string, seconds: number) {
  const words = [
    `${fio.guestCommand} --name=load --filename=/dev/${name} --ioengine=libaio --direct=1`,
    `--rw=randwrite --bs=4k --iodepth=8 --size=16M --verify=crc32c --verify_fatal=1`,
    `--verify_backlog=64 --time_based --runtime=${seconds} --output-format=terse`,
  ];
  return live.run(`cd /tmp && ${words.join(" ")}`, 300_000);
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe.skipIf(parts === null)("a guest behind a virtio-iommu, virtio-blk and NVMe", () => {
  let live: Live;
  const names = new Map<string, string>();

  beforeAll(async () => {
    live = await bootLive(threeDisks, { append: "quiet iommu.strict=1", reboots: true });
    for (const disk of disks) names.set(disk.name, await rebind(live, disk, "DMA"));
  }, 300_000);
  afterAll(() => live?.stop());

  it("finds every disk in a group of its own, the one behind a root port included", async () => {
    const groups = await live.run("ls -d /sys/kernel/iommu_groups/*/devices/*");
    expect(groups.match(/\/0000:[0-9a-f:.]+$/gm)!.sort()).toEqual(
      disks.map(({ pci }) => `/${pci}`).sort(),
    );
    expect(await live.run("dmesg")).toContain("virtio_iommu virtio0: input address: 48 bits");
  });

  it("writes what this side finds in the images, and reads it back, in each mode", async () => {
    for (const type of ["DMA", "DMA-FQ", "identity"]) {
      for (const disk of disks) {
        const name = await rebind(live, disk, type);
        await live.run(`dd if=/dev/urandom of=/dev/${name} bs=1M count=16 conv=fsync`);
        expect(await guestSum(live, name), `${disk.name} ${type}`).toBe(live.imageSum(disk.name));
      }
    }
    expect(live.scrape().value("iommukit_faults_total")).toBe(0);
  }, 300_000);

  /** MAP, UNMAP and kicks for each I/O of 4 KiB. */
  const expected = [
    { disk: disks[0], type: "DMA", depth: 1, maps: 4, unmaps: 4, kicks: 8 },
    { disk: disks[0], type: "DMA-FQ", depth: 1, maps: 4, unmaps: 4, kicks: 4.03 },
    { disk: disks[0], type: "identity", depth: 1, maps: 0, unmaps: 0, kicks: 0 },
    { disk: disks[0], type: "DMA", depth: 16, maps: 4, unmaps: 4, kicks: 8 },
    { disk: disks[1], type: "DMA", depth: 1, maps: 1, unmaps: 1, kicks: 2 },
    { disk: disks[1], type: "DMA-FQ", depth: 1, maps: 1, unmaps: 1, kicks: 1.02 },
    { disk: disks[1], type: "identity", depth: 1, maps: 0, unmaps: 0, kicks: 0 },
    { disk: disks[1], type: "DMA", depth: 16, maps: 1, unmaps: 1, kicks: 2 },
  ] as const;

  it.each(expected)(
    "asks the virtio-iommu for exactly so much: $disk.name $type, depth $depth",
    async ({ disk, type, depth, maps, unmaps, kicks }) => {
      const ios = 2000;
      const name = await rebind(live, disk, type);
      await pause(100);
      const before = live.scrape();
      await live.run(
        `cd /tmp && ${fio.guestCommand} --name=c --filename=/dev/${name} --ioengine=libaio ` +
          `--direct=1 --rw=randread --bs=4k --iodepth=${depth} --number_ios=${ios} --size=32M`,
      );
      await pause(100);
      const after = live.scrape();
      const per = (metric: string, labels = {}) =>
        (after.value(metric, labels) - before.value(metric, labels)) / ios;
      // fio opens and looks at the disk; the flush timer of lazy mode adds kicks of its own.
      expect(per("iommukit_requests_total", { kind: "map" })).toBeCloseTo(maps, 1);
      expect(per("iommukit_requests_total", { kind: "unmap" })).toBeCloseTo(unmaps, 1);
      const measured = per("iommukit_kicks_total");
      expect(measured).toBeGreaterThan(kicks * 0.97 - 0.02);
      expect(measured).toBeLessThan(kicks * 1.12 + 0.05);
    },
    120_000,
  );

  it("reads of a fault in its log when a device reaches for what is not mapped", async () => {
    const { pci } = disks[1];
    const name = await rebind(live, disks[1], "DMA");
    expect(name).toMatch(/^nvme/);
    // An admin queue at an address that nobody mapped, and its doorbell.
    await live.run(`
      device=/sys/bus/pci/devices/${pci}
      echo ${pci} > $device/driver/unbind
      echo 1 > $device/enable
      printf '\\006' | dd of=$device/config bs=1 seek=4 conv=notrunc 2>/dev/null
      set -- $(head -n 1 $device/resource); bar=$1
      at() { printf '0x%x' $((bar + $1)); }
      devmem $(at 0x14) 32 0
      devmem $(at 0x24) 32 0x001f001f
      devmem $(at 0x28) 32 0xdead0000; devmem $(at 0x2c) 32 0
      devmem $(at 0x30) 32 0xdeae0000; devmem $(at 0x34) 32 0
      devmem $(at 0x14) 32 0x00460001
      sleep 0.2
      devmem $(at 0x1000) 32 1
      sleep 0.5
      echo 0 > $device/enable; true`);
    const lines = await live.run("dmesg | grep 'page fault'");
    expect(lines).toMatch(/virtio_iommu virtio0: page fault from EP 40 at 0xdea[de]0000 \[[RW]\]/);
    await rebind(live, disks[1], "DMA");
    expect(live.scrape().value("iommukit_faults_total")).toBeGreaterThan(0);
  });

  it("is bound and unbound again and again, and nothing stays mapped", async () => {
    for (let round = 0; round < 5; round += 1) await rebind(live, disks[0], "DMA");
    const mappings = live.scrape().value("iommukit_mappings");
    for (let round = 0; round < 5; round += 1) await rebind(live, disks[0]);
    await pause(100);
    expect(live.scrape().value("iommukit_mappings")).toBe(mappings);
  }, 120_000);

  it.each(disks)(
    "keeps its data when the worker is killed under load: $name",
    async (disk) => {
      const name = await rebind(live, disk, "DMA");
      const running = load(live, name, 6);
      // Five ends within a minute would be a worker that cannot go on.
      for (let kill = 0; kill < (disk === disks[1] ? 2 : 1); kill += 1) {
        await pause(1500);
        live.served.killWorker();
      }
      await running;
      await live.run("sync");
      expect(await guestSum(live, name)).toBe(live.imageSum(disk.name));
      expect(live.scrape().value("iommukit_worker_restarts_total")).toBeGreaterThan(0);
    },
    300_000,
  );

  it.each(disks)(
    "notices no hand-over under load: $name",
    async (disk) => {
      const name = await rebind(live, disk, "DMA-FQ");
      const before = live.scrape().value("iommukit_worker_restarts_total");
      const running = load(live, name, 6);
      for (let turn = 0; turn < 3; turn += 1) {
        await pause(1200);
        await live.served.handOver();
      }
      await running;
      expect(await guestSum(live, name)).toBe(live.imageSum(disk.name));
      expect(live.scrape().value("iommukit_worker_restarts_total")).toBe(before);
    },
    300_000,
  );

  it("reboots, and finds its disks as they were", async () => {
    const sums = disks.map(({ name }) => live.imageSum(name));
    const again = live.guest.agent.ready(180_000);
    live.guest.agent.leave("sync; echo b > /proc/sysrq-trigger");
    await again;
    for (const [index, disk] of disks.entries()) {
      const name = await rebind(live, disk, "DMA");
      expect(await guestSum(live, name)).toBe(sums[index]);
    }
  }, 300_000);
});

describe.skipIf(parts === null)("a guest of two processors and 2 GiB on two nodes", () => {
  let live: Live;
  const half = { bytes: 2 ** 30, hostNode: null };

  beforeAll(async () => {
    live = await bootLive((folder) => {
      const machine = threeDisks(folder);
      return {
        ...machine,
        memoryBytes: 2 * 2 ** 30,
        cpus: 2,
        nodes: [
          { ...half, cpus: [0] },
          { ...half, cpus: [1] },
        ],
        ram: "fault",
        iommu: { ...machine.iommu!, doorbell: "page" },
      };
    });
  }, 300_000);
  afterAll(() => live?.stop());

  it("has them", async () => {
    expect((await live.run("nproc; ls -d /sys/devices/system/node/node?")).split("\n")).toEqual([
      "2",
      "/sys/devices/system/node/node0",
      "/sys/devices/system/node/node1",
      "",
    ]);
    expect(live.scrape().value("iommukit_guest_memory_bytes", { device: "nvme0" })).toBeGreaterThan(
      1.9 * 2 ** 30,
    );
  });

  it("writes all disks at once from both, and both sides agree", async () => {
    const names: string[] = [];
    for (const disk of disks) names.push(await rebind(live, disk, "DMA"));
    const jobs = names.map((name) => `dd if=/dev/urandom of=/dev/${name} bs=256k count=128 &`);
    await live.run(`${jobs.join(" ")} wait; sync`, 300_000);
    for (const [index, disk] of disks.entries()) {
      expect(await guestSum(live, names[index]!)).toBe(live.imageSum(disk.name));
    }
  }, 300_000);

  it("gets no kick by message when doorbells are a page", async () => {
    const name = await rebind(live, disks[1], "DMA");
    await pause(100);
    const before = live.scrape();
    await live.run(`dd if=/dev/${name} of=/dev/null bs=4k count=500 iflag=direct`);
    await pause(100);
    const after = live.scrape();
    const grown = (metric: string, labels: Record<string, string>) =>
      after.value(metric, labels) - before.value(metric, labels);
    const writes = { device: "iommu0", command: "region_write" };
    expect(grown("iommukit_requests_total", { kind: "map" })).toBeGreaterThan(0);
    expect(grown("iommukit_messages_total", writes)).toBe(0);
  });

  it("outlives a worker that is killed while all disks are busy", async () => {
    const names: string[] = [];
    for (const disk of disks) names.push(await rebind(live, disk, "DMA-FQ"));
    const jobs = names.map((name) => `dd if=/dev/urandom of=/dev/${name} bs=64k count=512 &`);
    const running = live.run(`${jobs.join(" ")} wait; sync`, 300_000);
    await pause(700);
    live.served.killWorker();
    await running;
    for (const [index, disk] of disks.entries()) {
      expect(await guestSum(live, names[index]!)).toBe(live.imageSum(disk.name));
    }
  }, 300_000);
});

describe.skipIf(parts === null)("iommukit vm", () => {
  it("boots a kernel on the served disks, prints its command line, and leaves nothing", async () => {
    const files = new Files();
    const machine = files.write(
      "vm.yaml",
      "schema: iommukit/vm@1\nname: v\nmemory: 512MiB\niommu: { at: 3 }\n" +
        "disks: [{ kind: virtio-blk, name: d, at: 4, size: 1MiB }]\n",
    );
    const modules = ["virtio-iommu", "virtio_blk"];
    const packed = scripts.buildInitrd(parts!, { script: "ls /dev/vda", modules });
    const folder = join(files.folder, "run");
    const run = await runCli([
      ...["vm", "--runtime-dir", folder, "--kernel", scripts.vmlinuz(parts!)],
      ...[
        "--initrd",
        files.write("initrd", Buffer.from(packed)),
        "--append",
        "console=ttyS0 panic=-1",
      ],
      ...[machine, "--", "-no-reboot"],
    ]);
    expect(run.stderr).toMatch(/QEMU 1\d\.\d+\.\d+:\n.*qemu-system-x86_64/s);
    expect(run.stdout).toContain("ACPI: VIOT");
    expect(run.stdout).toContain("Adding to iommu group 0");
    expect(run.stdout).toContain("/dev/vda");
    expect(run.status).toBe(0);
    expect(existsSync(folder)).toBe(false);
    files.dispose();
  }, 180_000);
});
