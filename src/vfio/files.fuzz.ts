/** Fuzzes the files of VFIO: random calls with random bytes, and what must hold after each. */
import { expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { Random } from "../random.ts";
import { Container } from "./container.ts";
import { ForeignFile, type IoctlArgument, VfioTask } from "./file.ts";
import { buildHost, type Host } from "./host/host.ts";
import { int, RuledMemory, status, text, twoNodePlan } from "./host/world.suite.ts";
import { UserProcess } from "./process/user-process.ts";
import { VfioRequest } from "./requests.ts";
import { DmaMap, DmaUnmap, Type1Request } from "./uapi/type1.ts";

const NAMES = ["0000:10:00.0", "0000:10:00.1", "0000:11:00.0", "0000:90:00.0", "0000:05:00.0"];

function build(random: Random): Host {
  return buildHost(
    twoNodePlan({
      far: { snoopControl: random.chance(1, 2), kind: random.chance(1, 4) ? "smmu" : "vtd" },
      devices: [
        { address: NAMES[0]!, unit: "dmar0", isMultifunction: true },
        { address: NAMES[1]!, unit: "dmar0", isMultifunction: true },
        { address: NAMES[2]!, unit: "dmar0" },
        { address: NAMES[3]!, unit: "dmar1" },
        { address: NAMES[4]!, unit: null },
      ],
    }),
    { noIommu: { enabled: true }, type1: { attachGroupByNode: random.below(3) } },
  );
}

/** A descriptor, mostly one that leads to a container, or else mostly one that does not. */
function pick(random: Random, { descriptors }: VfioTask, isContainer: boolean): number {
  const all = Array.from({ length: descriptors.count + 1 }, (_, fd) => fd);
  const fitting = all.filter((fd) => {
    const operations = descriptors.find(fd)?.operations;
    return operations !== undefined && operations instanceof Container === isContainer;
  });
  const from = fitting.length > 0 && random.chance(5, 6) ? fitting : all;
  return from[random.below(from.length)]!;
}

/** A call that may well succeed, or noise. */
function call(random: Random, task: VfioTask): { request: number; argument: IoctlArgument } {
  const iova = BigInt(random.below(9)) << 18n;
  switch (random.below(9)) {
    case 0:
    case 1:
      return { request: VfioRequest.GROUP_SET_CONTAINER, argument: int(pick(random, task, true)) };
    case 2:
      return { request: VfioRequest.SET_IOMMU, argument: [1, 3, 3, 6, 8][random.below(5)]! };
    case 3:
      return { request: VfioRequest.GROUP_GET_DEVICE_FD, argument: text(nameOf(random)) };
    case 4:
      return { request: VfioRequest.GROUP_UNSET_CONTAINER, argument: 0 };
    case 5:
      return { request: VfioRequest.GROUP_GET_STATUS, argument: status(random.below(12)) };
    case 6: {
      const pages = random.chance(1, 9) ? 2n ** 52n : BigInt(random.below(70));
      const flags = random.chance(1, 6) ? random.below(32) : 3;
      const size = BigInt.asUintN(64, pages << 12n);
      const argsz = random.chance(1, 9) ? 31 : 32;
      const vaddr = BigInt(random.below(4)) << 18n;
      const argument = DmaMap.bytesOf({ argsz, flags, vaddr, iova, size });
      return { request: Type1Request.MAP_DMA, argument };
    }
    case 7: {
      const flags = random.chance(1, 4) ? random.below(8) : 0;
      const size = BigInt(random.below(100)) << 12n;
      const argument = DmaUnmap.bytesOf({ argsz: 24, flags, iova, size });
      return { request: Type1Request.UNMAP_DMA, argument };
    }
    default:
      return {
        request: 0x3b64 + random.below(random.chance(1, 9) ? 40 : 19),
        argument: noise(random),
      };
  }
}

const nameOf = (random: Random) =>
  NAMES[random.below(NAMES.length)]! + (random.chance(1, 9) ? " x" : "");

function noise(random: Random): IoctlArgument {
  if (random.chance(1, 3)) return random.bits32() * (random.chance(1, 2) ? 1 : -4096.5);
  return Uint8Array.from({ length: random.below(60) }, () => random.below(256));
}

/** What does not hold, or null. */
function wrongIn(host: Host, tasks: readonly VfioTask[], memory: RuledMemory): string | null {
  let charged = 0;
  for (const task of tasks) charged += task.process.lockedPages;
  if (charged !== memory.pinned) return `charged ${charged}, pinned ${memory.pinned}`;
  for (const group of host.vfio.groups) {
    const { iommuGroup, holder } = group;
    if (iommuGroup === null) return "a group listed exists";
    const isOwned = iommuGroup.owner === group;
    if (iommuGroup.owner !== null && !isOwned) return "a group is owned by its VFIO group";
    if (group.type === "iommu" && isOwned !== (holder !== null)) return "held and owned are one";
    if (holder !== null && !group.isOpen) return "a group held is open";
    if (!(holder instanceof Container)) continue;
    if (!holder.groups.includes(group)) return "a container knows its groups";
    const type1 = holder.state?.type1 ?? null;
    if (type1 === null || group.type !== "iommu") continue;
    const domain = type1.domains.find((each) => each.domain === iommuGroup.domain);
    if (domain === undefined) return "a group held is on one of the container's domains";
    const members = type1.domains.flatMap((each) => each.groups);
    if (members.length !== holder.groups.length) return "each group is in one domain";
    if (type1.nonPinnedGroups !== members.length) return "each group writes anywhere";
    if (type1.dmaAvail + type1.mappings.count !== 65535) return "mappings are counted";
  }
  return null;
}

/** One life. @returns what is wrong, or null, and how often groups were held and memory mapped */
function live(
  seed: number,
  spoil?: (host: Host) => void,
): { wrong: string | null; held: number; mapped: number } {
  const random = new Random(seed);
  const host = build(random);
  const boot = host.tablePages();
  const memory = new RuledMemory();
  const tasks = [0, 1].map(
    (index) =>
      new VfioTask({
        process: new UserProcess({ memory, memlockPages: index === 0 ? 100 : 10_000 }),
        canRawIo: index === 1,
        filesMax: 12,
      }),
  );
  const paths = ["vfio", "0", "1", "2", "3", "noiommu-3", "x"].map((name) => `/dev/vfio/${name}`);
  let held = 0;
  let mapped = 0;
  for (let step = 0; step < 300; step += 1) {
    const task = tasks[random.below(2)]!;
    const kind = random.below(24);
    if (kind < 5) host.vfio.open(task, paths[random.below(paths.length)]!);
    else if (kind === 5) task.close(random.below(task.descriptors.count + 1));
    else if (kind === 6 && random.chance(1, 3)) task.descriptors.duplicate(random.below(12));
    else if (kind === 7 && random.chance(1, 9)) task.open(new ForeignFile());
    else if (kind === 8 && random.chance(1, 4)) rebind(host, random);
    else if (kind === 9) memory.successes = random.below(3);
    else {
      const { request, argument } = call(random, task);
      const isOfContainer = request < 0x3b67 || request >= Type1Request.GET_INFO;
      const { errno } = task.ioctl(pick(random, task, isOfContainer), request, argument);
      if (errno === Errno.OK && request === VfioRequest.GROUP_SET_CONTAINER) held += 1;
      if (errno === Errno.OK && request === Type1Request.MAP_DMA) mapped += 1;
    }
    if (random.chance(1, 2)) memory.successes = Number.POSITIVE_INFINITY;
    if (step === 150) spoil?.(host);
    const wrong = wrongIn(host, tasks, memory);
    if (wrong !== null) return { wrong: `step ${step}: ${wrong}`, held, mapped };
  }
  for (const task of tasks) task.descriptors.closeAll();
  const isFreed = host.tablePages().every((pages, node) => pages === boot[node]);
  const isBack = host.groups.all.every((group) => group.domain === group.defaultDomain);
  if (!isFreed || !isBack || memory.pinned !== 0)
    return { wrong: "something stayed", held, mapped };
  return { wrong: null, held, mapped };
}

/** Unbinds a driver from a device and binds it again, where nobody uses it. */
function rebind(host: Host, random: Random): void {
  const groups = host.vfio.groups;
  const group = groups[random.below(groups.length)]!;
  const device = group.devices[random.below(group.devices.length)]!;
  if (host.vfio.unregister(device) === Errno.OK) host.vfio.register(device);
}

it("files of VFIO hold what must hold through 400 lives of random calls", () => {
  let held = 0;
  let mapped = 0;
  for (let seed = 1; seed <= 400; seed += 1) {
    const life = live(seed);
    expect(life.wrong, `seed ${seed}`).toBe(null);
    held += life.held;
    mapped += life.mapped;
  }
  expect([held > 1000, mapped > 100]).toEqual([true, true]);
});

it("a group that loses its owner on the way is found", () => {
  let found = 0;
  for (let seed = 1; seed <= 100; seed += 1) {
    const spoil = (host: Host) => {
      for (const group of host.groups.all) group.owner = null;
    };
    if (live(seed, spoil).wrong !== null) found += 1;
  }
  expect(found).toBeGreaterThan(20);
});
