import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { EMPTY_MACHINE } from "../../topology/machine.ts";
import { richMachine } from "../acpi/rich-machine.suite.ts";
import { buildCommandLine, commandLineMachine } from "./kinds.ts";
import { readCommandLine } from "./parameter.ts";

const read = (text: string) => readCommandLine(text);

describe("virtio_mmio.device", () => {
  it("as QEMU's microvm writes it gives devices 0 and 1 in order", () => {
    const text =
      "console=ttyS0 virtio_mmio.device=512@0xfeb00e00:12 virtio_mmio.device=512@0xfeb00c00:11";
    expect(read(text).devices).toEqual([
      { id: 0, base: 0xfeb0_0e00n, bytes: 512n, interrupt: 12 },
      { id: 1, base: 0xfeb0_0c00n, bytes: 512n, interrupt: 11 },
    ]);
  });

  it("as Firecracker writes it has 4 KiB; ids go on from the last one named (F94)", () => {
    const text = "virtio_mmio.device=4K@0xc0001000:5:7 virtio-mmio.device=0x1000@3221233664:6";
    expect(read(text).devices.map(({ id, bytes, base }) => [id, bytes, base])).toEqual([
      [7, 4096n, 0xc000_1000n],
      [8, 4096n, 0xc000_2000n],
    ]);
  });

  it.each([
    "512@0xfeb00e00:0",
    "512@0xfeb00e00",
    "512@0xfeb00e00:12x",
    "512@0xfeb00e00:12:3,",
    "x",
  ])("%s makes no device (F88)", (value) => {
    const reading = read(`quiet virtio_mmio.device=${value}`);
    expect(reading.devices).toEqual([]);
    expect(reading.findings).toMatchObject([{ code: "command-line/device", at: 6 }]);
  });

  it("of any text is read or refused, never more", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 40 }), (text) => {
        const { devices, findings } = read(`virtio_mmio.device=${text.replace(/[\s"]/g, "")}`);
        expect(devices.length + findings.length).toBe(1);
      }),
    );
  });
});

describe("a machine on the command line", () => {
  const mmio = richMachine.iommus[1]!;

  it("with the proposed argument comes back; the argument is an error to Linux", () => {
    const device = { base: 0xfeb0_2c00n, id: 0x42, path: null };
    const platform = {
      name: "a",
      path: null,
      identity: "LNRO0005",
      registers: [{ start: 0xfeb0_2c00n, last: 0xfeb0_2dffn }],
      interrupts: [11],
      node: null,
      driver: null,
      iommu: null,
      group: null,
    };
    const machine = {
      ...EMPTY_MACHINE,
      iommus: [{ ...mmio, endpoints: [device] }],
      platformDevices: [platform],
    };
    const text = buildCommandLine(machine);
    expect(text).toBe(
      "virtio_mmio.device=512@0xfeb02e00:12:0 virtio_mmio.device=512@0xfeb02c00:11:1 " +
        "virtio_mmio.iommu=0:0x42@0xfeb02c00\n",
    );
    const reading = read(text);
    expect(reading.findings.map(({ code }) => code)).toEqual(["command-line/iommu-argument"]);
    const back = commandLineMachine(reading);
    expect(back.iommus[0]).toMatchObject({ kind: "virtio-mmio", endpoints: [device] });
    expect(buildCommandLine(back)).toBe(text);
  });

  it("with an IOMMU of PCI functions is refused", () => {
    expect(() => buildCommandLine(richMachine)).toThrow(/PCI functions/);
  });
});
