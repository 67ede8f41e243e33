/**
 * Departures of peers from the specification, by name: what a peer's device does instead of what is
 * written, and the clause it departs from. All are off by default; a device takes a set of them to
 * answer as that peer does, and reports after each request which of them changed the answer or the
 * state.
 *
 * Clauses cite the virtio specification 1.3, "IOMMU device", "Device operations"; behaviour was read
 * off hw/virtio/virtio-iommu.c and checked against recorded answers of QEMU 11.1.3. Two things that
 * departing releases of QEMU do have no name here, because they end the process: an assertion on a
 * PROBE with a short writable part, and a very long loop over an inverted range.
 */

/** What is known about a quirk. */
export interface QuirkInfo {
  /** The requirement that is departed from. */
  readonly clause: string;
  /** What the peer does, in one line. */
  readonly does: string;
}

/** Every quirk. The order is that of the bits in a {@link QuirkSet}. */
export const QUIRKS = {
  "qemu-unknown-type-unsupp": {
    clause: "device requirements, Device operations: a request of unknown type is not written to",
    does: "answers UNSUPP in the tail of a request of unknown type",
  },
  "qemu-short-request-breaks-device": {
    clause: "device requirements, Device operations: a request without room for a tail comes back",
    does: "stops the whole device, until reset, at a request without room for a head or a tail",
  },
  "qemu-attach-reserved-ignored": {
    clause: "device requirements, ATTACH request: reserved that is not zero is INVAL",
    does: "ignores the reserved field of ATTACH",
  },
  "qemu-attach-bypass-not-negotiated": {
    clause: "device requirements, ATTACH request: an unknown flag is INVAL",
    does: "honours the BYPASS flag of ATTACH though BYPASS_CONFIG was not negotiated",
  },
  "qemu-attach-domain-range-ignored": {
    clause: "device configuration layout: domain_range limits domain IDs",
    does: "creates domains outside domain_range",
  },
  "qemu-attach-reserved-region-ignored": {
    clause: "device requirements, ATTACH request: incompatible endpoint properties are UNSUPP",
    does: "lets an endpoint join a domain that maps a reserved region of that endpoint",
  },
  "qemu-iommu-is-endpoint": {
    clause: "device requirements, ATTACH and PROBE request: an unknown endpoint is NOENT",
    does: "manages the PCI function of the IOMMU itself as an endpoint",
  },
  "qemu-endpoint-id-cut": {
    clause: "device requirements, ATTACH and PROBE request: an unknown endpoint is NOENT",
    does: "takes an endpoint ID beyond 16 bits for one more endpoint of the function it ends in",
  },
  "qemu-reattach-drops-mappings": {
    clause: "device requirements, ATTACH request: detach first only from another domain",
    does: "detaches an endpoint before it attaches it to the domain it is in already",
  },
  "qemu-failed-attach-detaches": {
    clause: "device requirements, ATTACH request: a rejected request changes nothing",
    does: "detaches an endpoint from its domain before it finds that the new one does not match",
  },
  "qemu-detach-noent-lazy-endpoint": {
    clause: "device requirements, DETACH request: NOENT tells of an endpoint that does not exist",
    does: "answers NOENT to DETACH of an endpoint that exists and is attached nowhere",
  },
  "qemu-map-unmap-not-negotiated": {
    clause: "feature bits: MAP and UNMAP requests are there with MAP_UNMAP",
    does: "handles MAP and UNMAP though MAP_UNMAP was not negotiated",
  },
  "qemu-map-mmio-not-negotiated": {
    clause: "device requirements, MAP request: an unknown flag is INVAL",
    does: "accepts the MMIO flag of MAP though MMIO was not negotiated",
  },
  "qemu-map-one-byte": {
    clause: "driver requirements, MAP request: virt_end is greater than virt_start",
    does: "maps a range of one byte",
  },
  "qemu-map-inverted": {
    clause: "driver requirements, MAP request: virt_end is greater than virt_start",
    does: "stores a range that ends below its start (releases before 11)",
  },
  "qemu-map-unaligned": {
    clause: "device requirements, MAP request: a range off the page granularity is RANGE",
    does: "maps ranges that are not aligned to the page granularity",
  },
  "qemu-map-outside-input-range": {
    clause: "device configuration layout: input_range limits IOVAs",
    does: "maps addresses outside input_range",
  },
  "qemu-map-reserved-region": {
    clause: "device requirements, property RESV_MEM: a mapping over a reserved region is rejected",
    does: "maps over reserved regions",
  },
  "qemu-map-phys-overflow": {
    clause: "device requirements, MAP request: a physical range lies in the address space",
    does: "maps to a physical range that runs past the end of the address space",
  },
  "qemu-unmap-inverted": {
    clause: "driver requirements, UNMAP request: virt_end is greater than virt_start",
    does: "looks up a range that ends below its start (releases before 11)",
  },
  "qemu-unmap-not-atomic": {
    clause: "device requirements, UNMAP request: RANGE removes nothing at all",
    does: "removes mappings one by one, in the order of its tree, until it meets one it would cut",
  },
  "qemu-reset-keeps-domains": {
    clause:
      "device requirements, Device Initialization: a device starts, also after a reset, empty",
    does: "keeps domains and mappings over a status written 0, until the machine is reset",
  },
} as const satisfies Record<string, QuirkInfo>;

/** Name of a quirk. */
export type QuirkName = keyof typeof QUIRKS;

/** Names of all quirks. */
export const QUIRK_NAMES = Object.keys(QUIRKS) as readonly QuirkName[];

/** A set of quirks, a bit each. */
export type QuirkSet = number;

/** What QEMU 11 does: everything but what earlier releases did. */
export const QEMU_QUIRKS: readonly QuirkName[] = QUIRK_NAMES.filter(
  (name) => name !== "qemu-map-inverted" && name !== "qemu-unmap-inverted",
);

/** The bit of one quirk. */
export function quirkBit(name: QuirkName): QuirkSet {
  return 1 << QUIRK_NAMES.indexOf(name);
}

/** A set out of names. */
export function quirkSet(names: Iterable<QuirkName>): QuirkSet {
  let bits = 0;
  for (const name of names) bits |= quirkBit(name);
  return bits;
}

/** The names in a set. */
export function quirkNames(set: QuirkSet): QuirkName[] {
  return QUIRK_NAMES.filter((name) => (set & quirkBit(name)) !== 0);
}
