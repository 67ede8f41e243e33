/** The VIOT of a served machine, and what a guest makes of it. */
import { describe, expect, it } from "vitest";
import { decodeTable } from "../../firmware/acpi/decode.ts";
import { readTables } from "../../firmware/acpi/machine-parts.ts";
import { guestView } from "../../firmware/guest-view/guest-view.ts";
import { platforms } from "../../firmware/guest-view/platform.ts";
import { machineProblems } from "../../topology/validate.ts";
import { exampleMachine } from "./live-machine.suite.ts";
import { busBehind, ridOf } from "./live-machine.ts";
import { topologyOf, viotOf } from "./topology.ts";

describe("the topology of a served machine", () => {
  it("is a possible machine", () => {
    expect(machineProblems(topologyOf(exampleMachine()))).toEqual([]);
  });

  it("as VIOT of one disk is the 88 bytes that a Linux guest has accepted (live path, 2)", () => {
    const { disks, ...rest } = exampleMachine();
    const bytes = viotOf({ ...rest, ports: [], disks: disks.slice(0, 1) })!;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    expect(bytes.length).toBe(88);
    expect([view.getUint16(36, true), view.getUint16(38, true)]).toEqual([2, 48]);
    expect([...bytes.subarray(48, 64)]).toEqual([3, 0, 16, 0, 0, 0, 0x18, 0, ...Array(8).fill(0)]);
    expect(view.getUint32(68, true)).toBe(0x20);
    expect([...bytes.subarray(72, 82)]).toEqual([0, 0, 0, 0, 0x20, 0, 0x20, 0, 48, 0]);
  });

  it("puts each disk behind the IOMMU in the guest's eyes, that behind a port included", () => {
    const machine = exampleMachine();
    const there = topologyOf(machine);
    const { machine: said } = readTables([decodeTable(viotOf(machine)!)], there.functions);
    const view = guestView(there, [{ kind: "viot", machine: said }], platforms["x86-acpi"]);
    const found = view.endpoints.map(({ device, outcome }) => `${device} ${outcome}`);
    expect(found.filter((one) => one.endsWith(" translated"))).toEqual([
      "0000:00:04.0 translated",
      "0000:01:00.0 translated",
    ]);
  });

  it("leaves out a disk that is not translated", () => {
    const { disks, ...rest } = exampleMachine();
    const direct = disks.map((disk) => ({ ...disk, isTranslated: disk.kind === "nvme" }));
    const [iommu] = topologyOf({ ...rest, disks: direct }).iommus;
    expect(iommu!.translates.map(({ firstRid }) => firstRid)).toEqual([0x100]);
  });

  it("has no VIOT without an IOMMU", () => {
    expect(viotOf({ ...exampleMachine(), iommu: null })).toBeNull();
  });

  it("numbers buses by the ports' device numbers, not by their order in the file", () => {
    const ports = [
      { name: "late", device: 9 },
      { name: "early", device: 5 },
    ];
    expect(busBehind(ports, "late")).toBe(2);
    expect(ridOf({ ports }, { device: 0, port: "early" })).toBe(0x100);
  });
});
