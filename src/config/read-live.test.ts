/** Machine files of the live path: what is read, and what is refused with its position. */
import { describe, expect, it } from "vitest";
import { StackError } from "../errors.ts";
import { liveMachineFromYaml, liveMachineText } from "./read-live.ts";

const head = "schema: iommukit/vm@1\nmemory: 1GiB\n";
const full = `${head}name: two-disks
cpus: 2
nodes:
  - { memory: 512MiB, cpus: "0", hostNode: 0 }
  - { memory: 512MiB, cpus: "1" }
ram: fault
ports:
  - { name: port0, at: 6 }
iommu: { at: 00:03.0, doorbell: page }
disks:
  - { kind: virtio-blk, name: blk0, at: 4, image: disk.img, readOnly: true, queues: 2 }
  - { kind: nvme, name: nvme0, behind: port0, size: 64MiB }
metrics: 127.0.0.1:9464
qemu: { kernel: vmlinuz, append: console=ttyS0, arguments: [-no-reboot] }
`;

const read = (text: string) => liveMachineFromYaml(text, "vm.yaml", (path) => `/base/${path}`);

function problem(text: string): string {
  try {
    read(text);
  } catch (error) {
    if (!(error instanceof StackError)) throw error;
    return `${error.at?.line}:${error.at?.column} ${error.message}`;
  }
  throw new Error("the file was read");
}

describe("a machine file", () => {
  it("becomes plain data with all defaults filled in", () => {
    const machine = read(
      `${head}iommu: { at: 3 }\ndisks: [{ kind: nvme, name: d, at: 4, size: 1MiB }]\n`,
    );
    expect(machine).toEqual({
      name: "vm",
      memoryBytes: 2 ** 30,
      cpus: 1,
      nodes: [],
      ram: "pin",
      ports: [],
      iommu: { name: "iommu0", slot: { device: 3, port: null }, bypass: true, doorbell: "message" },
      disks: [
        {
          kind: "nvme",
          name: "d",
          slot: { device: 4, port: null },
          backing: { kind: "memory", bytes: 2 ** 20 },
          isReadOnly: false,
          queues: 1,
          isTranslated: true,
        },
      ],
      metrics: null,
      qemu: {
        program: null,
        accelerator: "tcg",
        cpu: "max",
        kernel: null,
        initrd: null,
        append: "",
        boot: null,
        extra: [],
      },
    });
  });

  it("keeps what it says, with paths made usable, and survives a structured clone", () => {
    const machine = read(full);
    expect(machine.nodes.map(({ hostNode }) => hostNode)).toEqual([0, null]);
    expect(machine.disks[0]!.backing).toEqual({ kind: "file", path: "/base/disk.img" });
    expect(machine.disks[1]!.slot).toEqual({ device: 0, port: "port0" });
    expect(machine.metrics).toEqual({ kind: "loopback", port: 9464 });
    expect(machine.qemu.kernel).toBe("/base/vmlinuz");
    expect(structuredClone(machine)).toEqual(machine);
    expect(liveMachineText(machine)).toBe(
      "two-disks: 2 CPUs, 1GiB of memory, a virtio-iommu, virtio-blk blk0, nvme nvme0",
    );
  });

  it.each([
    [
      "memory: 64MiB\nschema: iommukit/vm@1\n",
      "1:9 64MiB of memory boot no Linux; 128 MiB is the least",
    ],
    [
      "schema: iommukit/vm@1\n",
      "1:1 memory: this is no address or size, such as 0xfee00000 or 16GiB",
    ],
    [`${head}cpu: 2\n`, '3:1 there is no key "cpu"'],
    [
      `${head}disks: [{ kind: nvme, name: metrics, at: 4, size: 1MiB }]\n`,
      "3:29 metrics.sock is a socket of the machine's own, not of a device",
    ],
    [
      `${head}iommu: { at: 3, name: control }\n`,
      "3:23 control.sock is a socket of the machine's own, not of a device",
    ],
    [`${head}iommu: { at: 31 }\n`, "3:14 slot 31 of bus 0 has the ISA bridge of q35 already"],
    [
      `${head}iommu: { at: 01:03.0 }\n`,
      '3:14 iommu.at: "01:03.0" is no slot of bus 0, such as 4 or 00:04.0',
    ],
    [
      `${head}iommu: { at: 3 }\ndisks: [{ kind: nvme, name: d, at: 3, size: 1MiB }]\n`,
      "4:36 slot 3 of bus 0 has the virtio-iommu already",
    ],
    [
      `${head}disks: [{ kind: nvme, name: d, behind: p, size: 1MiB }]\n`,
      "3:40 d is behind p, and there is no such port",
    ],
    [
      `${head}disks: [{ kind: nvme, name: d, at: 4 }]\n`,
      "3:9 d is in nothing: it needs an image (a file) or a size (in memory)",
    ],
    [
      `${head}disks: [{ kind: nvme, name: d, at: 4, size: 1000 }]\n`,
      "3:45 a disk has whole blocks of 512 bytes",
    ],
    [
      `${head}disks: [{ kind: nvme, name: d, at: 4, size: 1MiB, translated: true }]\n`,
      "3:63 d is translated, and the machine has no iommu",
    ],
    [
      `${head}nodes: [{ memory: 512MiB, cpus: "0" }]\n`,
      "3:8 the nodes have 512MiB together, the machine 1GiB",
    ],
    [`${head}nodes: [{ memory: 1GiB, cpus: "0-1" }]\n`, "3:31 there is no CPU 1 of 1"],
    [`${head}cpus: 2\nnodes: [{ memory: 1GiB, cpus: "0" }]\n`, "4:8 CPU 1 is on no node"],
    [
      `${head}metrics: 0.0.0.0:80\n`,
      '3:10 metrics: "0.0.0.0:80" is neither a socket\'s path nor 127.0.0.1:PORT',
    ],
    [`${head}qemu: { boot: d }\n`, "3:15 there is no disk d to boot from"],
    [`${head}qemu: { append: quiet }\n`, "3:17 append is nothing without a kernel"],
    [
      `${head}iommu: { at: 3, bypass: false }\ndisks: [{ kind: nvme, name: d, at: 4, size: 1MiB }]\nqemu: { boot: d }\n`,
      "3:25 firmware cannot read a disk behind an IOMMU without bypass",
    ],
  ])("that is %j is refused where it is wrong", (text, message) => {
    expect(problem(text)).toBe(message);
  });

  it("with two disks of one name, or two behind one port, is refused", () => {
    const disk = "{ kind: nvme, name: d, behind: p, size: 1MiB }";
    const text = `${head}ports: [{ name: p, at: 5 }]\ndisks: [${disk}, ${disk}]\n`;
    expect(problem(text)).toBe("4:77 there are two called d (and 1 more problem)");
  });
});
