/** The guest view beside what real guests recorded: the same devices behind the same IOMMU, in the same groups. */
import { describe, expect, it } from "vitest";
import { realHost, realHosts } from "../../host/real-hosts.suite.ts";
import { readHost } from "../../host/sysfs.ts";
import { decodeTable } from "../acpi/decode.ts";
import { readTables } from "../acpi/machine-parts.ts";
import type { DescriptionFile } from "../table-description.ts";
import { guestView } from "./guest-view.ts";
import { type DescriptionName, type GuestDescription, platforms } from "./platform.ts";

const kinds: Readonly<Record<string, DescriptionName>> = { VIOT: "viot", DMAR: "dmar" };

describe.each(realHosts)("%s, a guest of QEMU with Linux 7.2", (name) => {
  const tree = realHost(name);
  const { machine } = readHost(tree);
  const files: DescriptionFile[] = ["VIOT", "DMAR", "SRAT"].flatMap((file) => {
    const bytes = tree.bytes(`/sys/firmware/acpi/tables/${file}`, 2 ** 20);
    return bytes === null ? [] : [{ file, bytes }];
  });
  const descriptions = files
    .filter(({ file }) => file in kinds)
    .map(({ file, bytes }): GuestDescription => {
      const tables = files.filter((one) => one.file === file || one.file === "SRAT");
      expect(bytes.length).toBeGreaterThan(36);
      const reading = readTables(
        tables.map((one) => decodeTable(one.bytes)),
        machine.functions,
      );
      return { kind: kinds[file]!, machine: reading.machine };
    });
  const view = guestView(machine, descriptions, platforms["x86-acpi"]);

  it("has each device in the group that the guest formed, or in none as there", () => {
    expect(descriptions).toHaveLength(1);
    const formed = machine.groups.map(({ devices }) => [...devices].sort());
    const seen = new Map<number, string[]>();
    for (const { device, group } of view.endpoints) {
      if (group !== null) seen.set(group, [...(seen.get(group) ?? []), device]);
    }
    // Numbers follow the order of host bridges in the namespace, which nobody else knows.
    const viewed = [...seen.values()].map((one) => one.sort());
    expect(viewed.map(String).sort()).toEqual(formed.map(String).sort());
    expect(machine.groups.length).toBeGreaterThan(5);
  });

  it("has each device behind the IOMMU of sysfs, on the node of sysfs", () => {
    for (const [index, pci] of machine.functions.entries()) {
      expect(view.endpoints[index]!.iommu).toBe(pci.iommu);
      expect(view.endpoints[index]!.placement.dmaNode).toBe(pci.node);
    }
  });
});
