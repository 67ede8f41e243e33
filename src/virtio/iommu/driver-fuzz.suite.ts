/**
 * The fuzzer of the driver: a device that answers with any status, any used length and any
 * properties, forgets requests, and scribbles over the rings. The driver must neither throw nor
 * hang; after a recovery on an honest device, that device must have what the driver remembers.
 */
import { Errno } from "../../errno.ts";
import { DomainType, IommuDomain } from "../../iommu/domain.ts";
import { PROT_RW } from "../../iommu/prot.ts";
import { Random } from "../../random.ts";
import type { Endpoint } from "./driver.ts";
import type { ViommuDomain } from "./driver-domain.ts";
import { DriverWorld } from "./driver-scripted.suite.ts";
import { ALL_CORRECTIONS, LINUX_6_4, LINUX_7_2 } from "./driver-settings.ts";

const settings = [
  { ...LINUX_7_2, pollsMax: 50 },
  { ...LINUX_6_4, pollsMax: 50 },
  { ...LINUX_7_2, pollsMax: 50, corrections: ALL_CORRECTIONS },
];

/** What a fuzzed life found, and how far it got. */
export interface FuzzedLife {
  /** What was wrong, or null. */
  readonly wrong: string | null;
  readonly wasDead: boolean;
  readonly mappings: number;
}

/**
 * Runs one life of a driver on a hostile device.
 *
 * @param sabotage - spoils the driver after its recovery, to show that the check sees it
 */
export function fuzzDriver(seed: number, sabotage?: (domain: ViommuDomain) => void): FuzzedLife {
  const random = new Random(seed);
  const world = new DriverWorld(
    { queueSizes: [2 ** (1 + random.below(5)), 2 ** random.below(4)], probeSize: 48 },
    settings[random.below(settings.length)]!,
  );
  const { driver, device } = world;
  const endpoints: Endpoint[] = [world.endpoint(1), world.endpoint(2)];
  const domains: ViommuDomain[] = [0, 1].map(() => world.value(driver.createDomain()));
  endpoints.forEach((endpoint, at) => {
    driver.attach(endpoint, domains[at]!);
    domains[at]!.map(at, at, 12, 1, PROT_RW);
  });
  makeHostile(random, world);
  for (let step = 0; step < 60; step += 1) {
    const outcome = oneStep(random, world, endpoints, domains);
    const isErrno = Object.values(Errno).some((errno) => errno === outcome);
    if (!isErrno) return { wrong: `step ${step} gave ${outcome}`, wasDead: false, mappings: 0 };
  }
  const wasDead = driver.requests.dead !== Errno.OK;

  device.answer = () => ({});
  device.isAsleep = false;
  device.takeLog();
  const recovered = driver.recover();
  if (recovered !== Errno.OK) return { wrong: `no recovery: ${recovered}`, wasDead, mappings: 0 };
  const attached = new Set(endpoints.map((endpoint) => endpoint.domain));
  const expected = domains.filter((domain) => attached.has(domain));
  for (const domain of expected) sabotage?.(domain);
  driver.requests.sync();
  const replayed = device.takeLog().filter((request) => request.startsWith("MAP")).length;
  const mappings = expected.reduce((sum, domain) => sum + domain.mappingCount, 0);
  const wrong = replayed === mappings ? null : `${replayed} of ${mappings} mappings replayed`;
  return { wrong, wasDead, mappings };
}

function makeHostile(random: Random, world: DriverWorld): void {
  const malice = random.below(4);
  world.device.answer = () => {
    if (malice > 0 && random.chance(1, 60)) world.device.isAsleep = true;
    if (malice > 1 && random.chance(1, 10)) scribble(random, world);
    return {
      status: random.chance(1, 4) ? random.below(256) : 0,
      ...(random.chance(1, 6) ? { used: random.below(5) } : {}),
      ...(random.chance(1, 3)
        ? { bytes: Array.from({ length: 48 }, () => random.below(random.chance(1, 2) ? 3 : 256)) }
        : {}),
    };
  };
}

/** Writes nonsense into a device area, as only a hostile device does. */
function scribble(random: Random, { device, memory }: DriverWorld): void {
  const areas = device.queues.queues[random.below(2)]!.areas;
  if (areas === null) return;
  const at = areas.device + 2 * random.below(3 + 4 * areas.size);
  memory.writeU16(at, random.chance(1, 2) ? random.below(8) : random.below(65_536));
}

/** One call of the driver's. @returns an errno */
function oneStep(
  random: Random,
  world: DriverWorld,
  endpoints: Endpoint[],
  domains: ViommuDomain[],
): number {
  const { driver, device } = world;
  const endpoint = endpoints[random.below(endpoints.length + 1)];
  const domain = domains[random.below(domains.length + 1)];
  const pfn = random.below(64);
  const pages = 1 + random.below(8);
  switch (random.below(14)) {
    case 0: {
      const added = driver.addEndpoint([random.below(8), 8 + random.below(8)]);
      if (added.value !== null) endpoints.push(added.value);
      return added.errno;
    }
    case 1: {
      const created = driver.createDomain();
      if (created.value !== null) domains.push(created.value);
      return created.errno;
    }
    case 2:
      return endpoint && domain ? driver.attach(endpoint, domain) : Errno.OK;
    case 3:
      return endpoint ? driver.detach(endpoint) : Errno.OK;
    case 4: {
      const identity = endpoint && driver.identityDomain(endpoint);
      return identity?.value ? driver.attach(endpoint!, identity.value) : Errno.OK;
    }
    case 5:
      device.raise(Array.from({ length: random.below(25) }, () => random.below(256)));
      world.transport.onInterrupt?.(random.below(3));
      return Errno.OK;
    case 6:
      if (domain) new IommuDomain(DomainType.UNMANAGED, domain).unmap(pfn, pages);
      return Errno.OK;
    default:
      if (!domain || domain.iovaToPhys(pfn) >= 0) return Errno.OK;
      return new IommuDomain(DomainType.UNMANAGED, domain).map(pfn, 100 + pfn, pages, PROT_RW);
  }
}
