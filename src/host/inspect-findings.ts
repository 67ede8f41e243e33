/** What is remarkable about a machine that was just read. */
import type { Machine } from "../topology/machine.ts";
import { numberListText } from "../topology/number-list.ts";
import { type Finding, finding } from "./findings.ts";
import type { InspectedDevice, InspectedGroup, InspectResult } from "./inspect-result.ts";

/** What the machine itself does not say. */
export interface ReadingFacts {
  readonly deniedCount: number;
  /** Whether some group could not be derived for want of configuration space. */
  readonly isUncertain: boolean;
}

type Inspected = Omit<InspectResult, "findings">;
/** Devices that one finding names. */
const DEVICES_MAX = 64;
/** Groups that are told of one by one. */
const GROUPS_MAX = 16;

/** Finds all of it. */
export function findingsOf(machine: Machine, result: Inspected, facts: ReadingFacts): Finding[] {
  return [
    ...withoutIommu(machine, result),
    ...idleIommus(result),
    ...outsideGroups(result),
    ...result.groups.flatMap(aboutGroup),
    ...remoteTables(result),
    ...sharedGroups(result),
    ...withoutNode(result),
    ...aboutReading(result, facts),
  ];
}

function withoutIommu(machine: Machine, { groups, devices }: Inspected): Finding[] {
  if (groups.length > 0 || devices.length === 0) return [];
  const words = machine.kernel?.commandLine ?? null;
  return [
    finding("no-iommu", {
      message: `none of ${devices.length} devices is in a group`,
      evidence: [
        "/sys/kernel/iommu_groups is empty or not there",
        ...(words === null || words === "" ? [] : [`command line: ${words}`]),
      ],
      next: "dmesg | grep -e DMAR -e IOMMU -e AMD-Vi -e smmu",
    }),
  ];
}

function idleIommus({ iommus }: Inspected): Finding[] {
  return iommus
    .filter(({ deviceCount }) => deviceCount === 0)
    .map(({ name }) =>
      finding("iommu-without-devices", {
        message: `no device is behind ${name}`,
        evidence: [`/sys/class/iommu/${name}/devices is empty`],
        next: `ls -l /sys/class/iommu/${name}/devices`,
      }),
    );
}

/** Devices without a group while others have one; bridges and the IOMMU itself do not count. */
function outsideGroups({ devices, groups, iommus }: Inspected): Finding[] {
  if (groups.length === 0) return [];
  const units = new Set(iommus.map(({ bdf }) => bdf));
  const outside = devices.filter(
    (device) => device.group === null && isEndpoint(device) && !units.has(device.bdf),
  );
  if (outside.length === 0) return [];
  return [
    finding("device-without-group", {
      message: `${many(outside.length, "device is", "devices are")} not behind any IOMMU`,
      evidence: outside.slice(0, 3).map(({ name }) => `no iommu_group link of ${name}`),
      devices: namesOf(outside),
      next: `ls -l /sys/bus/pci/devices/${outside[0]!.name}/iommu_group`,
    }),
  ];
}

function aboutGroup(group: InspectedGroup): Finding[] {
  const found: Finding[] = [];
  if (group.agrees === false) {
    found.push(
      finding("groups-differ", {
        message: `group ${group.id} as recorded and as derived differ`,
        evidence: [
          `recorded: ${listText(group.recorded ?? [])}`,
          `derived: ${listText(group.derived ?? [])}`,
        ],
        devices: group.devices.slice(0, DEVICES_MAX),
      }),
    );
  }
  if (group.regionsAgree === false) {
    found.push(
      finding("regions-differ", {
        message: `group ${group.id} reserves other regions than the tables give`,
        evidence: group.regions.map(({ start, last, type }) => `${start} ${last} ${type}`),
        devices: group.devices.slice(0, DEVICES_MAX),
        next: `cat /sys/kernel/iommu_groups/${group.id}/reserved_regions`,
      }),
    );
  }
  const direct = group.regions.filter(({ type }) => type === "direct");
  if (direct.length > 0) {
    found.push(
      finding("direct-region", {
        message: `group ${group.id} cannot be assigned: firmware has ${many(direct.length, "range", "ranges")} of memory mapped for it`,
        evidence: direct.map(({ start, last }) => `${start}-${last} direct`),
        devices: group.devices.slice(0, DEVICES_MAX),
      }),
    );
  }
  return found;
}

