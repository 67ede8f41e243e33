/**
 * The driver against a recording: what an unmodified Linux 7.2 mapped and unmapped from boot on, and
 * every request that its virtio-iommu driver sent for it, as QEMU's device logged them.
 */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { DomainType, IommuDomain } from "../../iommu/domain.ts";
import { DriverWorld } from "./driver-scripted.suite.ts";

const root = fileURLToPath(new URL("../../../", import.meta.url));
/** Endpoints of the recorded machine by group, and the group whose device maps: the NVMe disk. */
const GROUPS = [[0], [8], [24], [32], [40], [248, 250, 251]] as const;
const NVME_GROUP = 2;
/** What is compared; the kernel's trace does not tell the rights of a mapping. */
const QEMU_LINE =
  /^virtio_iommu_(?:(attach) domain=(\d+) endpoint=(\d+)|(map|unmap) domain=(\d+) virt_start=(\S+) virt_end=(\S+)(?: phys_start=(\S+))?)/gm;
const TRACE_LINE =
  / (map|unmap): IOMMU: iova=0x([0-9a-f]+) - 0x[0-9a-f]+ (?:paddr=0x([0-9a-f]+) )?size=(\d+)(?: unmapped_size=(\d+))?/g;

function read(path: string): string {
  return gunzipSync(readFileSync(path)).toString("latin1");
}

/** QEMU's log in the words of the scripted device. */
function requestsOf(log: string): string[] {
  return [...log.matchAll(QEMU_LINE)].map((match) => {
    const [, attach, domain, endpoint, kind, mapped, start, last, phys] = match;
    if (attach !== undefined) return `ATTACH ${domain} ep ${endpoint}`;
    if (kind === "unmap") return `UNMAP ${mapped} ${start}-${last}`;
    return `MAP ${mapped} ${start}-${last} > ${phys}`;
  });
}

/** The requests of our driver for the same boot and the same maps and unmaps. */
function replay(trace: string): string[] {
  const world = new DriverWorld({ probeSize: 512, queueSizes: [256, 256] });
  const { driver } = world;
  const groups = GROUPS.map((ids) => ids.map((id) => world.endpoint(id)));
  const domains = groups.map(() => world.value(driver.createDomain()));
  groups.forEach((endpoints, group) => {
    for (const endpoint of endpoints) driver.attach(endpoint, domains[group]!);
  });
  const core = new IommuDomain(DomainType.DMA, domains[NVME_GROUP]!);
  let differing = 0;
  for (const [, kind, iova, phys, size, unmappedSize] of trace.matchAll(TRACE_LINE)) {
    const pfn = Number.parseInt(iova!, 16) / 4096;
    const pages = Number(size) / 4096;
    if (kind === "map") {
      // The event comes before the sync, which changes nothing about what is sent.
      core.mapNoSync(pfn, Number.parseInt(phys!, 16) / 4096, pages, 3);
    } else if (core.unmap(pfn, pages) !== Number(unmappedSize) / 4096) differing += 1;
  }
  expect(differing).toBe(0);
  driver.requests.sync();
  return world.device
    .takeLog()
    .filter((request) => !request.startsWith("PROBE"))
    .map((request) => request.replace(/ rw$/, ""));
}

/** Requests by the IOVA they start at, each list in order. */
function byStart(requests: readonly string[]): Map<string, string[]> {
  const lists = new Map<string, string[]>();
  for (const request of requests) {
    const start = / (0x[0-9a-f]+)-/.exec(request)?.[1] ?? "attach";
    const list = lists.get(start);
    if (list === undefined) lists.set(start, [request]);
    else list.push(request);
  }
  return lists;
}

describe("the requests of a recorded Linux 7.2 from boot on", () => {
  it("are ours one by one, until an interrupt first came between event and request", () => {
    const sent = replay(read(`${root}examples/boot-strict-1cpu.txt.gz`));
    const logged = requestsOf(read(`${root}examples/qemu-virtio-iommu-strict.log.gz`));
    const first = sent.findIndex((request, at) => request !== logged[at]);
    expect(sent).toHaveLength(logged.length);
    expect(first).toBeGreaterThan(890);
    expect(byStart(sent)).toEqual(byStart(logged));
  });

  const lazy = `${root}../shared/data/traces/boot-virtio-iommu-lazy-2cpu/`;
  // The log of this run is too large for the examples; it is compared where the recordings are.
  if (existsSync(lazy)) {
    it("are ours in lazy mode on two CPUs, address by address", () => {
      const sent = replay(read(`${root}examples/boot-lazy-2cpu.txt.gz`));
      const logged = requestsOf(read(`${lazy}qemu-virtio-iommu.log.gz`));
      expect(sent).toHaveLength(logged.length);
      expect(byStart(sent)).toEqual(byStart(logged));
    });
  }
});
