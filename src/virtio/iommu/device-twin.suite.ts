/**
 * A virtio-iommu device as plainly as it can be written, at granule 1 over a small space: every
 * domain is a map from byte to physical byte. For tests; it shares no code with the device.
 */

interface TwinMapping {
  readonly start: number;
  readonly last: number;
  readonly phys: number;
  readonly flags: number;
}

interface TwinDomain {
  readonly isBypass: boolean;
  mappings: TwinMapping[];
}

interface TwinRegion {
  readonly start: bigint;
  readonly last: bigint;
  readonly kind: "reserved" | "msi";
}

interface TwinEndpoint {
  readonly id: number;
  readonly reserved?: readonly TwinRegion[];
}

/** The twin. */
export class TwinDevice {
  bypass = false;
  /** Reason of the last refused access. */
  reason = 0;
  readonly #endpoints: readonly TwinEndpoint[];
  readonly #limits: { domainsMax: number; domainMappingsMax: number };
  readonly #domains = new Map<number, TwinDomain>();
  readonly #attached = new Map<number, number>();

  constructor(
    endpoints: readonly TwinEndpoint[],
    limits: { domainsMax: number; domainMappingsMax: number },
  ) {
    this.#endpoints = endpoints;
    this.#limits = limits;
  }

  domainOf(endpoint: number): number | null {
    return this.#attached.get(endpoint) ?? null;
  }

  attach(id: number, endpoint: number, isBypass: boolean): string {
    const regions = this.#regions(endpoint);
    if (regions === null) return "NOENT";
    const domain = this.#domains.get(id);
    if (domain !== undefined && domain.isBypass !== isBypass) return "INVAL";
    if (this.#attached.get(endpoint) === id) return "OK";
    for (const mapping of domain?.mappings ?? []) {
      for (let byte = mapping.start; byte <= mapping.last; byte += 1) {
        if (regions.some((region) => isIn(region, byte))) return "UNSUPP";
      }
    }
    const members = [...this.#attached.values()];
    const current = this.#attached.get(endpoint);
    const isAlone = members.filter((other) => other === current).length === 1;
    const count = this.#domains.size - (current !== undefined && isAlone ? 1 : 0);
    if (domain === undefined && count >= this.#limits.domainsMax) return "NOMEM";
    this.#leave(endpoint);
    if (!this.#domains.has(id)) this.#domains.set(id, { isBypass, mappings: [] });
    this.#attached.set(endpoint, id);
    return "OK";
  }

  detach(id: number, endpoint: number): string {
    if (this.#regions(endpoint) === null) return "NOENT";
    if (this.#attached.get(endpoint) !== id) return "INVAL";
    this.#leave(endpoint);
    return "OK";
  }

  map(id: number, start: number, last: number, phys: number, flags: number): string {
    if (last <= start) return "INVAL";
    const domain = this.#domains.get(id);
    if (domain === undefined) return "NOENT";
    if (domain.isBypass) return "INVAL";
    for (const [endpoint, other] of this.#attached) {
      if (other !== id) continue;
      for (let byte = start; byte <= last; byte += 1) {
        if (this.#regions(endpoint)!.some((region) => isIn(region, byte))) return "RANGE";
      }
    }
    for (let byte = start; byte <= last; byte += 1) {
      if (domain.mappings.some((one) => one.start <= byte && byte <= one.last)) return "INVAL";
    }
    if (domain.mappings.length >= this.#limits.domainMappingsMax) return "NOMEM";
    domain.mappings.push({ start, last, phys, flags });
    return "OK";
  }

  unmap(id: number, start: number, last: number): string {
    if (last < start) return "INVAL";
    const domain = this.#domains.get(id);
    if (domain === undefined) return "NOENT";
    if (domain.isBypass) return "INVAL";
    const touched = domain.mappings.filter((one) => one.start <= last && start <= one.last);
    if (touched.some((one) => one.start < start || one.last > last)) return "RANGE";
    domain.mappings = domain.mappings.filter((one) => !touched.includes(one));
    return "OK";
  }

  /** Physical bytes of an access, "msi", or null when it is refused. */
  access(endpoint: number, start: number, bytes: number, access: number): number[] | "msi" | null {
    const id = this.#attached.get(endpoint);
    const all = Array.from({ length: bytes }, (_, index) => start + index);
    if (id === undefined) {
      this.reason = 1;
      return this.bypass ? all : null;
    }
    this.reason = 2;
    const regions = this.#regions(endpoint)!;
    const msi = regions.find((region) => region.kind === "msi");
    if (msi !== undefined && all.every((byte) => isIn(msi, byte))) return "msi";
    if (all.some((byte) => regions.some((region) => isIn(region, byte)))) return null;
    const domain = this.#domains.get(id)!;
    if (domain.isBypass) return all;
    const physical = all.map((byte) => {
      const one = domain.mappings.find((each) => each.start <= byte && byte <= each.last);
      return one === undefined || (one.flags & access) !== access
        ? null
        : one.phys + byte - one.start;
    });
    return physical.every((byte) => byte !== null) ? physical : null;
  }

  mappings(): string[] {
    return [...this.#domains]
      .sort(([a], [b]) => a - b)
      .flatMap(([id, domain]) =>
        domain.mappings
          .sort((a, b) => a.start - b.start)
          .map(({ start, last, phys, flags }) => `${id}: ${start}-${last} -> ${phys} ${flags}`),
      );
  }

  #leave(endpoint: number): void {
    const id = this.#attached.get(endpoint);
    if (id === undefined) return;
    this.#attached.delete(endpoint);
    if (![...this.#attached.values()].includes(id)) this.#domains.delete(id);
  }

  #regions(endpoint: number): readonly TwinRegion[] | null {
    const found = this.#endpoints.find(({ id }) => id === endpoint);
    return found === undefined ? null : (found.reserved ?? []);
  }
}

function isIn(region: TwinRegion, byte: number): boolean {
  return Number(region.start) <= byte && byte <= Number(region.last);
}