/** One finding for all groups whose tables are on one node and walked from one other. */
function remoteTables({ groups }: Inspected): Finding[] {
  const alike = new Map<string, InspectedGroup[]>();
  for (const group of groups) {
    const { isRemote, node, walker } = group.pageTables;
    if (isRemote !== true) continue;
    const key = `${node} ${walker}`;
    const list = alike.get(key);
    if (list === undefined) alike.set(key, [group]);
    else list.push(group);
  }
  return [...alike.values()].map((list) => {
    const { node, walker, walkerNode, distance, why } = list[0]!.pageTables;
    const ids = numberListText(list.map(({ id }) => id).sort((a, b) => a - b));
    const whose = `group${list.length === 1 ? "" : "s"} ${ids}`;
    return finding("page-tables-remote", {
      message: `page tables of ${whose} live on node ${node}; ${walker} walks them from node ${walkerNode}`,
      evidence: [`distance ${distance}`, why],
      devices: list.flatMap(({ devices }) => devices).slice(0, DEVICES_MAX),
    });
  });
}

/** Groups with several devices that somebody might want to assign. */
function sharedGroups({ groups, devices }: Inspected): Finding[] {
  const byName = new Map(devices.map((device) => [device.name, device]));
  const found: Finding[] = [];
  let more = 0;
  for (const group of groups) {
    if (group.devices.length < 2) continue;
    const functions = group.devices.filter((name) => isEndpoint(byName.get(name)));
    if (functions.length < 2) continue;
    if (found.length >= GROUPS_MAX) {
      more += 1;
      continue;
    }
    found.push(
      finding("group-shared", {
        message: `${functions.length} devices share group ${group.id}`,
        evidence: functions
          .slice(0, 4)
          .map((name) => `${name}: ACS ${byName.get(name)?.acs ?? "not read"}`),
        devices: functions.slice(0, DEVICES_MAX),
      }),
    );
  }
  if (more > 0) {
    const message = `${many(more, "more group is", "more groups are")} shared by several devices`;
    const evidence = ["`iommukit inspect` lists all groups"];
    found.push(finding("group-shared", { message, evidence, next: "iommukit inspect" }));
  }
  return found;
}

function withoutNode({ nodes, devices }: Inspected): Finding[] {
  if (nodes.length < 2) return [];
  const lost = devices.filter((device) => device.node === null && isEndpoint(device));
  if (lost.length === 0) return [];
  return [
    finding("device-without-node", {
      message: `${many(lost.length, "device has", "devices have")} no NUMA node, on a machine with ${nodes.length}`,
      evidence: lost.slice(0, 3).map(({ name }) => `numa_node of ${name} is -1`),
      devices: namesOf(lost),
      next: "dmesg | grep 'Unknown NUMA node'",
    }),
  ];
}

function aboutReading({ devices }: Inspected, facts: ReadingFacts): Finding[] {
  const found: Finding[] = [];
  if (facts.isUncertain) {
    const short = devices.filter(({ kind, acs }) => kind !== "platform" && acs === null);
    found.push(
      finding("groups-uncertain", {
        message: `configuration space of ${many(short.length, "device", "devices")} could not be read beyond its header`,
        evidence: ["64 bytes of configuration space are all that an ordinary user may read"],
        next: "sudo iommukit inspect",
      }),
    );
  }
  if (facts.deniedCount > 0) {
    found.push(
      finding("permission-denied", {
        message: `${many(facts.deniedCount, "file", "files")} could not be read`,
        next: "sudo iommukit inspect",
      }),
    );
  }
  return found;
}

/** What somebody might assign: no bridge of any sort, no part of the chipset. */
function isEndpoint(device: InspectedDevice | undefined): boolean {
  return device?.kind === "function" && !/^0x0[68]/.test(device.classCode ?? "");
}

function namesOf(devices: readonly InspectedDevice[]): string[] {
  return devices.slice(0, DEVICES_MAX).map(({ name }) => name);
}

function listText(names: readonly string[]): string {
  const shown = names.slice(0, 8).join(" ");
  return names.length > 8 ? `${shown} and ${names.length - 8} more` : shown;
}

function many(count: number, one: string, several: string): string {
  return `${count} ${count === 1 ? one : several}`;
}
