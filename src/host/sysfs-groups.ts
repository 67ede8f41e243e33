/**
 * IOMMU groups as the kernel formed them.
 *
 * Source: Linux drivers/iommu/iommu.c: iommu_group_show_type, iommu_group_show_resv_regions,
 * iommu_group_add_device (a name that is taken already gets a number behind it).
 */
import type { GroupType, RecordedGroup, RecordedRegion } from "../topology/machine.ts";
import { baseName, follow, type HostTree } from "./tree.ts";

const GROUPS = "/sys/kernel/iommu_groups";
const types = new Set<string>(["identity", "DMA", "DMA-FQ", "blocked", "unmanaged", "unknown"]);
const regionTypes = new Set<string>(["direct", "direct-relaxable", "reserved", "msi"]);
/** Regions of one group that are looked at. */
const REGIONS_MAX = 4096;

/** Reads all groups, by id. */
export function readGroups(tree: HostTree): RecordedGroup[] {
  const regionsByText = new Map<string, readonly RecordedRegion[]>();
  const groups: RecordedGroup[] = [];
  let linked: ReadonlyMap<string, readonly string[]> | null = null;
  for (const name of tree.list(GROUPS) ?? []) {
    if (!/^\d{1,9}$/.test(name)) continue;
    const directory = `${GROUPS}/${name}`;
    const type = tree.text(`${directory}/type`);
    const text = tree.text(`${directory}/reserved_regions`) ?? "";
    let regions = regionsByText.get(text);
    if (regions === undefined) {
      regions = parseRegions(text);
      regionsByText.set(text, regions);
    }
    let devices = tree.list(`${directory}/devices`);
    if (devices === null) {
      linked ??= membersByLink(tree);
      devices = linked.get(name) ?? [];
    }
    groups.push({
      id: Number(name),
      type: type === null ? null : typeOf(type),
      // Only groups that no IOMMU made have a name, and no default domain.
      name: type === null || type === "unknown" ? tree.text(`${directory}/name`) : null,
      devices,
      regions,
    });
  }
  return groups.sort((a, b) => a.id - b.id);
}

/** Members as the functions' own links tell them, where a group does not show its list. */
function membersByLink(tree: HostTree): ReadonlyMap<string, readonly string[]> {
  const members = new Map<string, string[]>();
  for (const name of tree.list("/sys/bus/pci/devices") ?? []) {
    const target = tree.link(`${follow(tree, `/sys/bus/pci/devices/${name}`)}/iommu_group`);
    if (target === null) continue;
    const group = baseName(target);
    const names = members.get(group);
    if (names === undefined) members.set(group, [name]);
    else names.push(name);
  }
  return members;
}

function typeOf(text: string): GroupType {
  return types.has(text) ? (text as GroupType) : "unknown";
}

/** Reads a `reserved_regions` file; lines of another form are left out. */
export function parseRegions(text: string): RecordedRegion[] {
  const regions: RecordedRegion[] = [];
  for (const line of text.split("\n", REGIONS_MAX)) {
    const match = /^(0x[0-9a-f]{1,16}) (0x[0-9a-f]{1,16}) ([a-z-]+)$/.exec(line);
    if (match === null || !regionTypes.has(match[3]!)) continue;
    const type = match[3] as RecordedRegion["type"];
    regions.push({ start: BigInt(match[1]!), last: BigInt(match[2]!), type });
  }
  return regions;
}
